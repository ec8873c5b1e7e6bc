"""Data sets as artifacts: files are checked, cleaned, split, and become JSONL parts with a card.

``create`` is the door. Every record is checked before anything is kept, and an error names file and line.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from dockyard.artifact.packing import pack_files
from dockyard.artifact.store import Entry, Store
from dockyard.artifact.writers import About, Parent, Spec
from dockyard.errors import Conflict, InvalidRequest, NotFound
from dockyard.ops import Done, Inputs, Job, Params, execute
from dockyard.ops.dataset import near, overlap, private
from dockyard.ops.dataset.artifact import CARD, Card, file_items, items_of, open_dataset
from dockyard.ops.dataset.records import Kind, Record, map_text, read, text_of, write
from dockyard.ops.dataset.split import split
from dockyard.types import OnProgress, Reference

Share = Annotated[float, Meta(ge=0, le=0.9)]


class DataParams(Params, frozen=True):
    """What is done to the records on their way in."""

    kind: Annotated[Kind | None, Meta(description="What the records are; told by their columns if not said.")] = None
    validation: Annotated[Share, Meta(description="Share that is held out for choosing while training.")] = 0.0
    test: Annotated[Share, Meta(description="Share that is held out for judging the result.")] = 0.0
    seed: Annotated[int, Meta(description="Which records are held out.")] = 0
    dedupe: Annotated[bool, Meta(description="Leave out records whose words occurred before.")] = True
    near: Annotated[
        Annotated[float, Meta(gt=0, le=1)] | None,
        Meta(description="Leave out records this similar to an earlier one (Jaccard of word 5-grams, by MinHash)."),
    ] = None
    private: Annotated[
        Literal["report", "redact", "drop", "refuse"], Meta(description="What to do about personal data.")
    ] = "report"
    overlapping: Annotated[
        Literal["refuse", "drop", "report"], Meta(description="What to do with records that an evaluation has too.")
    ] = "refuse"
    limit: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="Keep only so many records, the first ones.")
    ] = None
    name: Annotated[str | None, Meta(description="What the data set is called.")] = None
    licence: Annotated[str | None, Meta(description="SPDX identifier of its licence.")] = None


class Importer:
    """The operation. Files below ``data/`` are records, those below ``against/`` evaluations; artifacts in the role
    "dataset" add their records, those in the role "evaluation" are compared with."""

    name = "data"
    version = "1"
    params = DataParams

    def run(self, job: Job, params: DataParams) -> Entry:
        kind, records = _gathered(job, params)
        parts, card = prepare(kind, records, _evaluations(job), params)
        with tempfile.TemporaryDirectory(prefix="dockyard-") as folder:
            files: dict[str, Path] = {}
            for part, held in parts.items():
                files[f"{part}.jsonl"] = Path(folder) / f"{part}.jsonl"
                write(files[f"{part}.jsonl"], held)
            files[CARD] = Path(folder) / CARD
            files[CARD].write_bytes(msgspec.json.format(msgspec.json.encode(card, order="sorted"), indent=2) + b"\n")
            return pack_files(
                job.store,
                files,
                reference=job.reference,
                about=About(name=params.name, licenses=(params.licence,) if params.licence else ()),
                spec=Spec(format="jsonl"),
                lineage=job.lineage,
                annotations=job.annotations,
                check=False,
                on_progress=job.on_progress,
            )


PLUGIN = Importer()


def prepare(
    kind: Kind, records: list[Record], evaluations: Sequence[overlap.Item], params: DataParams
) -> tuple[dict[str, list[Record]], Card]:
    """The parts of a data set and what is to be said of it. Raises InvalidRequest and Conflict as ``create`` does."""
    removed: Counter[str] = Counter()

    def without(places: Sequence[int], reason: str) -> None:
        removed[reason] += len(places)
        gone = set(places)
        records[:] = [record for place, record in enumerate(records) if place not in gone]

    if params.dedupe:
        without(near.exact(records), "repeated")
    if params.near is not None:
        without([place for place, _, _ in near.near(records, params.near)], "nearly repeated")
    hits = overlap.overlap([text_of(record) for record in records], evaluations)
    if hits and params.overlapping == "refuse":
        raise _overlapping(records, evaluations, hits)
    if params.overlapping == "drop":
        without([place for place, _ in hits], "in an evaluation")
    found, sorts = _private(records)
    if found and params.private == "refuse":
        told = ", ".join(f"{count} {sort}" for sort, count in sorted(sorts.items()))
        raise InvalidRequest(f"{len(found)} records hold personal data: {told}", hint="--private redact, or drop")
    if params.private == "drop":
        without(found, "personal data")
    if params.private == "redact":
        records[:] = [map_text(record, private.redact) for record in records]
    records = records[: params.limit]
    if not records:
        raise InvalidRequest(f"no record is left: {dict(removed)} were taken out")
    parts = split(records, {"validation": params.validation, "test": params.test}, params.seed)
    card = Card(
        kind=kind,
        records={part: len(held) for part, held in parts.items()},
        removed={reason: count for reason, count in removed.items() if count},
        private=dict(sorted(sorts.items())),
        overlapping=0 if params.overlapping == "drop" else len(hits),
        words=sum(len(text_of(record).split()) for record in records),
        how=params.private,
    )
    return parts, card


def create(
    store: Store,
    sources: Sequence[str | Path],
    params: DataParams | None = None,
    *,
    against: Sequence[str | Path] = (),
    reference: Reference | None = None,
    on_progress: OnProgress | None = None,
) -> Done:
    """Make a data set of files and of data sets in the store, and name it ``reference``.

    ``against`` are evaluations, as files or artifacts, whose texts must not be in it. The same sources and params give
    the same digest. Raises NotFound, InvalidRequest with file and line for a record that is wrong, and Conflict for
    records that an evaluation has too.
    """
    params = params or DataParams()
    for source in sources:
        if Path(source).is_file():
            read(Path(source), params.kind)  # refuses what is wrong under the name that the user knows
    with store.lease():
        inputs = inputs_for(store, sources, against, on_progress=on_progress)
        return execute(store, PLUGIN, inputs, params, reference=reference, on_progress=on_progress)


def inputs_for(
    store: Store,
    sources: Sequence[str | Path],
    against: Sequence[str | Path] = (),
    *,
    on_progress: OnProgress | None = None,
) -> Inputs:
    """The operation's inputs: files as blobs of the store, names as digests. Raises NotFound for what is neither."""
    files: dict[str, str] = {}
    parents: list[Parent] = []
    for folder, role, given in (("data", "dataset", sources), ("against", "evaluation", against)):
        for number, source in enumerate(given):
            path = Path(source)
            if path.is_file():
                files[f"{folder}/{number}-{path.name}"] = store.add_file(path, on_progress=on_progress).digest
            else:
                parents.append(Parent(digest=_artifact(store, source), role=role))
    return Inputs(artifacts=tuple(parents), files=files)


