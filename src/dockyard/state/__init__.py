"""The database: keys, usage, responses, files and batches. SQLite (WAL) by default, PostgreSQL by URL.

It is migrated to the newest form when opened.
Usage rows are written in batches behind the requests' backs. If the database is slower than the requests for long,
rows are dropped and counted (``dropped``), since an answer must not wait for its accounting.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import msgspec

from dockyard.errors import Conflict, InvalidRequest, NotFound, SettingsError
from dockyard.state._peek import stored_keys
from dockyard.types import Call, Principal

if TYPE_CHECKING:
    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

log = logging.getLogger(__name__)

PREFIX = "dky_"
IN_MEMORY = "sqlite+aiosqlite:///:memory:"
"""The URL of a database that ends with its ``State``."""
BATCH_SECONDS = 1.0
BATCH_ROWS = 2000
MOST_WAITING = 50_000


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """A stored key, without its secret. ``digest`` is its SHA-256; times are Unix seconds."""

    name: str
    digest: str
    scopes: list[str]
    models: list[str]
    requests_per_minute: int
    created: float
    expires: float | None = None


class StoredKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as ``gateway.keyring`` holds it; ``requests_per_minute`` 0 means the settings' own limit."""

    digest: str
    principal: Principal
    requests_per_minute: int = 0
    expires: float | None = None


class UsageSum(msgspec.Struct, frozen=True, kw_only=True):
    """What one key used of one model; ``route`` and ``prompt`` (name and digest) where it was asked through those."""

    key: str
    model: str
    requests: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    seconds: float
    route: str = ""
    prompt: str = ""


