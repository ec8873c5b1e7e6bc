"""Conversations that are kept: a growing list of items that several responses share."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
from sqlalchemy import delete, insert, select, update

from dockyard.errors import Conflict, InvalidRequest, NotFound
from dockyard.state import State
from dockyard.state._page import Page
from dockyard.state.tables import conversation_items as items
from dockyard.state.tables import conversations as table
from dockyard.types import Json

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """A conversation of ``key``'s."""

    id: str
    key: str
    metadata: dict[str, str]
    created: float = msgspec.field(default_factory=time.time)


class Conversations:
    """The table. Nobody sees what is another key's: each call raises NotFound for it."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def add(self, made: Conversation) -> None:
        row = {"id": made.id, "key": made.key, "created": made.created, "about": msgspec.json.encode(made.metadata)}
        async with self._state.transaction() as connection:
            await connection.execute(insert(table), row)

    async def get(self, id: str, key: str) -> Conversation:
        async with self._state.transaction() as connection:
            return await _get(connection, id, key)

    async def describe(self, id: str, key: str, metadata: dict[str, str]) -> Conversation:
        """Replace the metadata."""
        async with self._state.transaction() as connection:
            about = msgspec.json.encode(metadata)
            await connection.execute(update(table).where(table.c.id == id, table.c.key == key).values(about=about))
            return await _get(connection, id, key)

    async def delete(self, id: str, key: str) -> None:
        """With all its items."""
        async with self._state.transaction() as connection:
            gone = await connection.execute(delete(table).where(table.c.id == id, table.c.key == key))
            if not gone.rowcount:
                raise _missing(id)
            await connection.execute(delete(items).where(items.c.conversation == id))

    async def append(self, id: str, key: str, added: list[dict[str, Json]]) -> None:
        """Raises Conflict if an item of the same id is there."""
        from sqlalchemy.exc import IntegrityError

        rows = [{"conversation": id, "id": one["id"], "body": msgspec.json.encode(one)} for one in added]
        try:
            async with self._state.transaction() as connection:
                await _get(connection, id, key)
                if rows:
                    await connection.execute(insert(items), rows)
        except IntegrityError as error:
            raise Conflict("the conversation has an item of this id already", param="items") from error

    async def items(self, id: str, key: str) -> list[dict[str, Json]]:
        """All, oldest first."""
        async with self._state.transaction() as connection:
            await _get(connection, id, key)
            query = select(items.c.body).where(items.c.conversation == id).order_by(items.c.number)
            return [_decoded(row.body) for row in await connection.execute(query)]

    async def page(
        self, id: str, key: str, *, limit: int, after: str | None, newest_first: bool
    ) -> Page[dict[str, Json]]:
        """Part of the items. Raises InvalidRequest if ``after`` is none of them."""
        query = select(items.c.body).where(items.c.conversation == id)
        async with self._state.transaction() as connection:
            await _get(connection, id, key)
            if after is not None:
                one = select(items.c.number).where(items.c.conversation == id, items.c.id == after)
                last = (await connection.execute(one)).scalar_one_or_none()
                if last is None:
                    raise InvalidRequest(f"the listing has no {after!r} to go on after", param="after")
                query = query.where(items.c.number < last if newest_first else items.c.number > last)
            order = items.c.number.desc() if newest_first else items.c.number.asc()
            rows = list(await connection.execute(query.order_by(order).limit(limit + 1)))
        return Page([_decoded(row.body) for row in rows[:limit]], len(rows) > limit)

    async def item(self, id: str, key: str, item: str) -> dict[str, Json]:
        async with self._state.transaction() as connection:
            await _get(connection, id, key)
            query = select(items.c.body).where(items.c.conversation == id, items.c.id == item)
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise NotFound(f"conversation {id!r} has no item {item!r:.80}", param="item_id")
        return _decoded(row.body)

    async def remove(self, id: str, key: str, item: str) -> Conversation:
        """Delete one item."""
        async with self._state.transaction() as connection:
            found = await _get(connection, id, key)
            gone = await connection.execute(delete(items).where(items.c.conversation == id, items.c.id == item))
            if not gone.rowcount:
                raise NotFound(f"conversation {id!r} has no item {item!r:.80}", param="item_id")
        return found


async def _get(connection: AsyncConnection, id: str, key: str) -> Conversation:
    row = (await connection.execute(select(table).where(table.c.id == id, table.c.key == key))).one_or_none()
    if row is None:
        raise _missing(id)
    return Conversation(id=row.id, key=row.key, created=row.created, metadata=msgspec.json.decode(row.about))


def _missing(id: str) -> NotFound:
    return NotFound(f"there is no conversation {id!r:.80}", param="conversation")


def _decoded(body: bytes) -> dict[str, Json]:
    found: dict[str, Any] = msgspec.json.decode(body)
    return found
