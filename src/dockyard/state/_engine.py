"""Connecting to the database and bringing it up to date."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dockyard.errors import EngineUnavailable, SettingsError

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection
    from sqlalchemy.ext.asyncio import AsyncEngine

MIGRATIONS = Path(__file__).parent / "migrations"
BUSY_SECONDS = 15
LOCK = 0x646F636B  # "dock"; whoever migrates holds this advisory lock of PostgreSQL


def libraries() -> None:
    """Import what ``connect`` needs; in a thread, so that answers go on meanwhile."""
    import aiosqlite  # noqa: F401
    import sqlalchemy.ext.asyncio  # noqa: F401


async def connect(text: str, *, migrated: bool = False) -> AsyncEngine:
    """An engine on a migrated database (``migrated`` says it is already). Raises SettingsError naming the database,
    never its password.
    """
    from sqlalchemy import event
    from sqlalchemy.exc import SQLAlchemyError
    from sqlalchemy.ext.asyncio import create_async_engine

    url = _url(text)
    sqlite = url.get_backend_name() == "sqlite"
    try:
        engine = create_async_engine(url, pool_pre_ping=not sqlite)
    except ModuleNotFoundError as error:
        raise EngineUnavailable(
            f"the driver of {url.drivername} is not installed", hint="pip install 'dockyard[postgres]'"
        ) from error
    if sqlite:
        event.listen(engine.sync_engine, "connect", _tune)
    try:
        if sqlite and url.database and url.database != ":memory:":
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        if not migrated:
            async with turn(url), engine.begin() as connection:
                await connection.run_sync(_migrate)
    except (SQLAlchemyError, OSError) as error:
        await engine.dispose()
        raise SettingsError(
            f"the database {url.render_as_string(hide_password=True)} can't be used: {_first_line(error)}",
            param="database",
            hint="set `database` to a SQLAlchemy URL, or leave it empty for SQLite",
        ) from error
    return engine


@asynccontextmanager
async def turn(url: URL) -> AsyncIterator[None]:
    """Only one process migrates a SQLite file at a time; PostgreSQL has a lock of its own for that."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        yield
        return
    from filelock import AsyncFileLock

    async with AsyncFileLock(f"{url.database}.lock", timeout=BUSY_SECONDS):
        yield


def _url(text: str) -> URL:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(text)
    except ArgumentError as error:
        raise SettingsError("the setting `database` is no SQLAlchemy URL", param="database") from error
    drivers = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "postgres": "postgresql+asyncpg"}
    backend = url.drivername.partition("+")[0]
    if backend not in drivers:
        raise SettingsError(f"databases are SQLite or PostgreSQL, not {backend!r}", param="database")
    return url if "+" in url.drivername else url.set(drivername=drivers[backend])


def _tune(connection: Any, _: Any) -> None:
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", f"busy_timeout={BUSY_SECONDS * 1000}", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _migrate(connection: Connection) -> None:
    """Bring the tables to the newest revision. Two servers that start at once take turns."""
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import text

    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def insert_usage(engine: AsyncEngine) -> str:
    """The statement that adds a row of usage, in the driver's own SQL; its parameters are ``USAGE_ROW`` in order."""
    from sqlalchemy import insert

    from dockyard.state.tables import USAGE_ROW, usage

    compiled = insert(usage).compile(dialect=engine.sync_engine.dialect, column_keys=list(USAGE_ROW))
    text = str(compiled)
    if tuple(compiled.positiontup or ()) != USAGE_ROW:
        raise AssertionError(f"the driver orders parameters otherwise: {text}")
    return text


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
