"""Qdrant, on a server or in a folder: rows from one generation to another, as in pgvector.

Words are sparse vectors of our own (term frequencies in BM25's form), whose rarity Qdrant weighs in (IDF).
"""

from __future__ import annotations

import array
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from dockyard.errors import SourceUnreachable
from dockyard.knowledge.claims import words as terms_of
from dockyard.knowledge.model import Found, Only, Row
from dockyard.knowledge.vectors import Place

EVER = 2_147_483_647
PAGE = 512
K1, B, USUAL = 1.2, 0.75, 120.0
"""BM25's constants, and the usual number of content words in a passage."""
_FIELDS = ("doc", "words", "heading", "start", "end", "page", "above", "below")


class QdrantVectors:
    """One collection. ``place.url`` is a server's; without one the collection lies in the base's folder."""

    def __init__(self, place: Place) -> None:
        from qdrant_client import QdrantClient, models

        self._place = place
        self._models: Any = models
        if place.url:
            self._client: Any = _Server(QdrantClient(url=place.url, timeout=60, check_compatibility=False))
        else:
            self._client = QdrantClient(path=str(place.folder / place.name))
        self._next = 1

    # writing

    def rollback(self, snapshot: str) -> None:
        models, generation = self._models, int(snapshot or 0)
        self._next = generation + 1
        if not self._client.collection_exists(self._place.name):
            self._client.create_collection(
                self._place.name,
                vectors_config={
                    "near": models.VectorParams(size=self._place.dimension, distance=models.Distance.COSINE)
                },
                sparse_vectors_config={"words": models.SparseVectorParams(modifier=models.Modifier.IDF)},
            )
            if self._place.url:
                for field in ("doc", "born", "died"):
                    self._client.create_payload_index(self._place.name, field, models.PayloadSchemaType.INTEGER)
        self._client.delete(
            self._place.name, models.FilterSelector(filter=self._filter([self._range("born", gt=generation)]))
        )
        died = self._filter([self._range("died", gt=generation, lt=EVER)])
        self._client.set_payload(self._place.name, {"died": EVER}, points=models.FilterSelector(filter=died))

    def add(self, rows: Sequence[Row]) -> None:
        models = self._models
        points = [
            models.PointStruct(
                id=row.id,
                vector={"near": array.array("f", row.vector).tolist(), "words": self._sparse(row.words)},
                payload={**{name: getattr(row, name) for name in _FIELDS}, "born": self._next, "died": EVER},
            )
            for row in rows
        ]
        for first in range(0, len(points), PAGE):
            self._client.upsert(self._place.name, points[first : first + PAGE], wait=True)

    def remove(self, docs: Sequence[int]) -> None:
        models = self._models
        for first in range(0, len(docs), PAGE):
            some = [models.FieldCondition(key="doc", match=models.MatchAny(any=list(docs[first : first + PAGE])))]
            live = self._filter([*some, self._range("died", gte=EVER)])
            self._client.set_payload(self._place.name, {"died": self._next}, points=models.FilterSelector(filter=live))

    def commit(self) -> str:
        return str(self._next)

    def tidy(self, snapshot: str) -> None:
        dead = self._filter([self._range("died", lt=int(snapshot))])
        self._client.delete(self._place.name, self._models.FilterSelector(filter=dead))

    # reading

    def nearest(self, snapshot: str, vector: bytes, limit: int, only: Only | None, *, vectors: bool) -> list[Found]:
        return self._find(snapshot, array.array("f", vector).tolist(), "near", limit, only, vectors)

    def matching(self, snapshot: str, words: str, limit: int, only: Only | None, *, vectors: bool) -> list[Found]:
        numbers = sorted({_number(term) for term in terms_of(words)})
        if not numbers:
            return []
        query = self._models.SparseVector(indices=numbers, values=[1.0] * len(numbers))
        return [found for found in self._find(snapshot, query, "words", limit, only, vectors) if found.score > 0]

    def _find(self, snapshot: str, query: Any, using: str, limit: int, only: Only | None, vectors: bool) -> list[Found]:
        if not snapshot or (only is not None and not only.numbers and not only.apart):
            return []
        wanted = self._filter(self._seen(snapshot), only)
        answer = self._client.query_points(
            self._place.name, query=query, using=using, limit=limit, query_filter=wanted,
            with_vectors=["near"] if vectors else False,
        )  # fmt: skip
        return [Found(row=_row(point), score=float(point.score)) for point in answer.points]

    def rows(self, snapshot: str, docs: Sequence[int]) -> Iterable[Row]:
        if not snapshot or not docs:
            return []
        models, found, place = self._models, list[Row](), None
        some = [models.FieldCondition(key="doc", match=models.MatchAny(any=list(docs)))]
        wanted = self._filter([*self._seen(snapshot), *some])
        while True:
            points, place = self._client.scroll(
                self._place.name, scroll_filter=wanted, limit=PAGE, offset=place, with_vectors=["near"]
            )
            found += [_row(point) for point in points]
            if place is None:
                return sorted(found, key=lambda row: row.id)

    def count(self, snapshot: str) -> int:
        if not snapshot:
            return 0
        wanted = self._filter(self._seen(snapshot))
        return int(self._client.count(self._place.name, count_filter=wanted, exact=True).count)

    def _seen(self, snapshot: str) -> list[Any]:
        return [self._range("born", lte=int(snapshot)), self._range("died", gt=int(snapshot))]

    def _range(self, field: str, **bounds: int) -> Any:
        return self._models.FieldCondition(key=field, range=self._models.Range(**bounds))

    def _filter(self, must: list[Any], only: Only | None = None) -> Any:
        if only is None:
            return self._models.Filter(must=must)
        some = self._models.FieldCondition(key="doc", match=self._models.MatchAny(any=list(only.numbers)))
        if only.apart:
            return self._models.Filter(must=must, must_not=[some])
        return self._models.Filter(must=[*must, some])

    def _sparse(self, text: str) -> Any:
        counts = Counter(_number(term) for term in terms_of(text))
        size = sum(counts.values())
        norm = K1 * (1 - B + B * size / USUAL)
        numbers = sorted(counts)
        weights = [counts[number] * (K1 + 1) / (counts[number] + norm) for number in numbers]
        return self._models.SparseVector(indices=numbers, values=weights)

    def drop(self) -> None:
        self._client.delete_collection(self._place.name)
        self.close()

    def close(self) -> None:
        self._client.close()


class _Server:
    """A client whose failures are told as those of a server that can't be used."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        from qdrant_client.http.exceptions import ApiException

        found = getattr(self._client, name)

        def call(*args: Any, **named: Any) -> Any:
            try:
                return found(*args, **named)
            except ApiException as error:
                raise SourceUnreachable(f"the vector store can't be used: {error}") from error

        return call


def _number(term: str) -> int:
    """A term's place in a sparse vector; two terms share one in 4 thousand million."""
    return zlib.crc32(term.encode())


def _row(point: Any) -> Row:
    vector = (point.vector or {}).get("near") if isinstance(point.vector, dict) else None
    payload = {name: point.payload[name] for name in _FIELDS}
    return Row(id=int(point.id), vector=array.array("f", vector).tobytes() if vector else b"", **payload)


PLUGIN = QdrantVectors
