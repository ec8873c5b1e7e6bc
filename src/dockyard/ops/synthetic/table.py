"""Synthetic tables by a Gaussian copula: each column keeps its own distribution, pairs keep their rank correlation.

Method (Patki et al., 2016, without their library): values are turned into normal scores by their ranks (words by the
middle of their share of [0, 1], in order of frequency), the correlation of the scores is estimated, rows are drawn from
that normal distribution, and turned back by the inverse of each column's empirical distribution; numbers between the
observed ones are interpolated. Missing values are a part of the distribution. No value is invented for words, and
words that occur once are left out, since they may name somebody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import msgspec

from dockyard.errors import InvalidRequest
from dockyard.ops._libraries import library
from dockyard.ops.dataset.records import Record
from dockyard.ops.synthetic.report import Column, Report
from dockyard.types import Json

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]

LEAST = 20
HELD = 0.3
"""Share of the real rows that the distribution is not learnt from: what privacy is measured against."""
RARE = 2
"""Times that a word must occur to be drawn."""


class _Learnt(msgspec.Struct):
    """One column: its kind, how often it is empty, and its values in order (numbers) or with shares (words)."""

    name: str
    kind: str
    empty: float
    values: list[Any]
    edges: list[float]
    whole: bool = False


def draw(rows: Sequence[Record], count: int, seed: int) -> tuple[list[Record], Report]:
    """``count`` rows like these, and what is to be said of them. Raises InvalidRequest for too few rows or columns
    that hold neither numbers nor words that repeat."""
    np = library("numpy")
    if len(rows) < LEAST:
        raise InvalidRequest(
            f"{len(rows)} rows are too few to learn a table from; {LEAST} are the least", param="seeds"
        )
    generator = np.random.Generator(np.random.PCG64(seed))
    names = sorted({name for row in rows for name in row})
    order = generator.permutation(len(rows))
    cut = max(LEAST // 2, int(len(rows) * (1 - HELD)))
    train, held = [rows[at] for at in order[:cut]], [rows[at] for at in order[cut:]]
    columns = [_learn(name, [row.get(name) for row in train]) for name in names]
    columns = [column for column in columns if column.kind != "none"]
    if not columns:
        raise InvalidRequest("no column holds numbers, or words that occur more than once", param="seeds")
    scores = np.column_stack([_scores(np, column, [row.get(column.name) for row in train]) for column in columns])
    drawn = _normals(np, generator, scores, count)
    made = [{column.name: _value(column, drawn[row, at]) for at, column in enumerate(columns)} for row in range(count)]
    left = [name for name in names if name not in {column.name for column in columns}]
    return made, _judged(np, columns, train, held, made, left)


def _learn(name: str, values: Sequence[Json]) -> _Learnt:
    present = [value for value in values if value is not None and value != ""]
    empty = 1 - len(present) / max(1, len(values))
    numbers = [_number(value) for value in present]
    if present and all(number is not None for number in numbers) and not any(isinstance(v, bool) for v in present):
        found = sorted(number for number in numbers if number is not None)
        return _Learnt(name, "number", empty, found, [], all(number == int(number) for number in found))
    counts = Counter(map(_word, present))
    kept = [(word, times) for word, times in counts.most_common() if times >= RARE]
    if not kept:
        return _Learnt(name, "none", empty, [], [])
    total, edge, edges = sum(times for _, times in kept), 0.0, [0.0]
    for _, times in kept:
        edge += times / total
        edges.append(edge)
    originals = {_word(value): value for value in present}
    return _Learnt(name, "word", empty, [originals[word] for word, _ in kept], edges)


def _number(value: Json) -> float | None:
    try:
        return float(value) if not isinstance(value, bool) else None
    except (TypeError, ValueError):
        return None


def _word(value: Json) -> str:
    return str(value)


def _scores(np: Any, column: _Learnt, values: Sequence[Json]) -> Array:
    """Normal scores of a column; an empty value has the lowest."""
    normal = NormalDist()
    found = []
    words = {_word(value): at for at, value in enumerate(column.values)} if column.kind == "word" else {}
    for value in values:
        if value is None or value == "" or (column.kind == "word" and _word(value) not in words):
            share = column.empty / 2 if column.empty else 0.5
        elif column.kind == "word":
            at = words[_word(value)]
            share = column.empty + (1 - column.empty) * (column.edges[at] + column.edges[at + 1]) / 2
        else:
            place = float(np.searchsorted(column.values, _number(value), "left"))
            place = (place + float(np.searchsorted(column.values, _number(value), "right"))) / 2
            share = column.empty + (1 - column.empty) * place / len(column.values)
        found.append(normal.inv_cdf(min(max(share, 1e-4), 1 - 1e-4)))
    scores: Array = np.asarray(found)
    return scores


def _normals(np: Any, generator: Any, scores: Array, count: int) -> Array:
    """Rows of the normal distribution that has the scores' correlation, as shares between 0 and 1."""
    width = scores.shape[1]
    correlation = np.eye(width)
    if width > 1:
        spread = scores.std(axis=0)
        with np.errstate(invalid="ignore"):
            estimated = np.nan_to_num(np.corrcoef(scores, rowvar=False), nan=0.0)
        estimated[spread == 0, :] = 0
        estimated[:, spread == 0] = 0
        np.fill_diagonal(estimated, 1.0)
        values, vectors = np.linalg.eigh(estimated)
        fixed = vectors @ np.diag(np.clip(values, 1e-6, None)) @ vectors.T
        scale = np.sqrt(np.diag(fixed))
        correlation = fixed / scale / scale[:, None]
    drawn = generator.standard_normal((count, width)) @ np.linalg.cholesky(correlation).T
    shares: Array = np.vectorize(NormalDist().cdf, otypes=[float])(drawn)
    return shares


