"""An index as an artifact: pushed like a model, pulled elsewhere, opened without embedding anything again.

It holds ``knowledge.json`` (the recipe), ``documents.parquet`` (documents with their parsed text) and
``passages.parquet`` (passages with vectors), whatever vector store the base has; so it opens in any other.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from dockyard.errors import ArtifactError, Conflict
from dockyard.knowledge.bases import LEDGER, Base, Bases
from dockyard.knowledge.ledger import Ledger, Work
from dockyard.knowledge.model import Document, Parsed, Recipe, Row, Source, check_name
from dockyard.knowledge.vectors import Place, open_vectors

if TYPE_CHECKING:
    from dockyard.artifact.store import Entry, Store
    from dockyard.types import OnProgress, Reference

KIND = "io.dockyard.knowledge"
"""Annotation that tells an index from other artifacts; its value is what is in it, as JSON."""
FORMAT = 1
RECIPE, DOCUMENTS, PASSAGES = "knowledge.json", "documents.parquet", "passages.parquet"
GROUP = 20_000
MOST_RECIPE = 1 << 20


class Packed(msgspec.Struct, frozen=True, kw_only=True):
    """``knowledge.json``. Sources are told by kind and number only: their places are this machine's business."""

    format: int = FORMAT
    recipe: Recipe
    documents: int
    passages: int


def pack(store: Store, base: Base, reference: Reference | None, *, on_progress: OnProgress | None = None) -> Entry:
    """The base as an artifact of the store. What only some may read is part of it, with the names of who may."""
    from dockyard.artifact.manifest import About, Lineage, Parent
    from dockyard.artifact.packing import pack_files
    from dockyard.errors import ModelNotFound

    with tempfile.TemporaryDirectory(prefix="dockyard-") as folder:
        packed = _write(base, Path(folder))
        parents: tuple[Parent, ...] = ()
        try:
            parents = (Parent(digest=store.resolve(packed.recipe.embedder).digest, role="embedder"),)
        except ModelNotFound:
            pass  # the embedding model is somebody else's: an upstream's, or another server's
        summary = {"embedder": packed.recipe.embedder, "dimension": packed.recipe.dimension,
                   "documents": packed.documents, "passages": packed.passages}  # fmt: skip
        files = {name: Path(folder) / name for name in (RECIPE, DOCUMENTS, PASSAGES)}
        return pack_files(
            store,
            files,
            reference=reference,
            roles={RECIPE: "config", DOCUMENTS: "dataset", PASSAGES: "dataset"},
            about=About(
                name=base.name, description=packed.recipe.title or f"knowledge of {packed.documents} documents"
            ),
            lineage=Lineage(parents=parents, operation="index", version="1"),
            annotations={KIND: msgspec.json.encode(summary, order="sorted").decode()},
            check=False,
            link=True,
            on_progress=on_progress,
        )


def _write(base: Base, folder: Path) -> Packed:
    import pyarrow
    from pyarrow import parquet

    with base.ledger() as ledger:
        recipe, documents = ledger.recipe, ledger.documents()
        snapshot, place = ledger.snapshot, ledger.place
        texts = {one.number: ledger.parsed(one.number) for one in documents}
    if not snapshot:
        raise Conflict(f"knowledge base {base.name!r} has no index yet", hint=f"`dockyard knowledge sync {base.name}`")
    encode = msgspec.json.encode
    shared = [msgspec.structs.replace(one, fingerprint="") for one in documents]
    table = pyarrow.table(
        {
            "number": pyarrow.array([one.number for one in shared], pyarrow.int64()),
            "document": pyarrow.array([encode(one).decode() for one in shared], pyarrow.string()),
            "parsed": pyarrow.array([encode(texts[one.number]).decode() for one in shared], pyarrow.string()),
        }
    )
    parquet.write_table(table, folder / DOCUMENTS, compression="zstd")
    store = base.vectors(recipe, place)
    schema = pyarrow.schema([("row", pyarrow.string()), ("vector", pyarrow.binary(4 * recipe.dimension))])
    count = 0
    with parquet.ParquetWriter(folder / PASSAGES, schema, compression="zstd") as writer:
        for rows in _grouped(store.rows(snapshot, [one.number for one in documents])):
            bare = [encode(msgspec.structs.replace(row, vector=b"")).decode() for row in rows]
            writer.write_table(pyarrow.table({"row": bare, "vector": [row.vector for row in rows]}, schema=schema))
            count += len(rows)
    packed = Packed(
        recipe=msgspec.structs.replace(recipe, url="", mark="", owner=""), documents=len(shared), passages=count
    )
    (folder / RECIPE).write_bytes(msgspec.json.format(msgspec.json.encode(packed)))
    return packed


