"""Arenas: what people are asked to judge, and what they said.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "arenas",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("created", sa.Float(53), nullable=False),
        sa.Column("about", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "arena_items",
        sa.Column("arena", sa.String(64), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "arena_votes",
        sa.Column("arena", sa.String(64), primary_key=True),
        sa.Column("task", sa.String(32), primary_key=True),
        sa.Column("rater", sa.String(200), primary_key=True),
        sa.Column("item", sa.Integer, nullable=False),
        sa.Column("at", sa.Float(53), nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    for name in ("arena_votes", "arena_items", "arenas"):
        op.drop_table(name)