def _value(column: _Learnt, share: float) -> Json:
    """The value at a share of a column's distribution."""
    if share < column.empty:
        return None
    share = min(max((share - column.empty) / (1 - column.empty), 0.0), 1.0)
    if column.kind == "word":
        at = next((at for at in range(len(column.values)) if share <= column.edges[at + 1]), len(column.values) - 1)
        return column.values[at]
    place = share * (len(column.values) - 1)
    low = int(place)
    high = min(low + 1, len(column.values) - 1)
    number = column.values[low] + (place - low) * (column.values[high] - column.values[low])
    return round(number) if column.whole else float(f"{number:.6g}")


# judging


def _judged(
    np: Any,
    columns: Sequence[_Learnt],
    train: Sequence[Record],
    held: Sequence[Record],
    made: Sequence[Record],
    left: Sequence[str],
) -> Report:
    real, other, fake = (_points(np, columns, rows) for rows in (train, held, made))
    distances = [_distance(np, column, train, made) for column in columns]
    to_train, to_held = _nearest(np, fake, real), _nearest(np, fake, other)
    train_keys = {msgspec.json.encode(row, order="sorted") for row in train}
    copies = sum(msgspec.json.encode(row, order="sorted") in train_keys for row in made)
    # Of as many training rows as were held out: a nearest neighbour is nearer in a larger crowd.
    some = _nearest(np, fake, real[: len(other)])
    fidelity = {
        "mean_distance": float(np.mean([each.distance for each in distances])),
        "correlation_difference": _correlations(np, real, fake),
        "detected": _detected(np, np.concatenate([real, other]), fake),
    }
    privacy = {
        "exact_copies": float(copies),
        "closer_than_real": float(((some < to_held) + 0.5 * (some == to_held)).mean()),
        "closest_record": float(np.median(to_train)),
        "closest_held_out": float(np.median(_nearest(np, other, real))),
    }
    return Report(
        method="table",
        made=len(made),
        seeds=len(train) + len(held),
        left_out={f"column {name}: words that do not repeat": 1 for name in left},
        fidelity=fidelity,
        privacy=privacy,
        columns=tuple(distances),
    )


def _points(np: Any, columns: Sequence[_Learnt], rows: Sequence[Record]) -> Array:
    points: Array = np.column_stack([_scores(np, column, [row.get(column.name) for row in rows]) for column in columns])
    return points


def _distance(np: Any, column: _Learnt, real: Sequence[Record], made: Sequence[Record]) -> Column:
    a, b = ([row.get(column.name) for row in rows] for rows in (real, made))
    if column.kind == "word":
        first, second = Counter(map(_word, a)), Counter(map(_word, b))
        apart = sum(abs(first[w] / len(a) - second[w] / len(b)) for w in {*first, *second}) / 2
    else:
        x = np.sort([n for v in a if (n := _number(v)) is not None])
        y = np.sort([n for v in b if (n := _number(v)) is not None])
        at = np.concatenate([x, y])
        apart = float(np.abs(np.searchsorted(x, at, "right") / len(x) - np.searchsorted(y, at, "right") / len(y)).max())
    return Column(name=column.name, kind=column.kind, distance=float(apart))


def _correlations(np: Any, real: Array, fake: Array) -> float:
    if real.shape[1] < 2:
        return 0.0
    with np.errstate(invalid="ignore"):
        a, b = (np.nan_to_num(np.corrcoef(points, rowvar=False)) for points in (real, fake))
    upper = np.triu_indices(real.shape[1], 1)
    return float(np.abs(a[upper] - b[upper]).mean())


def _nearest(np: Any, points: Array, among: Array) -> Array:
    """For each point the distance to the nearest of the others."""
    blocks = np.array_split(points, 1 + len(points) // 256)
    found: Array = np.concatenate(
        [np.sqrt(((block[:, None, :] - among[None, :, :]) ** 2).sum(2)).min(1) for block in blocks]
    )
    return found


def _detected(np: Any, real: Array, fake: Array) -> float:
    """How well the share of made rows among a row's ten nearest tells made from real: area under the curve."""
    count = min(len(real), len(fake), 1000)
    points = np.concatenate([real[:count], fake[:count]])
    made = np.arange(len(points)) >= count
    scores = []
    for at in range(len(points)):
        apart = ((points - points[at]) ** 2).sum(1)
        apart[at] = np.inf
        scores.append(made[np.argsort(apart, kind="stable")[:10]].mean())
    marks = np.asarray(scores)
    wins = (marks[made][:, None] > marks[~made][None, :]).mean() + 0.5 * (
        marks[made][:, None] == marks[~made][None, :]
    ).mean()
    return float(wins)
