"""Fits ``knowledge.evidence``: from what is measured of a sentence to the probability that it answers.

Fitted on twelve kinds of made-up places, never on those that ``answers`` measures. Each kind is also left out once: the
figures of the table are of places that their own fit has not seen. The cut is the one where the lesser of the two
shares over all kinds is greatest, since both are wanted alike; it is moved into the bias, so that 0.5 is the cut.

    python -m benchmarks.knowledge answerable
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks._bars import Row
from benchmarks.knowledge._more_places import CLINIC, FARM, HOTEL, MARKET, MINE, MONASTERY, NEWSPAPER
from benchmarks.knowledge._places import BREWERY, HARBOUR, LIBRARY, RAILWAY, SCHOOL, Kind, made
from benchmarks.knowledge._setup import base_of, opened, stocked
from dockyard.knowledge.claims import about
from dockyard.knowledge.evidence import Inputs, measured, said
from dockyard.knowledge.model import Search
from dockyard.knowledge.questions import Question
from dockyard.knowledge.retrieve import search
from dockyard.knowledge.sync import sync

KINDS: dict[str, Kind] = {
    "harbour": HARBOUR,
    "railway": RAILWAY,
    "library": LIBRARY,
    "brewery": BREWERY,
    "school": SCHOOL,
    "mine": MINE,
    "farm": FARM,
    "clinic": CLINIC,
    "hotel": HOTEL,
    "newspaper": NEWSPAPER,
    "monastery": MONASTERY,
    "market": MARKET,
}
PLACES = 6
ALONE = 4
SHRINK = 0.01


class Asked(msgspec.Struct, frozen=True):
    """One question: whether it has an answer, what was measured of each sentence, and whether that is the answer."""

    answerable: bool
    inputs: list[Inputs]
    right: list[bool]


async def seen(kind: str, models: Any, bases: Any, options: Any, folder: Path) -> list[Asked]:
    """All questions of one kind: of all its places together, and of some alone in a base, without their names."""
    asked = made(folder / "all", KINDS[kind], kind, seed=5, count=PLACES)
    found = await _asked(kind, asked, models, bases, options, folder / "all")
    for page in sorted((folder / "all").glob("*.md"))[:ALONE]:
        place = page.read_text().split("\n")[0].rpartition(" ")[2]
        alone = folder / place.lower()
        alone.mkdir()
        (alone / "page.md").write_text(nameless(page.read_text(), place))
        some = [
            msgspec.structs.replace(one, question=nameless(one.question, place))
            for one in asked
            if place in one.question
        ]
        found += await _asked(f"{kind}-{place.lower()}", some, models, bases, options, alone)
    return found


def nameless(text: str, place: str) -> str:
    """What is said of a place, or asked, without its name."""
    text = re.sub(rf" (?:of|in|at|from) {place}\b", "", text)
    return re.sub(rf"\b{place} ", "", text).replace(place, "this place")


async def _asked(
    name: str, asked: Sequence[Question], models: Any, bases: Any, options: Any, folder: Path
) -> list[Asked]:
    base = await base_of(bases, models, name, folder)
    await sync(base, models, options)
    found = []
    for one in asked:
        hits = about(one.question, (await search(base, models, one.question, Search())).hits)
        sentences = said(hits)
        close = await measured(sentences, models, base.recipe(), one.question) if sentences else []
        right = [bool(one.answer) and sentence.bare == one.answer for sentence, _ in close]
        found.append(Asked(bool(one.documents), [inputs for _, inputs in close], right))
    return found


def fitted(sets: Sequence[Sequence[Asked]]) -> Any:
    """Bias and weights, by Newton's method with a little shrinkage."""
    import numpy

    every = [one for some in sets for one in some]
    data = numpy.array([(1.0, *row) for one in every for row in one.inputs])
    wanted = numpy.array([right for one in every for right in one.right], dtype=float)
    weights = numpy.zeros(data.shape[1])
    for _ in range(50):
        chances = 1 / (1 + numpy.exp(-data @ weights))
        slope = data.T @ (wanted - chances) - SHRINK * weights
        bend = (data * (chances * (1 - chances))[:, None]).T @ data + SHRINK * numpy.eye(len(weights))
        weights = weights + numpy.linalg.solve(bend, slope)
    return weights


def judged(some: Sequence[Asked], weights: Any) -> list[tuple[bool, float, bool]]:
    """For each question whether it has an answer, the best sentence's score and whether that sentence is the answer."""
    found = []
    for one in some:
        scores = [float(weights @ (1.0, *row)) for row in one.inputs]
        best = max(range(len(scores)), key=scores.__getitem__, default=None)
        score = -99.0 if best is None else scores[best]
        found.append((one.answerable, score, best is not None and one.right[best]))
    return found


def shares(some: Sequence[tuple[bool, float, bool]], cut: float) -> tuple[float, float]:
    """Of the answerable ones, those answered with the right sentence; of the others, those declined."""
    answered = [right and score >= cut for answerable, score, right in some if answerable]
    declined = [score < cut for answerable, score, _ in some if not answerable]
    return sum(answered) / len(answered), sum(declined) / len(declined)


async def _seen() -> dict[str, list[Asked]]:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        stocked(root / "home")
        async with opened(root / "home") as (options, models, bases):
            return {kind: await seen(kind, models, bases, options, root / kind) for kind in KINDS}


def rows() -> Iterator[Row]:
    found = asyncio.run(_seen())
    left_out = {
        kind: judged(found[kind], fitted([some for other, some in found.items() if other != kind])) for kind in found
    }
    pooled = [one for some in left_out.values() for one in some]
    cut = max((step / 10 for step in range(-60, 60)), key=lambda at: (min(shares(pooled, at)), sum(shares(pooled, at))))
    for kind, some in [*left_out.items(), ("all", pooled)]:
        answered, declined = shares(some, cut)
        yield Row(f"{kind}, left out of the fit", f"answered {answered:.1%}, declined {declined:.1%}", "-", None)
    weights = fitted(list(found.values()))
    told = f"BIAS = {weights[0] - cut:.2f}, WEIGHTS = " + ", ".join(f"{one:.3f}" for one in weights[1:])
    yield Row("fitted on all, with the cut in the bias", told, "-", None)
