"""A look into an SQLite file without SQLAlchemy, whose import takes longer than all the rest of a server's start."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import msgspec

if TYPE_CHECKING:
    from dockyard.state import Key

NEWEST = "0004"
"""The newest revision in ``migrations/versions``; a test holds the two together."""


def stored_keys(url: str) -> list[Key] | None:
    """The keys of a database that is there and needs no migration; None where only a real connection can tell."""
    from dockyard.state import Key

    path = _path(url)
    if path is None:
        return None
    try:
        with closing(_open(path)) as database:
            if database.execute("SELECT version_num FROM alembic_version").fetchall() != [(NEWEST,)]:
                return None
            names = Key.__struct_fields__
            # The names are this module's own; nothing of a caller's gets into the statement.
            rows = database.execute(f"SELECT {', '.join(names)} FROM keys ORDER BY created, name").fetchall()
    except sqlite3.Error:
        return None
    return [_key(dict(zip(names, row, strict=True))) for row in rows]


def unfinished(url: str) -> bool:
    """Whether there may be batches that are not over; certain only of an SQLite file."""
    path = _path(url)
    if path is None:
        return True
    try:
        with closing(_open(path)) as database:
            over = "('completed', 'failed', 'expired', 'cancelled')"
            query = f"SELECT 1 FROM batches WHERE status NOT IN {over} LIMIT 1"
            return database.execute(query).fetchone() is not None
    except sqlite3.Error:
        return True


def _path(url: str) -> str | None:
    scheme, found, path = url.partition(":///")
    if not found or scheme not in ("sqlite", "sqlite+aiosqlite") or path in ("", ":memory:") or "?" in path:
        return None
    return path


def _open(path: str) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{quote(unquote(path))}?mode=ro", uri=True, timeout=1)


def _key(row: dict[str, object]) -> Key:
    from dockyard.state import Key

    for name in ("scopes", "models"):
        row[name] = msgspec.json.decode(str(row[name]))
    return msgspec.convert(row, Key)
