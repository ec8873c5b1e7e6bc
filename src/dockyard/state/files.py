"""Files that callers hand in or are handed: rows in the database, contents in a folder of the home."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import delete, insert, select, true

from dockyard.errors import NotFound
from dockyard.state import State
from dockyard.state._page import Page, rows_of
from dockyard.state.tables import files as table

if TYPE_CHECKING:
    from sqlalchemy import Row
    from sqlalchemy.ext.asyncio import AsyncConnection

PART_SECONDS = 24 * 3600.0
"""An unfinished upload is removed when nothing was added to it for so long."""


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A file of ``key``'s; times are Unix seconds."""

    id: str
    key: str
    name: str
    purpose: str
    bytes: int
    created: float = msgspec.field(default_factory=time.time)
    expires: float | None = None


class Files:
    """The table and the contents of one home, ``place``. Nobody sees what is another key's."""

    def __init__(self, state: State, place: str, folder: Path) -> None:
        self._state = state
        self._place = place
        self.folder = folder

    def path(self, id: str) -> Path:
        """Where the content of a file of this id is, if there is one."""
        return self.folder / id

    def part(self, id: str) -> Path:
        """Where to write the content before ``add`` is called."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{id}.part"

    async def add(self, made: File) -> None:
        """Take what ``part`` holds, durably, under its id."""
        part = self.part(made.id)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(self.path(made.id))
        async with self._state.transaction() as connection:
            await self.note(connection, made)

    async def note(self, connection: AsyncConnection, made: File) -> None:
        """Add the row, within a transaction of the caller's. The content must be in place."""
        row = {name: getattr(made, name) for name in File.__struct_fields__}
        await connection.execute(insert(table), {**row, "place": self._place})

    async def get(self, id: str, key: str) -> File:
        """Raises NotFound."""
        query = select(table).where(table.c.id == id, table.c.key == key, table.c.place == self._place)
        async with self._state.transaction() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None or (row.expires is not None and row.expires < time.time()):
            raise NotFound(f"there is no file {id!r:.80}", param="file_id")
        return _file(row)

    async def page(
        self, key: str, *, purpose: str | None, limit: int, after: str | None, newest_first: bool
    ) -> Page[File]:
        """Part of a key's files. Raises InvalidRequest if ``after`` is none of them."""
        mine = (table.c.key == key) & (table.c.place == self._place)
        mine &= true() if purpose is None else table.c.purpose == purpose
        mine &= table.c.expires.is_(None) | (table.c.expires >= time.time())
        async with self._state.transaction() as connection:
            page = await rows_of(connection, table, mine, limit=limit, after=after, newest_first=newest_first)
        return Page([_file(row) for row in page.rows], page.more)

    async def delete(self, id: str, key: str) -> None:
        """Raises NotFound."""
        mine = (table.c.id == id) & (table.c.key == key) & (table.c.place == self._place)
        async with self._state.transaction() as connection:
            gone = await connection.execute(delete(table).where(mine))
        if not gone.rowcount:
            raise NotFound(f"there is no file {id!r:.80}", param="file_id")
        self.path(id).unlink(missing_ok=True)

    async def sweep(self) -> int:
        """Delete what has expired, and uploads that nobody goes on with; how many files that were."""
        now = time.time()
        mine = table.c.place == self._place
        async with self._state.transaction() as connection:
            gone = (await connection.execute(select(table.c.id).where(mine, table.c.expires < now))).scalars().all()
            await connection.execute(delete(table).where(table.c.id.in_(gone)))
        for id in gone:
            self.path(id).unlink(missing_ok=True)
        for part in self.folder.glob("*.part"):
            if part.stat().st_mtime < now - PART_SECONDS:
                part.unlink(missing_ok=True)
        return len(gone)


def _file(row: Row[Any]) -> File:
    return File(**{name: getattr(row, name) for name in File.__struct_fields__})
