"""LanceDB, embedded: a folder of columns with versions; each snapshot is a version of its table.

Up to ``FLAT`` rows are compared one by one, which is exact and quick. Above, vectors have an index (IVF with product
quantisation), and what it finds is compared again with the vectors themselves.
"""

from __future__ import annotations

import datetime
import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

from dockyard.errors import ArtifactError, SettingsError
from dockyard.knowledge.model import Found, Only, Row
from dockyard.knowledge.vectors import Place

TABLE = "passages"
FLAT = 50_000
PROBES = 24
REFINE = 8
KEEP = datetime.timedelta(minutes=30)
NEVER = datetime.timedelta(days=36_500)
MOST_OPEN = 4
_COLUMNS = ["id", "doc", "words", "heading", "start", "end", "page", "above", "below"]


class LanceVectors:
    """One table."""

    def __init__(self, place: Place) -> None:
        import lancedb
        import pyarrow

        if place.url:
            raise SettingsError("lancedb keeps vectors in the base's folder and takes no URL", hint="leave --url out")
        self._arrow: Any = pyarrow
        self._place = place
        self._folder = place.folder / place.name
        self._folder.mkdir(parents=True, exist_ok=True)
        self._db = lancedb.connect(str(self._folder))
        self._open: OrderedDict[str, Any] = OrderedDict()
        self._guard = threading.Lock()
        self._schema = pyarrow.schema(
            [
                ("id", pyarrow.int64()),
                ("doc", pyarrow.int64()),
                ("words", pyarrow.string()),
                ("heading", pyarrow.string()),
                *((name, pyarrow.int32()) for name in ("start", "end", "page", "above", "below")),
                ("vector", pyarrow.list_(pyarrow.float32(), place.dimension)),
            ]
        )
        self._table: Any = None

    # writing

    def rollback(self, snapshot: str) -> None:
        names = self._names()
        if not snapshot:
            if TABLE in names:
                self._db.drop_table(TABLE)
            self._table = self._db.create_table(TABLE, schema=self._schema)
            return
        if TABLE not in names:
            raise ArtifactError(f"the index at {self._folder} is gone", hint="sync with --rebuild makes it again")
        self._table = self._db.open_table(TABLE)
        if str(self._table.version) != snapshot:
            self._table.checkout(int(snapshot))
            self._table.restore()

    def add(self, rows: Sequence[Row]) -> None:
        if rows:
            self._table.add(self._batch(rows))

    def _batch(self, rows: Sequence[Row]) -> Any:
        arrow = self._arrow
        data = arrow.py_buffer(b"".join(row.vector for row in rows))
        flat = arrow.Array.from_buffers(arrow.float32(), len(rows) * self._place.dimension, [None, data])
        vectors = arrow.FixedSizeListArray.from_arrays(flat, self._place.dimension)
        columns = [
            arrow.array([getattr(row, name) for row in rows], self._schema.field(name).type) for name in _COLUMNS
        ]
        return arrow.Table.from_arrays([*columns, vectors], schema=self._schema)

    def remove(self, docs: Sequence[int]) -> None:
        for first in range(0, len(docs), 5000):
            self._table.delete(f"doc IN ({_list(docs[first : first + 5000])})")

    def commit(self) -> str:
        table = self._table
        rows = table.count_rows()
        indices = {index.name for index in table.list_indices()}
        if rows:
            self._index(table, rows, indices)
        return str(table.version)

    def _index(self, table: Any, rows: int, indices: set[str]) -> None:
        from lancedb.index import FTS, BTree, IvfPq

        if "words_idx" not in indices:
            table.create_index("words", config=FTS(with_position=False, stem=True, remove_stop_words=True))
        if "doc_idx" not in indices and rows > 2000:
            table.create_index("doc", config=BTree())
        if "vector_idx" not in indices and rows > FLAT:
            parts = max(16, min(4096, int(rows**0.5)))
            subs = next(n for n in (self._place.dimension // 8, self._place.dimension // 4, 1) if n)
            table.create_index(
                "vector",
                config=IvfPq(distance_type="cosine", num_partitions=parts, num_sub_vectors=subs, sample_rate=32),
            )
        if indices:
            table.optimize(cleanup_older_than=NEVER)  # the ledger still names an older version

    def tidy(self, snapshot: str) -> None:
        if self._table is not None and str(self._table.version) == snapshot:
            self._table.optimize(cleanup_older_than=KEEP)

    # reading

    def nearest(self, snapshot: str, vector: bytes, limit: int, only: Only | None, *, vectors: bool) -> list[Found]:
        table = self._at(snapshot)
        if table is None:
            return []
        values = self._arrow.Array.from_buffers(
            self._arrow.float32(), self._place.dimension, [None, self._arrow.py_buffer(vector)]
        )
        query = table.search(values.to_numpy(), vector_column_name="vector").distance_type("cosine")
        if table.has_index:
            query = query.nprobes(PROBES).refine_factor(REFINE)
        found = self._run(query, limit, only, vectors, "_distance")
        return [Found(row=row, score=1.0 - distance) for row, distance in self._read(found, "_distance")]

    def matching(self, snapshot: str, words: str, limit: int, only: Only | None, *, vectors: bool) -> list[Found]:
        table = self._at(snapshot)
        if table is None or not words.strip():
            return []
        from lancedb.query import MatchQuery

        match: Any = MatchQuery
        query = table.search(match(words, "words"), query_type="fts")
        found = self._run(query, limit, only, vectors, "_score")
        return [Found(row=row, score=score) for row, score in self._read(found, "_score")]

    def _run(self, query: Any, limit: int, only: Only | None, vectors: bool, score: str) -> Any:
        if only is not None:
            if not only.numbers and not only.apart:
                return self._schema.empty_table()
            if only.numbers:
                query = query.where(f"doc {'NOT ' if only.apart else ''}IN ({_list(only.numbers)})", prefilter=True)
        return query.select([*_COLUMNS, *(["vector"] if vectors else []), score]).limit(limit).to_arrow()

    def _read(self, table: Any, score: str) -> Iterable[tuple[Row, float]]:
        if not table.num_rows:
            return
        scores = table.column(score).to_pylist()
        for row, value in zip(self._rows_of(table), scores, strict=True):
            yield row, float(value)

    def _rows_of(self, table: Any) -> Iterable[Row]:
        columns = [table.column(name).to_pylist() for name in _COLUMNS]
        vectors: list[bytes] = []
        if "vector" in table.column_names:
            for chunk in table.column("vector").chunks:
                flat = chunk.flatten().to_numpy().tobytes()
                width = self._place.dimension * 4
                vectors += [flat[place : place + width] for place in range(0, len(flat), width)]
        for place, values in enumerate(zip(*columns, strict=True)):
            fields = dict(zip(_COLUMNS, values, strict=True))
            yield Row(**fields, vector=vectors[place] if vectors else b"")

    def rows(self, snapshot: str, docs: Sequence[int]) -> Iterable[Row]:
        table = self._at(snapshot)
        if table is None or not docs:
            return
        for first in range(0, len(docs), 500):
            query = table.search().where(f"doc IN ({_list(docs[first : first + 500])})")
            found = query.select([*_COLUMNS, "vector"]).limit(None).to_arrow()
            yield from sorted(self._rows_of(found), key=lambda row: row.id)

    def count(self, snapshot: str) -> int:
        table = self._at(snapshot)
        return 0 if table is None else int(table.count_rows())

    def _at(self, snapshot: str) -> Any:
        """The table as it was then; a few are kept open."""
        if not snapshot:
            return None
        with self._guard:
            found = self._open.get(snapshot)
            if found is None:
                found = _Table(self._db.open_table(TABLE), int(snapshot))
                self._open[snapshot] = found
                while len(self._open) > MOST_OPEN:
                    self._open.popitem(last=False)
            self._open.move_to_end(snapshot)
            return found

    def _names(self) -> list[str]:
        return list(self._db.list_tables().tables)

    def drop(self) -> None:
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        self._open.clear()
        self._table = None


class _Table:
    """A table at a version, and whether its vectors have an index."""

    def __init__(self, table: Any, version: int) -> None:
        table.checkout(version)
        self._table = table
        self.has_index = any(index.name == "vector_idx" for index in table.list_indices())
        self.search = table.search
        self.count_rows = table.count_rows


def _list(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, numbers))


PLUGIN = LanceVectors
