"""A base's ledger: which documents there are, their text, and the state of the vector store that belongs to them.

One SQLite file. All that a sync changes becomes visible in the one transaction of ``commit``. What the sync prepares
lies in a file beside it, which also keeps the vectors that were made, so that a sync that was killed need not make
them again.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

from dockyard.errors import ArtifactError, NotFound
from dockyard.knowledge.model import Document, Parsed, Problem, Recipe, Row, Source
from dockyard.types import Json

FORMAT = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS sources (id INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS documents (
    number INTEGER PRIMARY KEY, source INTEGER NOT NULL, path TEXT NOT NULL, body BLOB NOT NULL, text BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS documents_path ON documents (source, path);
CREATE TABLE IF NOT EXISTS problems (source INTEGER NOT NULL, path TEXT NOT NULL, body BLOB NOT NULL);
"""
_WORK = """
CREATE TABLE IF NOT EXISTS made (hash BLOB PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID;
DROP TABLE IF EXISTS documents;
DROP TABLE IF EXISTS rows;
CREATE TABLE documents (
    number INTEGER PRIMARY KEY, source INTEGER NOT NULL, path TEXT NOT NULL, body BLOB NOT NULL, text BLOB NOT NULL);
CREATE TABLE rows (id INTEGER PRIMARY KEY, hash BLOB NOT NULL, body BLOB NOT NULL);
"""
_pack, _unpack = msgspec.msgpack.Encoder().encode, msgspec.msgpack.decode


class Ledger:
    """One base's ledger, open. Belongs to one thread at a time; open another for another thread."""

    def __init__(self, path: Path, *, create: bool = False) -> None:
        if not create and not path.exists():
            raise NotFound(f"there is no ledger at {path}")
        self.path = path
        self._db = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
        try:
            if create:
                self._db.executescript(_SCHEMA)
            self._db.execute("PRAGMA synchronous = FULL")
            self._db.execute("SELECT 1 FROM meta LIMIT 1").fetchone()
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise ArtifactError(f"the ledger {path} can't be read: {error}") from error

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # the base

    @property
    def recipe(self) -> Recipe:
        return _unpack(self._meta("recipe"), type=Recipe)

    @property
    def snapshot(self) -> str:
        """The state of the vector store that belongs to these documents; "" before the first sync."""
        found = self._db.execute("SELECT value FROM meta WHERE name = 'snapshot'").fetchone()
        return found[0].decode() if found else ""

    @property
    def place(self) -> str:
        """Which collection of the vector store is in use: each rebuild makes a new one."""
        found = self._db.execute("SELECT value FROM meta WHERE name = 'place'").fetchone()
        return found[0].decode() if found else "a1"

    @property
    def next_number(self) -> int:
        found = self._db.execute("SELECT value FROM meta WHERE name = 'next'").fetchone()
        return int(found[0]) if found else 1

    def _meta(self, name: str) -> bytes:
        found = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        if found is None:
            raise ArtifactError(f"the ledger {self.path} has no {name}")
        return bytes(found[0])

    def write_recipe(self, recipe: Recipe) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('recipe', ?)", (_pack(recipe),))

    # sources

    def sources(self) -> list[Source]:
        rows = self._db.execute("SELECT id, body FROM sources ORDER BY id").fetchall()
        return [msgspec.structs.replace(_unpack(body, type=Source), id=id) for id, body in rows]

    def add_source(self, source: Source) -> Source:
        """Keep a source; one of the same kind and place is replaced and keeps its documents."""
        same = next((one for one in self.sources() if (one.kind, one.place) == (source.kind, source.place)), None)
        if same is not None:
            source = msgspec.structs.replace(source, id=same.id)
            self._db.execute("UPDATE sources SET body = ? WHERE id = ?", (_pack(source), source.id))
            return source
        cursor = self._db.execute("INSERT INTO sources (body) VALUES (?)", (_pack(source),))
        return msgspec.structs.replace(source, id=int(cursor.lastrowid or 0))

    def note_source(self, source: Source) -> None:
        self._db.execute("UPDATE sources SET body = ? WHERE id = ?", (_pack(source), source.id))

    # documents

    def documents(self, source: int | None = None) -> list[Document]:
        query = "SELECT body FROM documents" + ("" if source is None else " WHERE source = ?") + " ORDER BY number"
        return [
            _unpack(body, type=Document) for (body,) in self._db.execute(query, () if source is None else (source,))
        ]

    def holds(self, source: int) -> bool:
        """Whether there is a document of this source."""
        return self._db.execute("SELECT 1 FROM documents WHERE source = ? LIMIT 1", (source,)).fetchone() is not None

    def document(self, number: int) -> Document:
        """Raises NotFound."""
        found = self._db.execute("SELECT body FROM documents WHERE number = ?", (number,)).fetchone()
        if found is None:
            raise NotFound(f"there is no document {number} here any more")
        return _unpack(found[0], type=Document)

    def parsed(self, number: int) -> Parsed:
        """A document's text with its structure. Raises NotFound."""
        found = self._db.execute("SELECT text FROM documents WHERE number = ?", (number,)).fetchone()
        if found is None:
            raise NotFound(f"there is no document {number} here any more")
        return _unpack(zlib.decompress(found[0]), type=Parsed)

    def count(self) -> tuple[int, int]:
        """How many documents and passages there are."""
        documents = self.documents()
        return len(documents), sum(one.chunks for one in documents)

    def problems(self) -> list[Problem]:
        return [_unpack(body, type=Problem) for (body,) in self._db.execute("SELECT body FROM problems ORDER BY path")]

    # the end of a sync

    def commit(
        self,
        work: Work | None,
        *,
        snapshot: str,
        place: str,
        next_number: int,
        gone: Iterable[int] = (),
        touched: Iterable[Document] = (),
        sources: Iterable[Source] = (),
        problems: Iterable[Problem] = (),
        without: int | None = None,
        recipe: Recipe | None = None,
    ) -> None:
        """Everything that a sync changed, at once. ``without`` is a source to forget, ``touched`` documents that are
        the same and were seen again."""
        if work is not None:
            self._db.execute("ATTACH DATABASE ? AS work", (str(work.path),))
        try:
            with self._transaction():
                self._db.executemany("DELETE FROM documents WHERE number = ?", [(number,) for number in gone])
                if work is not None:
                    self._db.execute("INSERT INTO documents SELECT * FROM work.documents")
                for one in touched:
                    self._db.execute("UPDATE documents SET body = ? WHERE number = ?", (_pack(one), one.number))
                for source in sources:
                    self.note_source(source)
                if without is not None:
                    self._db.execute("DELETE FROM sources WHERE id = ?", (without,))
                self._db.execute("DELETE FROM problems")
                rows = [(one.source, one.path, _pack(one)) for one in problems]
                self._db.executemany("INSERT INTO problems VALUES (?, ?, ?)", rows)
                values = {"snapshot": snapshot, "place": place, "next": str(next_number), "changed": str(time.time())}
                pairs = [(name, value.encode()) for name, value in values.items()]
                self._db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", pairs)
                if recipe is not None:
                    self.write_recipe(recipe)
        finally:
            if work is not None:
                self._db.execute("DETACH DATABASE work")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def change_documents(self, documents: Iterable[Document]) -> None:
        """Other attributes or readers of documents whose text is the same."""
        with self._transaction():
            for one in documents:
                self._db.execute("UPDATE documents SET body = ? WHERE number = ?", (_pack(one), one.number))


