"""Where vectors are kept: the protocol of a vector store, and the chooser.

A store is one file of this package, or an entry point of group ``dockyard.knowledge.vectors``, that binds ``PLUGIN`` to
a function ``(place) -> Vectors``. It holds rows of passages and finds the nearest to a vector and the best for words.

What is written becomes visible to readers of a snapshot at no moment: readers name the snapshot that ``commit``
returned, and see just that. A writer that was killed leaves something behind, which ``rollback`` takes away.
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from dockyard import plugins
from dockyard.errors import EngineUnavailable, NotFound
from dockyard.knowledge.model import Found, Only, Row


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a collection is: a ``folder`` of this machine, or the ``url`` of a server; ``name`` is the collection's."""

    folder: Path
    name: str
    dimension: int
    url: str = ""


class Vectors(Protocol):
    """One collection. Calls block, and may come from several threads; one writer at a time is seen to by the caller."""

    def rollback(self, snapshot: str) -> None:
        """Make the newest state that of ``snapshot``, "" for an empty collection: before anything is written."""
        ...

    def add(self, rows: Sequence[Row]) -> None:
        """More rows, with vectors. They replace rows of the same ids."""
        ...

    def remove(self, docs: Sequence[int]) -> None:
        """Take away all rows of these documents."""
        ...

    def commit(self) -> str:
        """Make what was written durable and searchable; its name. Readers of older snapshots are not disturbed."""
        ...

    def tidy(self, snapshot: str) -> None:
        """Free what only snapshots older than this one need, as far as nobody can be reading it. Right after the ledger
        named this snapshot, which was committed just before."""
        ...

    def nearest(self, snapshot: str, vector: bytes, limit: int, only: Only | None, *, vectors: bool) -> list[Found]:
        """Rows by cosine, the nearest first; scores from -1 to 1. With ``vectors`` the rows have theirs."""
        ...

    def matching(self, snapshot: str, words: str, limit: int, only: Only | None, *, vectors: bool) -> list[Found]:
        """Rows by how well they match the words, as the store ranks text; words without a match find nothing."""
        ...

    def rows(self, snapshot: str, docs: Sequence[int]) -> Iterable[Row]:
        """All rows of these documents, in order, with vectors."""
        ...

    def count(self, snapshot: str) -> int:
        """How many rows there are."""
        ...

    def drop(self) -> None:
        """Remove the collection and all in it."""
        ...

    def close(self) -> None: ...


def tried(kind: str, url: str) -> None:
    """Open a store as a base would, and where it is a server make a collection and drop it. Raises what opening and
    writing raise."""
    with tempfile.TemporaryDirectory() as folder:
        store = open_vectors(
            kind, Place(folder=Path(folder), name=f"dockyard_try_{secrets.token_hex(4)}", dimension=4, url=url)
        )
        try:
            if url:
                store.rollback("")
                store.drop()
        finally:
            store.close()


def left(kind: str, place: Place) -> str:
    """What stays of a collection that could not be dropped, where, and how to take it away there."""
    parts = urlsplit(place.url)
    where = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    how = {"pgvector": f"DROP TABLE {place.name}", "qdrant": f"DELETE /collections/{place.name}"}.get(kind)
    there = f"; `{how}` there removes it" if how else ""
    return f"the {'table' if kind == 'pgvector' else 'collection'} {place.name} is left in {where}{there}"


def open_vectors(kind: str, place: Place) -> Vectors:
    """Raises NotFound for a store that no plug-in is, EngineUnavailable where its libraries are missing."""
    found = plugins.find("knowledge.vectors").get(kind)
    if found is None:
        known = ", ".join(plugins.find("knowledge.vectors"))
        raise NotFound(f"there is no vector store {kind!r}", param="store", hint=f"there are {known}")
    try:
        made: Vectors = found.load()(place)  # a plug-in of this kind is a factory
    except ModuleNotFoundError as error:
        extra = {"lancedb": "knowledge", "pgvector": "postgres", "qdrant": "qdrant"}.get(kind, kind)
        raise EngineUnavailable(
            f"the vector store {kind} needs {error.name}, which is not installed",
            hint=f"pip install 'dockyard[{extra}]'",
        ) from error
    return made
