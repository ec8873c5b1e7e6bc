"""What figures from few items are worth: intervals, paired comparison, and the difference that could be found.

All resampling is of items, seeded, and works on sums of statistics (see ``dockyard.scorers``), so that means and corpus
metrics such as BLEU are compared in one way. Sources: Wilson, JASA 22 (1927) 209; Koehn, EMNLP 2004 (paired bootstrap
of translation scores); Hesterberg, The American Statistician 69 (2015) 371, 5.2 (percentile intervals are too short for
few items, and are expanded as Student's t is wider than the normal).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from dockyard.errors import EngineUnavailable, InvalidRequest
from dockyard.ops.evaluate.result import Interval

if TYPE_CHECKING:
    from numpy import ndarray

Combine = Callable[[Sequence[float], int], float]
"""The value of ``n`` items whose statistics sum to these; ``Scorer.combine`` without the metric's name."""

RESAMPLES = 4000
LEVEL = 0.95
"""Of the interval of one run."""
COMPARED = 0.98
"""Of a difference: a suite has several metrics and is run often, and one false alarm in twenty would be many."""
POWER = 0.8
_ROUNDING = 1e-12
_BLOCK = 2_000_000
"""Numbers of weights held at a time: 16 MB."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """A second run against a first on the same ``n`` items.

    ``difference`` is second minus first, ``relative`` its share of the first's value (None where that is nought).

    ``verdict`` is about the second, from ``interval`` of the difference alone: "no difference" where that holds nought,
    which means that the two cannot be told apart with so many items, not that they are equal. ``detectable`` is
    what would have been found, None where the items are too much alike to say. ``p`` is two-sided, of the same
    bootstrap. Items so few that all may change one way by chance (the sign test, 2^(1-n)) never tell two runs apart.
    """

    n: int
    first: float
    second: float
    difference: float
    relative: float | None
    interval: Interval
    relative_interval: Interval | None
    p: float
    detectable: float | None
    verdict: Literal["better", "worse", "no difference"]


def wilson(successes: float, n: int, level: float = LEVEL) -> Interval:
    """The interval of a proportion; right also near 0 and 1, and of few items."""
    if n <= 0:
        raise InvalidRequest("an interval needs at least one item")
    z = _z(level)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return Interval(low=max(0.0, centre - half), high=min(1.0, centre + half), level=level, method="wilson")


def bootstrap(
    rows: Sequence[Sequence[float]],
    combine: Combine,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Interval:
    """The percentile interval of what the items' statistics combine to. ``rows``: one a scored item."""
    values = _values(rows, combine, seed, resamples)
    low, high = _ends(values, level, len(rows))
    return Interval(low=low, high=high, level=level, method="bootstrap")


def paired(
    first: Sequence[Sequence[float]],
    second: Sequence[Sequence[float]],
    combine: Combine,
    *,
    better: Literal["higher", "lower"] = "higher",
    seed: int = 0,
    resamples: int = RESAMPLES,
    level: float = COMPARED,
) -> Difference:
    """Compare two runs on the same items, row for row. Raises InvalidRequest for unequal or no rows."""
    if len(first) != len(second) or not first:
        raise InvalidRequest(f"two runs are paired item by item: {len(first)} and {len(second)} items are not")
    n = len(first)
    a, b = _whole(first, combine), _whole(second, combine)
    before, after = _values(first, combine, seed, resamples), _values(second, combine, seed, resamples)
    change = after - before
    low, high = _ends(change, level, n)
    relative = _relative(before, after, level, n) if a else None
    chance = 2.0 ** (1 - n)
    if chance > 1 - level:
        low, high = min(low, 0.0), max(high, 0.0)
        if relative is not None:
            ends = {"low": min(relative.low, 0.0), "high": max(relative.high, 0.0)}
            relative = msgspec.structs.replace(relative, **ends)
    verdict: Literal["better", "worse", "no difference"] = "no difference"
    if low > 0 or high < 0:
        verdict = "better" if (low > 0) == (better == "higher") else "worse"
    return Difference(
        n=n,
        first=a,
        second=b,
        difference=b - a,
        relative=(b - a) / abs(a) if a else None,
        interval=Interval(low=low, high=high, level=level),
        relative_interval=relative,
        p=max(_p(change), chance),
        detectable=_found(float(change.std(ddof=1)), abs(a), level, POWER) if n > 1 else None,
        verdict=verdict,
    )


