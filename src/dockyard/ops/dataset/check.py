"""Looking a data set over without keeping it: what repeats, overlaps an evaluation, or identifies people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dockyard.errors import InvalidRequest
from dockyard.ops.dataset import near, overlap, private
from dockyard.ops.dataset.artifact import file_items, items_of, open_dataset
from dockyard.ops.dataset.records import KINDS, Kind, Record, read, text_of

if TYPE_CHECKING:
    from dockyard.artifact.store import Store


class Finding(msgspec.Struct, frozen=True):
    """Something about a record, counted from 1 over all sources."""

    record: int
    what: str


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """What ``inspect`` saw."""

    kind: Kind
    records: int
    findings: list[Finding]


def inspect(
    store: Store,
    sources: Sequence[str],
    *,
    kind: str | None = None,
    least: float = 0.8,
    against: Sequence[str] = (),
) -> Inspection:
    """Read files or data sets and report. Raises InvalidRequest with file and line for a record that is wrong, for
    sources of different kinds and for none."""
    told, records = _all_of(store, sources, None if kind is None else _known(kind))
    texts = [text_of(record) for record in records]
    held = [
        text for name in against for text in (file_items(Path(name)) if Path(name).is_file() else items_of(store, name))
    ]
    findings = [Finding(place + 1, "repeats an earlier one") for place in near.exact(records)]
    repeated = {finding.record for finding in findings}
    findings += [
        Finding(place + 1, f"nearly repeats record {other + 1} (similarity {similar:.2f})")
        for place, other, similar in near.near(records, least)
        if place + 1 not in repeated
    ]
    findings += [
        Finding(place + 1, f"shares {overlap.WINDOW} words with item {other + 1} of the evaluation")
        for place, other in overlap.overlap(texts, held)
    ]
    for place, text in enumerate(texts):
        sorts = sorted({finding.sort for finding in private.find(text)})
        if sorts:
            findings.append(Finding(place + 1, f"holds personal data: {', '.join(sorts)}"))
    return Inspection(kind=told, records=len(records), findings=sorted(findings, key=lambda each: each.record))


def _known(kind: str) -> Kind:
    for known in KINDS:
        if kind == known:
            return known
    raise InvalidRequest(f"{kind!r} is no kind of data", param="kind", hint=f"one of {', '.join(KINDS)}")


def _all_of(store: Store, sources: Sequence[str], kind: Kind | None) -> tuple[Kind, list[Record]]:
    """The records of all sources, and the one kind that they are of."""
    records: list[Record] = []
    for source in sources:
        if Path(source).is_file():
            told, more = read(Path(source), kind)
        else:
            found = open_dataset(store, source)
            told, more = found.card.kind, [record for part in found.parts.values() for record in part]
        if kind not in (None, told):
            raise InvalidRequest(f"{source} holds {told}, not {kind}", param="sources", hint="inspect each kind apart")
        kind = told
        records += more
    if kind is None:
        raise InvalidRequest("there is nothing to inspect", param="sources", hint="name a file or a data set")
    return kind, records