class Work:
    """What a sync prepares. ``made`` vectors are kept from one attempt to the next; the rest begins anew."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._open()
        except sqlite3.DatabaseError:  # it holds nothing that can't be made again
            self._db.close()
            path.unlink(missing_ok=True)
            self._open()

    def _open(self) -> None:
        self._db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.executescript(_WORK)

    def close(self, *, done: bool) -> None:
        """``done``: the sync is committed, and nothing of this is needed any more."""
        self._db.close()
        if done:
            self.path.unlink(missing_ok=True)

    def add(self, document: Document, parsed: Parsed, rows: Sequence[tuple[Row, bytes]]) -> None:
        """A document to be, and its passages with the hash of what each one's vector depends on."""
        self._db.execute("BEGIN")
        blob = zlib.compress(_pack(parsed), 6)
        values = (document.number, document.source, document.path, _pack(document), blob)
        self._db.execute("INSERT INTO documents VALUES (?, ?, ?, ?, ?)", values)
        self._db.executemany("INSERT INTO rows VALUES (?, ?, ?)", [(row.id, hash, _pack(row)) for row, hash in rows])
        self._db.execute("COMMIT")

    def keep(self, vectors: Iterable[tuple[bytes, bytes]]) -> None:
        """Vectors by hash."""
        self._db.execute("BEGIN")
        self._db.executemany("INSERT OR IGNORE INTO made VALUES (?, ?)", list(vectors))
        self._db.execute("COMMIT")

    def missing(self) -> tuple[int, int]:
        """How many passages there are, and how many of their texts have no vector yet."""
        rows = self._db.execute("SELECT COUNT(*) FROM rows").fetchone()[0]
        query = "SELECT COUNT(DISTINCT hash) FROM rows WHERE hash NOT IN (SELECT hash FROM made)"
        return int(rows), int(self._db.execute(query).fetchone()[0])

    def unmade(self, size: int) -> Iterator[list[tuple[bytes, Row]]]:
        """Passages without a vector, one for each different text; those of one length together, so batches are even."""
        query = "SELECT MIN(id) FROM rows WHERE hash NOT IN (SELECT hash FROM made) GROUP BY hash ORDER BY length(body)"
        ids = [id for (id,) in self._db.execute(query)]
        for first in range(0, len(ids), size):
            some = ids[first : first + size]
            marks = ",".join("?" * len(some))
            found = self._db.execute(f"SELECT hash, body FROM rows WHERE id IN ({marks})", some)
            yield [(hash, _unpack(body, type=Row)) for hash, body in found]

    def whole(self, size: int) -> Iterator[list[Row]]:
        """All passages with their vectors."""
        query = "SELECT rows.body, made.vector FROM rows JOIN made ON rows.hash = made.hash ORDER BY rows.id"
        cursor = self._db.execute(query)
        while found := cursor.fetchmany(size):
            yield [msgspec.structs.replace(_unpack(body, type=Row), vector=vector) for body, vector in found]


def attributes_of(document: Document) -> dict[str, Json]:
    """What filters may ask of a document."""
    own: dict[str, Json] = {
        "path": document.path,
        "title": document.title,
        "source": document.source,
        "modified": document.modified,
        "fetched": document.fetched,
    }
    return {**own, **document.attributes}