def detectable(
    rows: Sequence[Sequence[float]], combine: Combine, *, seed: int = 0, level: float = COMPARED, power: float = POWER
) -> float | None:
    """The least difference that a comparison of two runs on these items would find with this power, before it is made.

    (z of the level + z of the power) times the standard error of a difference, taken as √2 times that of one run: two
    runs whose items agree do better than that, since a paired comparison uses their agreement. None of one item,
    and of items that are all alike: these say nothing of how far others may lie apart.
    """
    if len(rows) < 2:
        return None
    values = _values(rows, combine, seed, RESAMPLES)
    return _found(math.sqrt(2) * float(values.std(ddof=1)), abs(float(values.mean())), level, power)


def _found(error: float, size: float, level: float, power: float) -> float | None:
    """The difference that is found with this power, of its standard error; None for one that is but rounding."""
    return (_z(level) + NormalDist().inv_cdf(power)) * error if error > _ROUNDING * max(size, 1.0) else None


def mean(sums: Sequence[float], n: int) -> float:
    """``Combine`` of plain means."""
    return sums[0] / n


def _z(level: float) -> float:
    return NormalDist().inv_cdf(0.5 + level / 2)


def _whole(rows: Sequence[Sequence[float]], combine: Combine) -> float:
    return combine([math.fsum(column) for column in zip(*rows, strict=True)], len(rows))


def _values(rows: Sequence[Sequence[float]], combine: Combine, seed: int, resamples: int) -> ndarray[Any, Any]:
    """The combined value of each resample; the same seed and count draw the same items, so that runs stay paired."""
    np = library()
    table = np.asarray(rows, dtype=float)
    if table.ndim != 2 or not len(table):
        raise InvalidRequest("each item needs the same number of statistics, and there must be an item")
    n = len(table)
    draw = np.random.default_rng(seed)
    found: list[float] = []
    while len(found) < resamples:
        count = min(resamples - len(found), max(1, _BLOCK // n))
        weights = draw.multinomial(n, np.full(n, 1 / n), size=count)
        sums = weights @ table
        found += [combine(row, n) for row in sums.tolist()]
    values: ndarray[Any, Any] = np.asarray(found)
    return values


def _ends(values: ndarray[Any, Any], level: float, n: int) -> tuple[float, float]:
    """The percentiles that hold ``level`` of the resamples, expanded for ``n`` items."""
    end = tail(level, n)
    low, high = library().quantile(values, [end, 1 - end])
    return float(low), float(high)


def tail(level: float, n: int) -> float:
    """The share of resamples of ``n`` items beyond each end of an interval that holds ``level``."""
    return NormalDist().cdf(-math.sqrt(n / (n - 1)) * _student(_z(level), n - 1)) if n > 1 else 0.0


def _student(z: float, freedom: int) -> float:
    """Student's quantile from the normal one (Abramowitz and Stegun 26.7.5, three terms)."""
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def _relative(before: ndarray[Any, Any], after: ndarray[Any, Any], level: float, n: int) -> Interval | None:
    """The interval of the share; None where a resample's first value is nought."""
    if not before.all():
        return None
    low, high = _ends((after - before) / abs(before), level, n)
    return Interval(low=low, high=high, level=level)


def _p(change: ndarray[Any, Any]) -> float:
    """Twice the smaller share of resamples on one side of nought, counting one more than there were."""
    count = len(change)
    below, above = int((change <= 0).sum()), int((change >= 0).sum())
    return float(min(1.0, 2 * (min(below, above) + 1) / (count + 1)))


def library() -> Any:
    """What the intervals are drawn with. Raises EngineUnavailable where it is not installed."""
    try:
        import numpy
    except ImportError:
        raise EngineUnavailable(
            "statistics of evaluations need numpy, which is not installed", hint="pip install 'dockyard[evaluate]'"
        ) from None
    return numpy
