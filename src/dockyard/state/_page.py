"""Pages of a listing: newest or oldest first, going on after the last row that the caller saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec
from sqlalchemy import Table, select, tuple_

from dockyard.errors import InvalidRequest

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement, Row
    from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")


class Page(msgspec.Struct, Generic[T], frozen=True):
    """Part of a listing, and whether more follows."""

    rows: list[T]
    more: bool


async def rows_of(
    connection: AsyncConnection,
    table: Table,
    where: ColumnElement[bool],
    *,
    limit: int,
    after: str | None = None,
    newest_first: bool = True,
) -> Page[Row[Any]]:
    """Rows of a table with ``id`` and ``created``. Raises InvalidRequest if ``after`` is no row of the listing."""
    place = (table.c.created, table.c.id)
    query = select(table).where(where)
    if after is not None:
        found = (await connection.execute(select(*place).where(where, table.c.id == after))).one_or_none()
        if found is None:
            raise InvalidRequest(f"the listing has no {after!r} to go on after", param="after")
        here, last = tuple_(*place), tuple_(*found)
        query = query.where(here < last if newest_first else here > last)
    ordered = query.order_by(*(column.desc() if newest_first else column.asc() for column in place))
    rows = list(await connection.execute(ordered.limit(limit + 1)))
    return Page(rows[:limit], len(rows) > limit)
