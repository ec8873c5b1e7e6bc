"""The tables as they are now; ``migrations/versions`` holds the way here."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
)

metadata = MetaData()
NUMBER = BigInteger().with_variant(Integer, "sqlite")
"""Of a primary key that counts by itself."""

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
    Column("id", NUMBER, primary_key=True, autoincrement=True),
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
    Column("route", String(128), nullable=False, server_default=""),
    Column("prompt", String(200), nullable=False, server_default=""),
    Index("usage_at", "at"),
)

USAGE_ROW = tuple(column.name for column in usage.columns if column.name != "id")
"""The columns of a usage row, in the order that ``State.record`` gives their values."""

# JSON that came from callers is kept as bytes: PostgreSQL's own types refuse zero characters and large numbers.

responses = Table(
    "responses",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("key", String(64), nullable=False),
    Column("place", String(64), nullable=False),
    Column("run", String(64), nullable=False),
    Column("created", Float(53), nullable=False),
    Column("expires", Float(53), nullable=True),
    Column("status", String(16), nullable=False),
    Column("previous", String(64), nullable=True),
    Column("body", LargeBinary, nullable=False),
    Column("input", LargeBinary, nullable=False),
    Column("events", LargeBinary, nullable=True),
    Index("responses_expires", "expires"),
    Index("responses_status", "status"),
)

conversations = Table(
    "conversations",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("key", String(64), nullable=False),
    Column("created", Float(53), nullable=False),
    Column("about", LargeBinary, nullable=False),
)

conversation_items = Table(
    "conversation_items",
    metadata,
    Column("number", NUMBER, primary_key=True, autoincrement=True),
    Column("conversation", String(64), nullable=False),
    Column("id", String(64), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("conversation_items_id", "conversation", "id", unique=True),
)

files = Table(
    "files",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("key", String(64), nullable=False),
    Column("place", String(64), nullable=False),
    Column("created", Float(53), nullable=False),
    Column("expires", Float(53), nullable=True),
    Column("name", String(512), nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Index("files_key", "key", "created", "id"),
    Index("files_expires", "expires"),
)

batches = Table(
    "batches",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("key", String(64), nullable=False),
    Column("place", String(64), nullable=False),
    Column("created", Float(53), nullable=False),
    Column("expires", Float(53), nullable=False),
    Column("status", String(16), nullable=False),
    Column("input", String(64), nullable=False),
    Column("endpoint", String(64), nullable=False),
    Column("total", Integer, nullable=False),
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("about", LargeBinary, nullable=False),
    Index("batches_key", "key", "created", "id"),
    Index("batches_status", "status"),
)

batch_lines = Table(
    "batch_lines",
    metadata,
    Column("batch", String(64), primary_key=True),
    Column("line", Integer, primary_key=True),
    Column("ok", Boolean, nullable=False),
    Column("body", LargeBinary, nullable=False),
)

arenas = Table(
    "arenas",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("created", Float(53), nullable=False),
    Column("about", LargeBinary, nullable=False),
)

arena_items = Table(
    "arena_items",
    metadata,
    Column("arena", String(64), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("body", LargeBinary, nullable=False),
)

arena_votes = Table(
    "arena_votes",
    metadata,
    Column("arena", String(64), primary_key=True),
    Column("task", String(32), primary_key=True),
    Column("rater", String(200), primary_key=True),
    Column("item", Integer, nullable=False),
    Column("at", Float(53), nullable=False),
    Column("body", LargeBinary, nullable=False),
)
