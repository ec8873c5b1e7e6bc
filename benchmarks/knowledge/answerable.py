"""Fits ``knowledge.evidence``: from what is measured of a sentence to the probability that it answers.

Fitted on twelve kinds of made-up places, never on those that ``answers`` measures. Each kind is also left out once: the
figures of the table are of places that their own fit has not seen. The cut is the one where the lesser of the two
shares over all kinds is greatest, since both are wanted alike, and the middle of all that do as well; it is moved into
the bias, so that 0.5 is the cut.

    python -m benchmarks.knowledge answerable

``judging`` fits the two models with a judge on these and four more kinds: of its Yes alone, and with what a sentence
adds to the likelihood of the question. The figures without a judge are of the same questions. Facts differ in numbers
and names, so of those that are alike the language model is asked once.

    python -m benchmarks.knowledge judging
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
from benchmarks.knowledge._places import (
    BREWERY,
    CABLEWAY,
    GARDEN,
    HARBOUR,
    HEADS,
    LIBRARY,
    OBSERVATORY,
    PEOPLE,
    RAILWAY,
    SCHOOL,
    TAILS,
    THEATRE,
    Kind,
    made,
)
from benchmarks.knowledge._setup import base_of, opened, stocked
from benchmarks.knowledge.answers import JUDGE, joined
from dockyard.knowledge.asked import unnamed
from dockyard.knowledge.claims import about
from dockyard.knowledge.evidence import (
    ASKED,
    BIAS,
    WEIGHTS,
    Inputs,
    Sentence,
    best_of,
    judged,
    likelier,
    measured,
    said,
    weighed,
)
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
SEEN = {**KINDS, "observatory": OBSERVATORY, "theatre": THEATRE, "garden": GARDEN, "cableway": CABLEWAY}
"""The kinds that the fits with a judge have seen."""
PLACES = 6
ALONE = 4
SHRINK = 0.01
VARYING = re.compile(rf"\d+|(?:{'|'.join(PEOPLE)}) |(?:{'|'.join(HEADS)})(?:{'|'.join(TAILS)})")
"""What differs between facts that are alike."""


class Asked(msgspec.Struct, frozen=True):
    """One question: whether it has an answer, what was measured of each sentence, and whether that is the answer.
    ``told`` is what a judge says of some of the sentences, by their places; None: it was not asked."""

    answerable: bool
    inputs: list[Inputs]
    right: list[bool]
    told: dict[int, Inputs] | None = None


async def seen(kind: str, models: Any, bases: Any, options: Any, folder: Path, judge: str = "") -> list[Asked]:
    """All questions of one kind: of all its places together, and of some alone in a base, without their names. Those
    for which nothing is found a judge isn't asked about: they are declined at every cut."""
    known: dict[str, Inputs] = {}
    asked = made(folder / "all", SEEN[kind], kind, seed=5, count=PLACES)
    found = await _asked(kind, asked, models, bases, options, folder / "all", judge, known)
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
        found += await _asked(f"{kind}-{place.lower()}", some, models, bases, options, alone, judge, known)
    return found


def nameless(text: str, place: str) -> str:
    """What is said of a place, or asked, without its name."""
    text = re.sub(rf" (?:of|in|at|from) {place}\b", "", text)
    return re.sub(rf"\b{place} ", "", text).replace(place, "this place")


async def _asked(
    name: str,
    asked: Sequence[Question],
    models: Any,
    bases: Any,
    options: Any,
    folder: Path,
    judge: str,
    known: dict[str, Inputs],
) -> list[Asked]:
    base = await base_of(bases, models, name, folder)
    await sync(base, models, options)
    found = []
    for one in asked:
        hits = about(one.question, (await search(base, models, one.question, Search())).hits)
        sentences = said(hits)
        close = await measured(sentences, models, base.recipe(), one.question) if sentences else []
        right = [bool(one.answer) and sentence.bare == one.answer for sentence, _ in close]
        told = await _told_by(close, models, judge, one.question, known) if judge and close else None
        found.append(Asked(bool(one.documents), [inputs for _, inputs in close], right, told))
    return found


