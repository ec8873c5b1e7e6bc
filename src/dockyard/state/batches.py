"""Batches, and each line of theirs that is finished: recorded once, with the counts, so that a crash redoes none."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import delete, insert, select, update

from dockyard.errors import NotFound
from dockyard.state import State
from dockyard.state._page import Page, rows_of
from dockyard.state.files import File, Files
from dockyard.state.tables import batch_lines as lines
from dockyard.state.tables import batches as table
from dockyard.types import Json

if TYPE_CHECKING:
    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

OPEN = ("validating", "in_progress", "finalizing", "cancelling")
STEP = 500
"""Lines that are read at a time."""


class About(msgspec.Struct, kw_only=True):
    """What else a batch says of itself. ``times`` maps OpenAI's names ("in_progress_at" …) to Unix seconds; ``stopped``
    is "cancelled" or "expired" if it ends before its last line.
    """

    metadata: dict[str, str] | None = None
    times: dict[str, int] = {}
    errors: list[dict[str, Json]] = []
    model: str | None = None
    usage: dict[str, Json] | None = None
    output: str | None = None
    failures: str | None = None
    output_seconds: float | None = None
    stopped: str | None = None


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """A batch of ``key``'s: lines of file ``input`` for ``endpoint``. Times are Unix seconds."""

    id: str
    key: str
    endpoint: str
    input: str
    expires: float
    about: About
    created: float = msgspec.field(default_factory=time.time)
    status: str = "validating"
    total: int = 0
    completed: int = 0
    failed: int = 0


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """A line that is over: what its output file (``ok``) or error file says."""

    batch: str
    line: int
    ok: bool
    body: bytes


class Batches:
    """The tables of one home, ``place``. Nobody sees what is another key's."""

    def __init__(self, state: State, place: str, files: Files) -> None:
        self._state = state
        self._place = place
        self.files = files

    async def add(self, made: Batch) -> None:
        row = {name: getattr(made, name) for name in Batch.__struct_fields__}
        row |= {"about": msgspec.json.encode(made.about), "place": self._place}
        async with self._state.transaction() as connection:
            await connection.execute(insert(table), row)

    async def get(self, id: str, key: str | None = None) -> Batch:
        """Raises NotFound. ``key`` None: whoever's it is."""
        mine = (table.c.id == id) & (table.c.place == self._place)
        if key is not None:
            mine &= table.c.key == key
        async with self._state.transaction() as connection:
            row = (await connection.execute(select(table).where(mine))).one_or_none()
        if row is None:
            raise NotFound(f"there is no batch {id!r:.80}", param="batch_id")
        return _batch(row)

    async def page(self, key: str, *, limit: int, after: str | None) -> Page[Batch]:
        """Part of a key's batches, newest first. Raises InvalidRequest if ``after`` is none of them."""
        mine = (table.c.key == key) & (table.c.place == self._place)
        async with self._state.transaction() as connection:
            page = await rows_of(connection, table, mine, limit=limit, after=after)
        return Page([_batch(row) for row in page.rows], page.more)

    async def open(self) -> list[Batch]:
        """Those that are not over, oldest first."""
        mine = (table.c.place == self._place) & table.c.status.in_(OPEN)
        async with self._state.transaction() as connection:
            rows = await connection.execute(select(table).where(mine).order_by(table.c.created, table.c.id))
            return [_batch(row) for row in rows]

    async def reads(self, file: str) -> str | None:
        """The batch that still has to read this file, if any."""
        mine = (table.c.place == self._place) & (table.c.input == file) & table.c.status.in_(OPEN)
        async with self._state.transaction() as connection:
            return (await connection.execute(select(table.c.id).where(mine).limit(1))).scalar_one_or_none()

    async def change(
        self, id: str, before: tuple[str, ...], status: str, *, total: int | None = None, **about: Json
    ) -> bool:
        """Go on to ``status`` if it is one of ``before``; ``about`` replaces fields, and adds to ``times``."""
        values = {"status": status, **({} if total is None else {"total": total})}
        async with self._state.transaction() as connection:
            went = update(table).where(table.c.id == id, table.c.status.in_(before)).values(**values)
            if not (await connection.execute(went)).rowcount:
                return False
            await _tell(connection, id, about)
        return True

    async def done(self, id: str) -> set[int]:
        """The numbers of its finished lines."""
        async with self._state.transaction() as connection:
            return set((await connection.execute(select(lines.c.line).where(lines.c.batch == id))).scalars())

    async def record(self, finished: list[Finished]) -> None:
        """Keep finished lines, all or none. One that is there already, of an attempt whose end nobody saw, stays."""
        async with self._state.transaction() as connection:
            for id in dict.fromkeys(one.batch for one in finished):
                mine = [one for one in finished if one.batch == id]
                # A write comes first, so that what is read after it can't change any more.
                await connection.execute(update(table).where(table.c.id == id).values(total=table.c.total))
                there = select(lines.c.line).where(lines.c.batch == id, lines.c.line.in_([one.line for one in mine]))
                known = set((await connection.execute(there)).scalars())
                new = [one for one in mine if one.line not in known]
                if not new:
                    continue
                await connection.execute(insert(lines), [msgspec.structs.asdict(one) for one in new])
                good = sum(one.ok for one in new)
                await connection.execute(
                    update(table)
                    .where(table.c.id == id)
                    .values(completed=table.c.completed + good, failed=table.c.failed + len(new) - good)
                )

    async def lines(self, id: str, *, ok: bool) -> AsyncIterator[list[bytes]]:
        """The finished lines of one sort, in the order of the input, some at a time."""
        last = 0
        while True:
            query = select(lines.c.line, lines.c.body).where(lines.c.batch == id, lines.c.ok == ok, lines.c.line > last)
            async with self._state.transaction() as connection:
                rows = (await connection.execute(query.order_by(lines.c.line).limit(STEP))).all()
            if not rows:
                return
            last = rows[-1].line
            yield [row.body for row in rows]

    async def finish(self, id: str, before: tuple[str, ...], status: str, made: list[File], **about: Json) -> bool:
        """End a batch: its files, its status and the lines that are in the files now, all in one."""
        async with self._state.transaction() as connection:
            ended = update(table).where(table.c.id == id, table.c.status.in_(before)).values(status=status)
            if not (await connection.execute(ended)).rowcount:
                return False
            await _tell(connection, id, about)
            for file in made:
                await self.files.note(connection, file)
            await connection.execute(delete(lines).where(lines.c.batch == id))
        return True


async def _tell(connection: AsyncConnection, id: str, about: dict[str, Json]) -> None:
    """Replace fields of what a batch says of itself, in a transaction that holds its row."""
    old = _about((await connection.execute(select(table.c.about).where(table.c.id == id))).scalar_one())
    new = msgspec.structs.replace(old, **{**about, "times": {**old.times, **about.get("times", {})}})
    await connection.execute(update(table).where(table.c.id == id).values(about=msgspec.json.encode(new)))


def _batch(row: Row[Any]) -> Batch:
    fields = {name: getattr(row, name) for name in Batch.__struct_fields__ if name != "about"}
    return Batch(**fields, about=_about(row.about))


def _about(body: bytes) -> About:
    return msgspec.json.decode(body, type=About)
