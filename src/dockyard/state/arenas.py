"""Arenas in the database: their items, and one vote of a person on a task."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

import msgspec
from sqlalchemy import delete, insert, select
from sqlalchemy.exc import IntegrityError

from dockyard.errors import Conflict, NotFound
from dockyard.state import State
from dockyard.state.tables import arena_items, arena_votes
from dockyard.state.tables import arenas as table

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

Verdict = Literal["first", "second", "tie", "bad"]
"""Of a pair: which candidate is better, by its place in the item and not on the screen; or neither, or both are bad."""


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, and the model that gave it; raters are not told the model."""

    model: str
    text: str


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One prompt and the answers to it."""

    number: int
    prompt: str
    candidates: tuple[Candidate, ...]


class Arena(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What people are asked. ``kind``: pairs of answers, or single ones on a scale from 1 to ``scale``. Sides are drawn
    with the ``secret``, which leaves the database for nobody."""

    name: str
    kind: Literal["pairs", "rating"]
    question: str
    secret: str
    scale: int = 5
    created: float = msgspec.field(default_factory=time.time)


class Vote(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a rater said of a task: a ``verdict`` about candidates ``first`` and ``second`` of ``item``, or a ``score``
    of ``first``. ``left`` is the candidate that was shown on the left. ``consent``: it may be used for training."""

    task: str
    rater: str
    item: int
    first: int
    second: int | None = None
    verdict: Verdict | None = None
    score: int | None = None
    left: int | None = None
    consent: bool = False
    at: float = msgspec.field(default_factory=time.time)


class Arenas:
    """The tables of arenas."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def add(self, made: Arena, items: list[Item]) -> None:
        """Keep an arena and its items, all or nothing. Raises Conflict if the name is taken."""
        rows = [{"arena": made.name, "number": each.number, "body": msgspec.json.encode(each)} for each in items]
        try:
            async with self._state.transaction() as connection:
                about = {"name": made.name, "created": made.created, "about": msgspec.json.encode(made)}
                await connection.execute(insert(table), about)
                await connection.execute(insert(arena_items), rows)
        except IntegrityError as error:
            raise Conflict(f"there is an arena {made.name!r} already", param="name") from error

    async def all(self) -> list[Arena]:
        """Every arena, oldest first."""
        async with self._state.transaction() as connection:
            rows = await connection.execute(select(table.c.about).order_by(table.c.created, table.c.name))
            return [msgspec.json.decode(row.about, type=Arena) for row in rows]

    async def get(self, name: str) -> Arena:
        """Raises NotFound."""
        async with self._state.transaction() as connection:
            return await _arena(connection, name)

    async def items(self, name: str) -> list[Item]:
        """All items, in their order."""
        query = select(arena_items.c.body).where(arena_items.c.arena == name).order_by(arena_items.c.number)
        async with self._state.transaction() as connection:
            return [msgspec.json.decode(row.body, type=Item) for row in await connection.execute(query)]

    async def votes(self, name: str) -> list[Vote]:
        """All votes, oldest first."""
        query = select(arena_votes.c.body).where(arena_votes.c.arena == name)
        ordered = query.order_by(arena_votes.c.at, arena_votes.c.task, arena_votes.c.rater)
        async with self._state.transaction() as connection:
            return [msgspec.json.decode(row.body, type=Vote) for row in await connection.execute(ordered)]

    async def vote(self, name: str, vote: Vote) -> None:
        """Keep a vote. Raises Conflict where this rater has judged the task already: a vote is said once."""
        row = {"arena": name, "task": vote.task, "rater": vote.rater, "item": vote.item, "at": vote.at}
        try:
            async with self._state.transaction() as connection:
                await connection.execute(insert(arena_votes), {**row, "body": msgspec.json.encode(vote)})
        except IntegrityError as error:
            raise Conflict(f"{vote.rater} has judged {vote.task} already", param="task") from error

    async def remove(self, name: str) -> None:
        """Delete an arena with its votes. Raises NotFound."""
        async with self._state.transaction() as connection:
            gone = await connection.execute(delete(table).where(table.c.name == name))
            if not gone.rowcount:
                raise _missing(name)
            await connection.execute(delete(arena_items).where(arena_items.c.arena == name))
            await connection.execute(delete(arena_votes).where(arena_votes.c.arena == name))

    async def forget(self, name: str, rater: str) -> int:
        """Delete what one rater said, who may take it back; how many votes that were."""
        mine = (arena_votes.c.arena == name) & (arena_votes.c.rater == rater)
        async with self._state.transaction() as connection:
            return (await connection.execute(delete(arena_votes).where(mine))).rowcount


async def _arena(connection: AsyncConnection, name: str) -> Arena:
    row = (await connection.execute(select(table.c.about).where(table.c.name == name))).one_or_none()
    if row is None:
        raise _missing(name)
    return msgspec.json.decode(row.about, type=Arena)


def _missing(name: str) -> NotFound:
    return NotFound(f"there is no arena {name!r:.80}", param="name", hint="`dockyard arena ls` lists them")
