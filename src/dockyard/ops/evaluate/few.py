"""What few changed items can tell. Where hardly an item changed, resampling items finds hardly a change, however few
items there are: its interval is then too short, and one of no width says that two runs are the same for certain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import msgspec

from dockyard.ops.evaluate.result import Interval
from dockyard.ops.evaluate.statistics import Difference
from dockyard.scorers import Metric

Rows = Sequence[tuple[float, ...]]


def widened(found: Difference, metric: Metric, first: Rows, second: Rows) -> Difference:
    """The comparison with an interval that holds for few changed items too.

    Proportions: the adjusted Wald interval of paired proportions (Bonett and Price, JEBS 37 (2012) 479), joined with
    the bootstrap's. Means of values from 0 up of which no item changed: an unseen item may be among the share that
    still could change, 1 - alpha^(1/n), and lose all its worth. Whole-corpus figures and costs stay as they are: an
    item's part in them has no bound.
    """
    half = _half(found, metric, first, second)
    if half is None:
        return found
    own = found.interval
    centre = found.difference
    interval = Interval(
        low=min(own.low, centre - half), high=max(own.high, centre + half), level=own.level, method=own.method
    )
    relative = found.relative_interval
    if found.relative is not None and found.first:
        share = abs(found.first)
        # Where a resample of few items was nought throughout, the bootstrap has no relative change.
        low, high = (relative.low, relative.high) if relative else (interval.low / share, interval.high / share)
        relative = Interval(
            low=min(low, found.relative - half / share),
            high=max(high, found.relative + half / share),
            level=own.level,
            method=own.method,
        )
    apart = interval.low > 0 or interval.high < 0
    return msgspec.structs.replace(
        found,
        interval=interval,
        relative_interval=relative,
        verdict=found.verdict if apart else "no difference",
        detectable=max(found.detectable or 0.0, half) if found.n > 1 else None,
    )


def _half(found: Difference, metric: Metric, first: Rows, second: Rows) -> float | None:
    """Half the width of the interval; None where the bootstrap's own is as good as can be."""
    n, alpha = found.n, 1 - found.interval.level
    if metric.kind == "proportion" and all(row in ((0.0,), (1.0,)) for row in (*first, *second)):
        lost = sum(a > b for (a,), (b,) in zip(first, second, strict=True))
        won = sum(a < b for (a,), (b,) in zip(first, second, strict=True))
        down, up = (lost + 1) / (n + 2), (won + 1) / (n + 2)
        spread = math.sqrt((down + up - (up - down) ** 2) / (n + 2))
        return NormalDist().inv_cdf(1 - alpha / 2) * spread + abs((up - down) - found.difference)
    plain = metric.kind == "mean" and metric.better == "higher" and found.first > 0
    if plain and all(tuple(a) == tuple(b) for a, b in zip(first, second, strict=True)):
        return float(1 - alpha ** (1 / n)) * found.first
    return None
