"""Votes as preference data: prompt, chosen, rejected. Pure.

Only what raters consented to is used, and personal data is taken out of every text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import msgspec

from dockyard.ops.dataset.private import redact
from dockyard.state.arenas import Arena, Item, Vote
from dockyard.types import Json


class Preference(msgspec.Struct, frozen=True, kw_only=True):
    """One record as trainers read it, and what it rests on: votes for and against, and ties; or mean ratings."""

    prompt: str
    chosen: str
    rejected: str
    support: dict[str, Json]


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it. ``without_consent`` votes were left out, and ``undecided`` pairs of answers."""

    records: tuple[Preference, ...]
    used: int
    without_consent: int
    undecided: int


def export(arena: Arena, items: Sequence[Item], votes: Sequence[Vote]) -> Exported:
    """A record for each pair of answers that the majority decided, or whose mean ratings differ."""
    agreed = [vote for vote in votes if vote.consent]
    found, undecided = (_pairs if arena.kind == "pairs" else _ratings)(items, agreed)
    records = [each for each in found if each.chosen != each.rejected]  # they may differ in personal data alone
    undecided += len(found) - len(records)
    return Exported(
        records=tuple(records),
        used=len(agreed),
        without_consent=len(votes) - len(agreed),
        undecided=undecided,
    )


def lines(exported: Exported) -> bytes:
    """JSONL."""
    return b"".join(msgspec.json.encode(each) + b"\n" for each in exported.records)


def _pairs(items: Sequence[Item], votes: Sequence[Vote]) -> tuple[list[Preference], int]:
    said: dict[tuple[int, int, int], list[str]] = defaultdict(list)
    for vote in votes:
        if vote.second is not None and vote.verdict is not None:
            said[vote.item, vote.first, vote.second].append(vote.verdict)
    by_number, found, undecided = {item.number: item for item in items}, [], 0
    for (number, first, second), verdicts in sorted(said.items()):
        one, two = verdicts.count("first"), verdicts.count("second")
        if one == two or number not in by_number:
            undecided += 1
            continue
        ties = len(verdicts) - one - two
        support = {"for": max(one, two), "against": min(one, two), "ties": ties}
        better, worse = (first, second) if one > two else (second, first)
        found.append(_record(by_number[number], better, worse, support))
    return found, undecided


def _ratings(items: Sequence[Item], votes: Sequence[Vote]) -> tuple[list[Preference], int]:
    said: dict[int, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for vote in votes:
        if vote.score is not None:
            said[vote.item][vote.first].append(vote.score)
    by_number, found, undecided = {item.number: item for item in items}, [], 0
    for number, by_candidate in sorted(said.items()):
        means = sorted(((sum(each) / len(each), place) for place, each in by_candidate.items()), reverse=True)
        if len(means) < 2 or means[0][0] == means[-1][0] or number not in by_number:
            undecided += 1
            continue
        (high, better), (low, worse) = means[0], means[-1]
        found.append(_record(by_number[number], better, worse, {"chosen": high, "rejected": low}))
    return found, undecided


def _record(item: Item, better: int, worse: int, support: dict[str, Json]) -> Preference:
    return Preference(
        prompt=redact(item.prompt),
        chosen=redact(item.candidates[better].text),
        rejected=redact(item.candidates[worse].text),
        support=support,
    )