def _artifact(store: Store, source: str | Path) -> str:
    if isinstance(source, Path) or source.endswith((".jsonl", ".csv", ".parquet", ".ndjson")):
        raise NotFound(f"{source}: there is no such file", param=str(source))
    return store.resolve(source).digest


@contextmanager
def _named(job: Job, folder: str) -> Iterator[list[Path]]:
    """The job's files of a folder under their own names: their suffix says what they are."""
    with tempfile.TemporaryDirectory(prefix="dockyard-") as place:
        found = []
        for path, digest in sorted(job.inputs.files.items()):
            if path.startswith(f"{folder}/"):
                found.append(Path(place) / path.removeprefix(f"{folder}/"))
                found[-1].symlink_to(job.store.blob_path(digest).absolute())
        yield found


def _gathered(job: Job, params: DataParams) -> tuple[Kind, list[Record]]:
    kind, records = params.kind, []
    for parent in job.inputs.artifacts:
        if parent.role == "dataset":
            found = open_dataset(job.store, parent.digest)
            kind = _same(kind, found.card.kind, parent.digest)
            records += [record for part in found.parts.values() for record in part]
    with _named(job, "data") as paths:
        for path in paths:
            its, more = read(path, kind)
            kind = _same(kind, its, path.name)
            records += more
    if kind is None:
        raise InvalidRequest("there is no data", hint="name files, or data sets of the store")
    return kind, records


def _same(kind: Kind | None, other: Kind, where: str) -> Kind:
    if kind is not None and kind != other:
        raise InvalidRequest(f"{where} holds {other} records, but the others {kind} ones", param=where)
    return other


def _evaluations(job: Job) -> list[list[str]]:
    items = [
        item
        for parent in job.inputs.artifacts
        if parent.role == "evaluation"
        for item in items_of(job.store, parent.digest)
    ]
    with _named(job, "against") as paths:
        return items + [item for path in paths for item in file_items(path)]


def _private(records: Sequence[Record]) -> tuple[list[int], Counter[str]]:
    """Where personal data is, and how much of each sort."""
    sorts: Counter[str] = Counter()
    found = []
    for place, record in enumerate(records):
        findings = private.find(text_of(record))
        sorts.update(finding.sort for finding in findings)
        if findings:
            found.append(place)
    return found, sorts


def _overlapping(
    records: Sequence[Record], evaluations: Sequence[overlap.Item], hits: list[tuple[int, int]]
) -> Conflict:
    place, other = hits[0]
    shown = text_of(records[place])[:80].replace("\n", " ")
    return Conflict(
        f"{len(hits)} of {len(records)} records are in the evaluation too; the first is record {place + 1} "
        f"({shown!r}), which shares {overlap.WINDOW} words with its item {other + 1} of {len(evaluations)}",
        param="against",
        hint="--overlapping drop leaves them out",
    )
