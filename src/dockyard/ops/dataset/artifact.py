"""A data set in the store: its parts as JSONL files, and ``dataset.json`` that says what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dockyard.artifact.manifest import read_artifact
from dockyard.artifact.materialize import lay_out
from dockyard.errors import InvalidRequest
from dockyard.ops.dataset.records import SUFFIXES, Kind, Record, fields_of, read, rows
from dockyard.types import Reference

if TYPE_CHECKING:
    from dockyard.artifact.store import Store

CARD = "dataset.json"
REPORT = "report.md"
PARTS = ("train", "validation", "test")


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """What a data set holds. ``records`` counts by part; ``removed`` by reason; ``private`` by sort, as found."""

    kind: Kind
    records: dict[str, int]
    removed: dict[str, int] = {}
    private: dict[str, int] = {}
    overlapping: int = 0
    words: int = 0
    how: str = ""


class DataSet(msgspec.Struct, frozen=True, kw_only=True):
    """A data set that was read: records by part, and the ``report`` of one that was made by `synthesize`."""

    digest: str
    card: Card
    parts: dict[str, list[Record]]
    report: str = ""

    def part(self, name: str) -> list[Record]:
        """The records of a part; InvalidRequest where it has none."""
        found = self.parts.get(name)
        if not found:
            known = ", ".join(self.parts)
            raise InvalidRequest(
                f"the data set has no part {name!r}, only {known}",
                param=name,
                hint="split it: `dockyard data create NAME NEW --validation 0.1`",
            )
        return found


def open_dataset(store: Store, name: str | Reference) -> DataSet:
    """Read a data set of the store. Raises ModelNotFound, and InvalidRequest for an artifact that is none."""
    found = store.resolve(name)
    artifact = read_artifact(store, found.digest)
    paths = {layer.path for layer in artifact.layers}
    if CARD not in paths:
        raise InvalidRequest(
            f"{name} is no data set: it has no {CARD}", param=str(name), hint="make one with `dockyard data create`"
        )
    folder, _ = lay_out(store, artifact)
    card = msgspec.json.decode((folder / CARD).read_bytes(), type=Card)
    parts = {part: read(folder / f"{part}.jsonl", card.kind)[1] for part in PARTS if f"{part}.jsonl" in paths}
    report = (folder / REPORT).read_text(encoding="utf-8") if REPORT in paths else ""
    return DataSet(digest=found.digest, card=card, parts=parts, report=report)


def items_of(store: Store, name: str | Reference) -> list[list[str]]:
    """The texts of each item of an artifact's data files, whatever their columns: of a suite as of a data set.

    Of a data set that has parts beside "train", only those: what is trained on is no evaluation.
    """
    artifact = read_artifact(store, store.resolve(name).digest)
    folder, laid = lay_out(store, artifact)
    files = [each.path for each in laid if each.path.lower().endswith(SUFFIXES)]
    held = [path for path in files if path in ("validation.jsonl", "test.jsonl")]
    if not files:
        raise InvalidRequest(f"{name} has no data to compare with, only {', '.join(each.path for each in laid)}")
    return [item for path in (held or files) for item in file_items(folder / path)]


def file_items(path: Path) -> list[list[str]]:
    """The texts of each row of a data file, whatever its columns."""
    return [fields_of(record) for _, record in rows(path)]