def _grouped(rows: Any) -> Iterator[list[Row]]:
    held: list[Row] = []
    for row in rows:
        held.append(row)
        if len(held) >= GROUP:
            yield held
            held = []
    if held:
        yield held


def unpack(store: Store, name: str, bases: Bases, *, named: str = "", replace: bool = False) -> Base:
    """Open an index of the store as a base, in whole or not at all. Raises ArtifactError for what is no index, and
    Conflict if the name is taken and it is not to be replaced."""
    from dockyard.artifact.manifest import read_artifact

    artifact = read_artifact(store, store.resolve(name).digest)
    paths = {layer.path: store.blob_path(layer.descriptor.digest) for layer in artifact.layers}
    if KIND not in artifact.manifest.annotations or not {RECIPE, DOCUMENTS, PASSAGES} <= paths.keys():
        raise ArtifactError(f"{name} is no knowledge index", hint="`dockyard knowledge push` makes one")
    if paths[RECIPE].stat().st_size > MOST_RECIPE:
        raise ArtifactError(f"{name}: {RECIPE} is too large")
    try:
        packed = msgspec.json.decode(paths[RECIPE].read_bytes(), type=Packed)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ArtifactError(f"{name}: {RECIPE}: {error}") from error
    if packed.format != FORMAT:
        raise ArtifactError(f"{name} is of format {packed.format}, and {FORMAT} is known", hint="update dockyard")
    target = check_name(named or packed.recipe.name)
    recipe = msgspec.structs.replace(packed.recipe, name=target, store="lancedb", url="", owner="")
    if replace and (bases.root / target).exists():
        bases.remove(target)
    with bases.making(target) as folder:
        _fill(folder, recipe, paths[DOCUMENTS], paths[PASSAGES], name)
    return bases.get(target)


def _fill(folder: Path, recipe: Recipe, documents: Path, passages: Path, name: str) -> None:
    import pyarrow
    from pyarrow import parquet

    try:
        with Ledger(folder / LEDGER, create=True) as ledger:
            ledger.write_recipe(recipe)
            source = ledger.add_source(Source(kind="artifact", place=name))
            work = Work(folder / "work.db")
            last = 0
            for document, parsed in _documents(parquet.ParquetFile(documents)):
                work.add(msgspec.structs.replace(document, source=source.id, path=document.path), parsed, [])
                last = max(last, document.number)
            place = Place(folder=folder / "vectors", name="a1", dimension=recipe.dimension)
            store = open_vectors(recipe.store, place)
            store.rollback("")
            for batch in parquet.ParquetFile(passages).iter_batches(batch_size=GROUP):
                store.add(_rows(batch.to_pydict(), recipe.dimension))
            snapshot = store.commit()
            store.close()
            ledger.commit(work, snapshot=snapshot, place="a1", next_number=last + 1)
            work.close(done=True)
    except (pyarrow.ArrowException, KeyError, ValueError, OSError) as error:
        raise ArtifactError(f"{name} can't be opened: {error}") from error


def _documents(file: Any) -> Iterator[tuple[Document, Parsed]]:
    taken: set[str] = set()
    for batch in file.iter_batches(batch_size=256):
        columns = batch.to_pydict()
        for document, parsed in zip(columns["document"], columns["parsed"], strict=True):
            found = msgspec.json.decode(document, type=Document)
            # All come from one source now: a path that another source had too is told apart by that one's number.
            path = f"{found.source}/{found.path}" if found.path in taken else found.path
            if path in taken:
                raise ValueError(f"document {path!r} comes twice")
            taken.add(path)
            yield msgspec.structs.replace(found, path=path), msgspec.json.decode(parsed, type=Parsed)


def _rows(columns: dict[str, Sequence[Any]], dimension: int) -> list[Row]:
    rows = []
    for body, vector in zip(columns["row"], columns["vector"], strict=True):
        if len(vector) != 4 * dimension:
            raise ValueError("a vector has another length than the recipe says")
        rows.append(msgspec.structs.replace(msgspec.json.decode(body, type=Row), vector=vector))
    return rows
