"""PostgreSQL with the extension pgvector: a table for each collection, rows from one generation to another.

A snapshot is a generation. A row is seen by those from ``born`` on and before ``died``, so a writer disturbs no reader,
and what a killed one left has a generation that nobody names.
"""

from __future__ import annotations

import array
import asyncio
import re
import threading
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from dockyard.errors import SettingsError, SourceUnreachable
from dockyard.knowledge.model import Found, Only, Row
from dockyard.knowledge.vectors import Place

T = TypeVar("T")
EVER = 2_147_483_647
INDEXED = 20_000
"""Rows from which an HNSW index pays; it takes vectors of up to 2000 numbers."""
MOST_LOOKED_AT = 1000
"""The index takes no more."""
_FIELDS = "id, doc, words, heading, first, last, page, above, below"
_SEEN = "born <= $1 AND died > $1"


class PgVectors:
    """One table. ``place.url`` is a PostgreSQL URL."""

    def __init__(self, place: Place) -> None:
        import asyncpg  # noqa: F401 - a missing library is told when the store is opened
        import pgvector  # noqa: F401

        if not place.url.startswith(("postgresql://", "postgres://")):
            raise SettingsError("pgvector needs the URL of a PostgreSQL database", hint="--url postgresql://…")
        self._place = place
        self._table = re.sub(r"\W", "_", place.name)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pgvector", daemon=True)
        self._thread.start()
        self._pool: Any = None
        self._next = 1

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _connected(self) -> Any:
        if self._pool is None:
            import asyncpg
            from pgvector.asyncpg import register_vector

            async def ready(connection: Any) -> None:
                await connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
                await register_vector(connection)

            try:
                self._pool = await asyncpg.create_pool(self._place.url, min_size=1, max_size=4, init=ready)
            except (OSError, asyncpg.PostgresError) as error:
                raise SourceUnreachable(f"the vector store can't be used: {error}") from error
        return self._pool

    # writing

    def rollback(self, snapshot: str) -> None:
        self._next = int(snapshot or 0) + 1
        self._do(self._rollback(int(snapshot or 0)))

    async def _rollback(self, generation: int) -> None:
        pool = await self._connected()
        await pool.execute(
            f"CREATE TABLE IF NOT EXISTS {self._table} (id bigint PRIMARY KEY, doc bigint NOT NULL,"
            " words text NOT NULL,"
            " heading text NOT NULL, first int NOT NULL, last int NOT NULL, page int NOT NULL, above int NOT NULL,"
            f" below int NOT NULL, vector vector({self._place.dimension}) NOT NULL, born int NOT NULL,"
            f" died int NOT NULL DEFAULT {EVER},"
            " found tsvector GENERATED ALWAYS AS (to_tsvector('english', words)) STORED)"
        )
        await pool.execute(f"CREATE INDEX IF NOT EXISTS {self._table}_doc ON {self._table} (doc)")
        await pool.execute(f"CREATE INDEX IF NOT EXISTS {self._table}_words ON {self._table} USING gin (found)")
        await pool.execute(f"DELETE FROM {self._table} WHERE born > $1", generation)
        await pool.execute(f"UPDATE {self._table} SET died = {EVER} WHERE died > $1 AND died < {EVER}", generation)

    def add(self, rows: Sequence[Row]) -> None:
        if rows:
            self._do(self._add(rows))

    async def _add(self, rows: Sequence[Row]) -> None:
        records = [
            (r.id, r.doc, _told(r.words), _told(r.heading), r.start, r.end, r.page, r.above, r.below,
             _numbers(r.vector), self._next)
            for r in rows
        ]  # fmt: skip
        columns = [*_FIELDS.split(", "), "vector", "born"]
        pool = await self._connected()
        await pool.copy_records_to_table(self._table, records=records, columns=columns)

    def remove(self, docs: Sequence[int]) -> None:
        self._do(self._remove(list(docs)))

    async def _remove(self, docs: list[int]) -> None:
        query = f"UPDATE {self._table} SET died = $1 WHERE doc = ANY($2) AND died = {EVER}"
        await (await self._connected()).execute(query, self._next, docs)

    def commit(self) -> str:
        self._do(self._commit())
        return str(self._next)

    async def _commit(self) -> None:
        pool = await self._connected()
        if self._place.dimension <= 2000 and await pool.fetchval(f"SELECT count(*) FROM {self._table}") > INDEXED:
            await pool.execute(
                f"CREATE INDEX IF NOT EXISTS {self._table}_vector ON {self._table} "
                "USING hnsw (vector vector_cosine_ops)"
            )
        await pool.execute(f"ANALYZE {self._table}")

    def tidy(self, snapshot: str) -> None:
        self._do(self._tidy(int(snapshot)))

    async def _tidy(self, generation: int) -> None:
        await (await self._connected()).execute(f"DELETE FROM {self._table} WHERE died < $1", generation)

    # reading

    def nearest(self, snapshot: str, vector: bytes, limit: int, only: Only | None, *, vectors: bool) -> list[Found]:
        score, order = "1 - (vector <=> $2)", "vector <=> $2"
        return self._do(self._find(snapshot, _numbers(vector), score, order, "", limit, only, vectors))

    def matching(self, snapshot: str, words: str, limit: int, only: Only | None, *, vectors: bool) -> list[Found]:
        terms = " | ".join(re.findall(r"\w+", words)[:64])
        if not terms:
            return []
        score = "ts_rank_cd(found, to_tsquery('english', $2), 1)"
        where = "AND found @@ to_tsquery('english', $2)"
        return self._do(self._find(snapshot, terms, score, f"{score} DESC, id", where, limit, only, vectors))

    async def _find(
        self,
        snapshot: str,
        value: Any,
        score: str,
        order: str,
        where: str,
        limit: int,
        only: Only | None,
        vectors: bool,
    ) -> list[Found]:
        if not snapshot or (only is not None and not only.numbers and not only.apart):
            return []
        more, given = "", []
        if only is not None:
            more, given = f" AND {'NOT ' if only.apart else ''}doc = ANY($4)", [list(only.numbers)]
        extra = ", vector" if vectors else ""
        query = (
            f"SELECT {_FIELDS}{extra}, {score} AS score FROM {self._table} WHERE {_SEEN} {where}{more} "
            f"ORDER BY {order} LIMIT $3"
        )
        records = await self._fetched(query, (int(snapshot), value, limit, *given), limit, nearest=not where)
        return [Found(row=_row(record, vectors), score=float(record["score"])) for record in records]

    async def _fetched(self, query: str, given: tuple[Any, ...], limit: int, *, nearest: bool) -> Any:
        """What a query finds. The index of vectors looks at so many of the nearest and then at what may be seen: where
        too few of them may, all rows are compared."""
        pool = await self._connected()
        if not nearest:
            return await pool.fetch(query, *given)
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(f"SET LOCAL hnsw.ef_search = {min(MOST_LOOKED_AT, max(2 * limit, 64))}")
            found = await connection.fetch(query, *given)
            if len(found) >= limit:
                return found
            await connection.execute("SET LOCAL enable_indexscan = off")
            return await connection.fetch(query, *given)

    def rows(self, snapshot: str, docs: Sequence[int]) -> Iterable[Row]:
        return self._do(self._rows(snapshot, list(docs))) if snapshot and docs else []

    async def _rows(self, snapshot: str, docs: list[int]) -> list[Row]:
        query = f"SELECT {_FIELDS}, vector FROM {self._table} WHERE {_SEEN} AND doc = ANY($2) ORDER BY id"
        records = await (await self._connected()).fetch(query, int(snapshot), docs)
        return [_row(record, True) for record in records]

    def count(self, snapshot: str) -> int:
        return self._do(self._count(int(snapshot))) if snapshot else 0

    async def _count(self, generation: int) -> int:
        query = f"SELECT count(*) FROM {self._table} WHERE {_SEEN}"
        return int(await (await self._connected()).fetchval(query, generation))

    def drop(self) -> None:
        self._do(self._drop())
        self.close()

    async def _drop(self) -> None:
        import asyncpg

        pool = await self._connected()
        try:
            await pool.execute(f"DROP TABLE IF EXISTS {self._table}")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise SourceUnreachable(f"the vector store can't be used: {error}") from error

    def close(self) -> None:
        if self._loop.is_closed():
            return
        pool, self._pool = self._pool, None
        if pool is not None:
            self._do(pool.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _told(text: str) -> str:
    """PostgreSQL's text holds no NUL; offsets stay what they are."""
    return text.replace("\0", " ")


def _numbers(vector: bytes) -> list[float]:
    return array.array("f", vector).tolist()


def _row(record: Any, vectors: bool) -> Row:
    vector = b""
    if vectors:
        found = record["vector"]
        vector = array.array("f", found.to_list() if hasattr(found, "to_list") else list(found)).tobytes()
    return Row(
        id=record["id"], doc=record["doc"], words=record["words"], heading=record["heading"], start=record["first"],
        end=record["last"], page=record["page"], above=record["above"], below=record["below"], vector=vector,
    )  # fmt: skip


PLUGIN = PgVectors