async def _told_by(
    close: Sequence[tuple[Sentence, Inputs]], models: Any, judge: str, question: str, known: dict[str, Inputs]
) -> dict[int, Inputs]:
    """What a judge says of the sentences that do best, by their places. ``known`` is what was said of what is alike."""
    likely = [(one, weighed(BIAS, WEIGHTS, inputs)) for one, inputs in close]
    places = [one for one, _ in close]
    found = {}
    for one, logit in best_of(likely, ASKED):
        key = VARYING.sub("*", f"{unnamed(question)} {one.bare}")
        if key not in known:
            some = await judged([(one, logit)], models, judge, question)
            ((_, (_, *numbers)),) = await likelier(some, models, judge, question)
            known[key] = tuple(numbers)
        found[places.index(one)] = known[key]
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


def decided(some: Sequence[Asked], weights: Any) -> list[tuple[bool, float, bool]]:
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
    return sum(answered) / (len(answered) or 1), sum(declined) / (len(declined) or 1)


def cut_of(some: Sequence[tuple[bool, float, bool]]) -> float:
    """Where the lesser share is greatest, then their sum: the middle of all cuts that do as well."""
    steps = [step / 10 for step in range(-60, 60)]
    worth = [(min(told := shares(some, at)), sum(told)) for at in steps]
    best = [at for at, one in zip(steps, worth, strict=True) if one == max(worth)]
    return (best[0] + best[-1]) / 2


async def _seen(judge: str = "") -> dict[str, list[Asked]]:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        stocked(root / "home", *([(joined(JUDGE), f"ai/{judge}:latest")] if judge else []))
        async with opened(root / "home") as (options, models, bases):
            kinds = SEEN if judge else KINDS
            return {kind: await seen(kind, models, bases, options, root / kind, judge) for kind in kinds}


def rows() -> Iterator[Row]:
    found = asyncio.run(_seen())
    left_out = {
        kind: decided(found[kind], fitted([some for other, some in found.items() if other != kind])) for kind in found
    }
    yield from _told(left_out, fitted(list(found.values())))


def judging_rows() -> Iterator[Row]:
    yield from judged_of(asyncio.run(_seen("judge")))


def judged_of(found: dict[str, list[Asked]]) -> Iterator[Row]:
    """The rows of the fits with a judge. Of a kind that is left out, no fit has seen anything. What is fitted on all
    takes the first logit as ``knowledge.evidence`` says it, with its cut in the bias."""
    yield from _told({kind: _bare(found, kind) for kind in found}, None, ", no judge")
    for count, how in ((1, ", judged by its Yes"), (2, ", judged by its Yes and the question's likelihood")):
        left_out = {kind: _stacked_out(found, kind, count) for kind in found}
        every = fitted([stacked(some, (BIAS, *WEIGHTS), count) for some in found.values()])
        yield from _told(left_out, every, how)


def _bare(found: dict[str, list[Asked]], kind: str) -> list[tuple[bool, float, bool]]:
    return decided([one for one in found[kind] if one.told is not None], _others(found, kind))


def _stacked_out(found: dict[str, list[Asked]], kind: str, count: int) -> list[tuple[bool, float, bool]]:
    six = _others(found, kind)
    others = [stacked(some, six, count) for other, some in found.items() if other != kind]
    return decided(stacked(found[kind], six, count), fitted(others))


def _others(found: dict[str, list[Asked]], kind: str) -> Any:
    """The fit of the six measures on all kinds but one."""
    return fitted([some for other, some in found.items() if other != kind])


def stacked(some: Sequence[Asked], weights: Any, count: int) -> list[Asked]:
    """The questions that a judge was asked about, each with the sentences' logits by ``weights`` and the first
    ``count`` numbers that it says."""
    found = []
    for one in some:
        if one.told is not None:
            inputs = [
                (weighed(weights[0], weights[1:], one.inputs[place]), *told[:count]) for place, told in one.told.items()
            ]
            found.append(Asked(one.answerable, inputs, [one.right[place] for place in one.told]))
    return found


def _told(left_out: dict[str, list[tuple[bool, float, bool]]], weights: Any, how: str = "") -> Iterator[Row]:
    pooled = [one for some in left_out.values() for one in some]
    cut = cut_of(pooled)
    for kind, some in [*left_out.items(), ("all", pooled)]:
        answered, declined = shares(some, cut)
        told = f"answered {answered:.1%}, declined {declined:.1%} of {len(some)}"
        yield Row(f"{kind}, left out of the fit{how}", told, "-", None)
    if weights is not None:
        told = f"BIAS = {weights[0] - cut:.2f}, WEIGHTS = " + ", ".join(f"{one:.3f}" for one in weights[1:])
        yield Row(f"fitted on all, with the cut in the bias{how}", told, "-", None)
