"""How far a judge agrees with people, on answers that people have labelled.

A judge is any scorer of the kind ``judge``. What it could not judge is counted, and in no figure of agreement.
"""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from dockyard.client import AsyncClient
from dockyard.errors import DockyardError, InvalidRequest, NotFound
from dockyard.ops.evaluate.agreement import Scale, kappa
from dockyard.ops.evaluate.result import Interval
from dockyard.scorers import Answer, Item, NoMeans, Score, Scorer
from dockyard.scorers._verdict import LASTING
from dockyard.types import Json

RESAMPLES = 1000


class Labelled(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, and the number that people gave it: their majority, or the rounded mean of several."""

    item: Item
    answer: Answer
    label: int


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """``kappa`` is Cohen's, with quadratic weights where the labels are a scale of more than two; None where both said
    the same throughout. ``agreement`` is the share of equal labels; ``chance`` what always giving the commonest label
    would reach. ``table`` counts (label of people, of the judge). ``nonsense`` verdicts are in no figure."""

    n: int
    nonsense: int
    kappa: float | None
    interval: Interval | None
    agreement: float
    chance: float
    table: dict[str, int]
    seconds: float


def read(path: Path, *, answer: str, label: str, prompt: str = "") -> list[Labelled]:
    """Labelled answers from columns of CSV or JSONL; ``label`` may name those of several people, with commas between.

    Lines that begin with ``#`` are remarks. Raises NotFound, and InvalidRequest with the line.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise NotFound(f"there is no file {path}", param=str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{path}: {error}", param=str(path)) from error
    rows = _jsonl(path, text) if path.suffix in (".jsonl", ".ndjson") else _csv(text)
    labels = [name.strip() for name in label.split(",")]
    found = []
    for line, row in rows:
        missing = [name for name in (answer, *labels, *((prompt,) if prompt else ())) if row.get(name) in (None, "")]
        if missing:
            known = ", ".join(str(name) for name in row)
            raise InvalidRequest(f"{path}:{line}: no {missing[0]!r}", param=missing[0], hint=f"columns: {known}")
        item = Item(id=str(line), line=line, prompt=str(row.get(prompt, "")) if prompt else "")
        given = [_number(path, line, row[name]) for name in labels]
        found.append(Labelled(item=item, answer=Answer(text=str(row[answer])), label=round(sum(given) / len(given))))
    if not found:
        raise InvalidRequest(f"{path} has no rows", param=str(path))
    return found


def check_scale(path: Path, labelled: Sequence[Labelled], lowest: int, scale: int) -> None:
    """Raises InvalidRequest that names the line of a label which no verdict of such a judge could equal."""
    for each in labelled:
        if not lowest <= each.label <= scale:
            raise InvalidRequest(
                f"{path}:{each.item.line}: the label {each.label} is not within {lowest} to {scale}",
                param="label",
                hint="--lowest and --scale say what people's labels go from and to",
            )


class Judges(NoMeans):
    """Models behind a client, for scorers that ask."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def ask(self, model: str, messages: Sequence[Mapping[str, Json]], **fields: Json) -> str:
        asked = [dict(each) for each in messages]
        return "".join([chunk.text async for chunk in self._client.chat(model, asked, **fields)])


async def calibrate(
    scorer: Scorer,
    metric: str,
    labelled: Sequence[Labelled],
    *,
    together: int = 4,
    done: Callable[[int], None] | None = None,
    seed: int = 0,
) -> Calibration:
    """Judge everything and compare. ``done`` is told how many are. Raises InvalidRequest where nothing was judged, and
    what a judge that is not there, or not for us, raises."""
    loop = asyncio.get_running_loop()
    began, turns, count = loop.time(), asyncio.Semaphore(max(1, together)), 0
    why: list[str] = []
    scorer.begin([each.item for each in labelled])

    async def one(each: Labelled) -> int | None:
        nonlocal count
        async with turns:
            try:
                score = await scorer.score(each.item, each.answer)
            except LASTING:
                raise
            except DockyardError as error:
                score = Score(values={}, note=error.message)
            if metric not in score.values:
                why.append(score.note)
            count += 1
            if done is not None:
                done(count)
        return round(score.values[metric][0]) if metric in score.values else None

    said = await asyncio.gather(*(one(each) for each in labelled))
    pairs = [(each.label, given) for each, given in zip(labelled, said, strict=True) if given is not None]
    if not pairs:
        raise InvalidRequest(
            f"the judge gave no verdict on any of {len(labelled)} answers", param="judge", hint=why[0] or None
        )
    return summary(pairs, nonsense=len(labelled) - len(pairs), seconds=loop.time() - began, seed=seed)


def summary(pairs: Sequence[tuple[int, int]], *, nonsense: int = 0, seconds: float = 0.0, seed: int = 0) -> Calibration:
    """The figures of labels by people and by a judge."""
    people, judge = [one for one, _ in pairs], [two for _, two in pairs]
    scale: Scale = "quadratic" if len({*people, *judge}) > 2 else "none"
    table: dict[str, int] = {}
    for one, two in sorted(pairs):
        table[f"{one},{two}"] = table.get(f"{one},{two}", 0) + 1
    return Calibration(
        n=len(pairs),
        nonsense=nonsense,
        kappa=kappa(people, judge, weights=scale),
        interval=_interval(pairs, scale, seed),
        agreement=sum(one == two for one, two in pairs) / len(pairs),
        chance=max(people.count(each) for each in set(people)) / len(people),
        table=table,
        seconds=seconds,
    )


def _interval(pairs: Sequence[tuple[int, int]], scale: Scale, seed: int) -> Interval | None:
    """Percentiles of kappa over resampled answers; resamples that have none are left out."""
    import random

    draw, found = random.Random(seed), []  # noqa: S311 - resampling, no secret
    for _ in range(RESAMPLES):
        some = draw.choices(pairs, k=len(pairs))
        value = kappa([one for one, _ in some], [two for _, two in some], weights=scale)
        if value is not None:
            found.append(value)
    if len(found) < RESAMPLES // 2:
        return None
    found.sort()
    return Interval(low=found[int(0.025 * len(found))], high=found[int(0.975 * len(found)) - 1])


def _csv(text: str) -> list[tuple[int, dict[str, Json]]]:
    skipped = 0
    lines = text.splitlines(keepends=True)
    while lines and lines[0].startswith("#"):
        skipped += 1
        lines.pop(0)
    reader = csv.DictReader(io.StringIO("".join(lines)))
    return [(skipped + reader.line_num, dict(row)) for row in reader]


def _jsonl(path: Path, text: str) -> list[tuple[int, dict[str, Json]]]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                found.append((number, msgspec.json.decode(line, type=dict[str, Json])))
            except msgspec.DecodeError as error:
                raise InvalidRequest(f"{path}:{number}: {error}", param=str(path)) from error
    return found


def _number(path: Path, line: int, value: Json) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InvalidRequest(f"{path}:{line}: {value!r:.40} is no number", param="label") from None
