"""The route that a call named, and the prompt that it used.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("usage", sa.Column("route", sa.String(128), nullable=False, server_default=""))
    op.add_column("usage", sa.Column("prompt", sa.String(200), nullable=False, server_default=""))


def downgrade() -> None:
    with op.batch_alter_table("usage") as table:
        table.drop_column("prompt")
        table.drop_column("route")