class State:
    """One database. ``open`` before use; ``record`` may be called from the event loop at any rate.

    A database that needs no migration is only peeked into at first, and connected to when it is first written.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.dropped = 0
        self._engine: AsyncEngine | None = None
        self._opened = False
        self._migrated = False
        self._connecting = asyncio.Lock()
        # All of a database in memory is one connection, and so one transaction at a time.
        self._turn: asyncio.Lock | nullcontext[None] = asyncio.Lock() if url == IN_MEMORY else nullcontext()
        self._rows: deque[tuple[Any, ...]] = deque()
        self._insert = ""
        self._wake: asyncio.Event | None = None
        self._flushing = asyncio.Lock()
        self._closing = False
        self._writer: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect and migrate. Raises SettingsError if the database can't be used."""
        self._opened = True
        self._migrated = stored_keys(self.url) is not None
        if not self._migrated:
            await self._database()
        self._wake = asyncio.Event()
        self._writer = asyncio.get_running_loop().create_task(self._write())

    async def close(self) -> None:
        """Write what is waiting and disconnect. Idempotent."""
        if self._writer is not None and self._wake is not None:
            # Not cancelled: a statement that is cut off leaves its transaction, and the lock on the file, behind.
            self._closing = True
            self._wake.set()
            await self._writer
            self._writer = None
        if self._engine is not None:
            try:
                await self.flush()
            finally:
                await self._engine.dispose()
                self._engine = None
        self._opened = False

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A connection whose statements all count, or none do. For SQLite let the first one that matters be a write:
        what was read before may have changed by then.
        """
        async with self._turn, (await self._database()).begin() as connection:
            yield connection

    # keys

    async def create_key(
        self,
        name: str,
        *,
        scopes: frozenset[str] = frozenset({"infer"}),
        models: tuple[str, ...] = (),
        requests_per_minute: int = 0,
        expires_in: float | None = None,
    ) -> tuple[Key, str]:
        """A new key and its secret, which is kept nowhere. Raises Conflict if the name is taken."""
        from sqlalchemy import insert
        from sqlalchemy.exc import IntegrityError

        from dockyard.state.tables import keys

        if not name or not scopes or not scopes <= {"infer", "manage"}:
            raise InvalidRequest("a key needs a name and the scopes `infer`, `manage` or both", param="scopes")
        secret = PREFIX + secrets.token_urlsafe(32)
        now = time.time()
        key = Key(
            name=name,
            digest=hashlib.sha256(secret.encode()).hexdigest(),
            scopes=sorted(scopes),
            models=list(models),
            requests_per_minute=requests_per_minute,
            created=now,
            expires=None if expires_in is None else now + expires_in,
        )
        try:
            async with (await self._database()).begin() as connection:
                await connection.execute(insert(keys), msgspec.to_builtins(key))
        except IntegrityError as error:
            raise Conflict(f"there is a key named {name!r} already", param="name") from error
        return key, secret

    async def list_keys(self) -> list[Key]:
        """All keys, oldest first."""
        from sqlalchemy import select

        from dockyard.state.tables import keys

        async with (await self._database()).connect() as connection:
            found = await connection.execute(select(keys).order_by(keys.c.created, keys.c.name))
            return [_key(row) for row in found]

    async def revoke_key(self, name: str) -> None:
        """Delete a key. Raises NotFound."""
        from sqlalchemy import delete

        from dockyard.state.tables import keys

        async with (await self._database()).begin() as connection:
            gone = await connection.execute(delete(keys).where(keys.c.name == name))
        if not gone.rowcount:
            raise NotFound(f"there is no key named {name!r}", param="name", hint="`dockyard key ls` lists them")

    async def keys(self) -> list[StoredKey]:
        """All keys, for ``gateway.keyring``."""
        found = stored_keys(self.url) if self._engine is None and self._opened else None
        return [
            StoredKey(
                digest=key.digest,
                principal=Principal(name=key.name, scopes=frozenset(key.scopes), models=tuple(key.models)),
                requests_per_minute=key.requests_per_minute,
                expires=key.expires,
            )
            for key in (await self.list_keys() if found is None else found)
        ]

    # usage

    def record(self, call: Call, outcome: str, seconds: float) -> None:
        """Keep what a finished call took; written soon, never waited for."""
        if len(self._rows) >= MOST_WAITING:
            self.dropped += 1
            return
        usage = call.usage
        self._rows.append(
            (
                time.time(),
                call.request.id,
                call.principal.name if call.principal else "",
                call.reference or call.model[:512],
                call.dialect,
                outcome,
                call.cache,
                usage.prompt_tokens,
                usage.completion_tokens,
                usage.cached_tokens,
                None if call.first_token is None else call.first_token - call.received,
                seconds,
                call.model[:128] if call.target is not None else "",
                _prompt(call),
            )
        )
        if len(self._rows) == 1 and self._wake is not None:
            self._wake.set()

    async def usage(self, *, since: float = 0.0) -> list[UsageSum]:
        """Sums by key, model, route and prompt of the calls that ended at or after ``since`` (Unix seconds)."""
        from sqlalchemy import case, func, select

        from dockyard.state.tables import usage as table

        await self.flush()
        means = (table.c.route, table.c.prompt)
        failed = func.sum(case((table.c.outcome == "ok", 0), else_=1))
        query = (
            select(
                table.c.key,
                table.c.model,
                func.count(),
                failed,
                func.sum(table.c.prompt_tokens),
                func.sum(table.c.completion_tokens),
                func.sum(table.c.cached_tokens),
                func.sum(table.c.seconds),
                *means,
            )
            .where(table.c.at >= since)
            .group_by(table.c.key, table.c.model, *means)
            .order_by(table.c.key, table.c.model, *means)
        )
        async with (await self._database()).connect() as connection:
            found = (await connection.execute(query)).all()
        names = UsageSum.__struct_fields__
        return [
            UsageSum(**dict(zip(names, (*row[:2], *map(int, row[2:7]), float(row[7]), *row[8:]), strict=True)))
            for row in found
        ]

    async def flush(self) -> None:
        """Write all rows that are waiting. Raises what the database raised; the rows then wait on."""
        await asyncio.shield(asyncio.ensure_future(self._flush()))

    async def _flush(self) -> None:
        async with self._flushing:
            while self._rows:
                batch = [self._rows.popleft() for _ in range(min(len(self._rows), BATCH_ROWS))]
                try:
                    async with (await self._database()).begin() as connection:
                        # Straight to the driver: what SQLAlchemy does for each row costs more than the row itself.
                        await connection.exec_driver_sql(self._insert, batch)
                except BaseException:
                    self._rows.extendleft(reversed(batch))
                    raise

    async def _write(self) -> None:
        assert self._wake is not None
        while not self._closing:
            await self._wake.wait()
            if not self._closing:
                await asyncio.sleep(BATCH_SECONDS)
            self._wake.clear()
            try:
                await self._flush()
            except Exception:  # the database may come back; until then the rows wait
                log.exception("usage could not be written; %d rows wait", len(self._rows))
                self._wake.set()

    async def _database(self) -> AsyncEngine:
        """The connected engine. Raises SettingsError if the database can't be used or is not open."""
        from dockyard.state._engine import connect, insert_usage, libraries

        async with self._connecting:
            if self._engine is None:
                if not self._opened:
                    raise SettingsError("the database is not open")
                await asyncio.to_thread(libraries)
                engine = await connect(self.url, migrated=self._migrated)
                self._insert = insert_usage(engine)
                self._engine = engine
        return self._engine


def _prompt(call: Call) -> str:
    """The prompt that a call used, by name and digest."""
    used = call.prompt
    return "" if used is None or not used.digest else f"{used.name[:100]}:{used.version[:20]}@{used.digest}"[:200]


def _key(row: Row[Any]) -> Key:
    return Key(**{field: getattr(row, field) for field in Key.__struct_fields__})
