"""The tables as they are now; ``migrations/versions`` holds the way here."""

from __future__ import annotations

from sqlalchemy import JSON, BigInteger, Column, Float, Index, Integer, MetaData, String, Table

metadata = MetaData()

keys = Table(
    "keys",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("scopes", JSON, nullable=False),
    Column("models", JSON, nullable=False),
    Column("requests_per_minute", Integer, nullable=False),
    Column("created", Float(53), nullable=False),
    Column("expires", Float(53), nullable=True),
)

usage = Table(
    "usage",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("at", Float(53), nullable=False),
    Column("request", String(64), nullable=False),
    Column("key", String(64), nullable=False),
    Column("model", String(600), nullable=False),
    Column("dialect", String(32), nullable=False),
    Column("outcome", String(40), nullable=False),
    Column("cache", String(16), nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("ttft", Float(53), nullable=True),
    Column("seconds", Float(53), nullable=False),
    Index("usage_at", "at"),
)

USAGE_ROW = tuple(column.name for column in usage.columns if column.name != "id")
"""The columns of a usage row, in the order that ``State.record`` gives their values."""
