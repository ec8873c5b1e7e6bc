"""Responses that are kept, each with the items it was given, so that a conversation can go on from any of them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import delete, insert, select, update

from dockyard.errors import NotFound
from dockyard.state import State
from dockyard.state._place import alive, this_run
from dockyard.state.tables import responses as table
from dockyard.types import Json

if TYPE_CHECKING:
    from sqlalchemy import Row

LONGEST_CHAIN = 10_000
OPEN = ("queued", "in_progress")
ENDED_EARLY = "the server ended before this response was complete"

_decode = msgspec.json.decode
_encode = msgspec.json.encode


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A response of ``key``'s: ``body`` as it is told, ``input`` the items of its own turn.

    ``events`` are those of a streamed background response, as sent; ``expires`` is in Unix seconds.
    """

    id: str
    key: str
    body: dict[str, Json]
    input: list[Json]
    created: float = msgspec.field(default_factory=time.time)
    previous: str | None = None
    expires: float | None = None
    events: bytes | None = None

    @property
    def status(self) -> str:
        return str(self.body["status"])


class Responses:
    """The table of one home, ``place``. Nobody sees what is another key's."""

    def __init__(self, state: State, place: str) -> None:
        self._state = state
        self._place = place

    async def add(self, kept: Kept) -> None:
        """Keep a response."""
        row = {
            "id": kept.id,
            "key": kept.key,
            "place": self._place,
            "run": this_run(),
            "created": kept.created,
            "expires": kept.expires,
            "status": kept.status,
            "previous": kept.previous,
            "body": _encode(kept.body),
            "input": _encode(kept.input),
            "events": kept.events,
        }
        async with self._state.transaction() as connection:
            await connection.execute(insert(table), row)

    async def change(self, id: str, body: dict[str, Json], events: bytes | None = None) -> bool:
        """What became of a response that was queued or in progress; False if it is gone or had ended already."""
        values = {"body": _encode(body), "status": str(body["status"]), "events": events}
        async with self._state.transaction() as connection:
            done = await connection.execute(
                update(table).where(table.c.id == id, table.c.status.in_(OPEN)).values(**values)
            )
        return bool(done.rowcount)

    async def get(self, id: str, key: str) -> Kept:
        """Raises NotFound."""
        now = time.time()
        async with self._state.transaction() as connection:
            row = (await connection.execute(select(table).where(table.c.id == id, table.c.key == key))).one_or_none()
        if row is None or (row.expires is not None and row.expires < now):
            raise NotFound(f"there is no response {id!r:.80}", param="response_id")
        return _kept(row)

    async def chain(self, id: str, key: str) -> list[Kept]:
        """A response and all that it builds on, oldest first. Raises NotFound, also if a part of it was deleted."""
        steps = (
            select(table.c.id, table.c.previous)
            .where(table.c.id == id, table.c.key == key)
            .cte("steps", recursive=True)
        )
        steps = steps.union(
            select(table.c.id, table.c.previous).where(table.c.id == steps.c.previous, table.c.key == key)
        )
        async with self._state.transaction() as connection:
            rows = (
                await connection.execute(select(table).join(steps, steps.c.id == table.c.id).limit(LONGEST_CHAIN))
            ).all()
        found = {row.id: _kept(row) for row in rows}
        ordered: list[Kept] = []
        wanted: str | None = id
        while wanted is not None:
            if wanted not in found:
                what = "" if wanted == id else ", which this conversation builds on"
                raise NotFound(f"there is no response {wanted!r:.80}{what}", param="previous_response_id")
            ordered.append(found.pop(wanted))
            wanted = ordered[-1].previous
        return ordered[::-1]

    async def prolong(self, ids: list[str], until: float) -> None:
        """Keep these at least so long."""
        async with self._state.transaction() as connection:
            await connection.execute(
                update(table).where(table.c.id.in_(ids), table.c.expires < until).values(expires=until)
            )

    async def delete(self, id: str, key: str) -> None:
        """Raises NotFound."""
        async with self._state.transaction() as connection:
            gone = await connection.execute(delete(table).where(table.c.id == id, table.c.key == key))
        if not gone.rowcount:
            raise NotFound(f"there is no response {id!r:.80}", param="response_id")

    async def sweep(self) -> int:
        """Delete what has expired; how many that were."""
        async with self._state.transaction() as connection:
            return int((await connection.execute(delete(table).where(table.c.expires < time.time()))).rowcount)

    async def settle(self) -> int:
        """Tell those as failed that were under way in a process of this home which is gone; how many they were."""
        mine = table.c.status.in_(OPEN) & (table.c.place == self._place)
        async with self._state.transaction() as connection:
            rows = (await connection.execute(select(table.c.id, table.c.run, table.c.body).where(mine))).all()
        lost = [row for row in rows if not alive(row.run)]
        for row in lost:
            body = _decode(row.body, type=dict[str, Any])
            error = {"code": "server_error", "message": ENDED_EARLY}
            await self.change(row.id, {**body, "status": "failed", "error": error})
        return len(lost)


def _kept(row: Row[Any]) -> Kept:
    return Kept(
        id=row.id,
        key=row.key,
        created=row.created,
        expires=row.expires,
        previous=row.previous,
        body=_decode(row.body),
        input=_decode(row.input),
        events=row.events,
    )
