"""Intervals of comparisons in which hardly an item changed."""

from __future__ import annotations

import random

import pytest

from dockyard.ops.evaluate import statistics
from dockyard.ops.evaluate.few import widened
from dockyard.scorers import Metric

PLAIN = Metric(name="right", kind="proportion")


def _compare(
    first: list[tuple[float, ...]], second: list[tuple[float, ...]], metric: Metric = PLAIN
) -> statistics.Difference:
    found = statistics.paired(first, second, statistics.mean, better=metric.better, level=0.95, resamples=200)
    return widened(found, metric, first, second)


def test_no_change_in_few_items_is_no_promise() -> None:
    for n, most in ((12, 0.3), (100, 0.03), (2000, 0.0015)):
        found = _compare([(1.0,)] * n, [(1.0,)] * n)
        assert found.verdict == "no difference"
        assert 0 < found.interval.high <= most
        assert found.relative_interval is not None
        assert found.relative_interval.low == -found.interval.high
    same = [(0.25,), (0.75,)] * 30
    found = _compare(same, same, Metric(name="f1"))
    assert found.interval.high == pytest.approx((1 - 0.05 ** (1 / 60)) * 0.5)
    assert _compare(same, same, Metric(name="cost", better="lower")).interval.high == 0.0


def test_intervals_of_proportions_cover_a_planted_difference() -> None:
    draw, inside = random.Random(1), 0
    for _ in range(150):
        first = [(float(draw.random() < 0.9),) for _ in range(40)]
        second = [(float(draw.random() < 0.95),) if a == 1.0 else (float(draw.random() < 0.5),) for (a,) in first]
        planted = 0.9 * 0.95 + 0.1 * 0.5 - 0.9
        found = _compare(first, second)
        inside += found.interval.low <= planted <= found.interval.high
    assert inside >= 140


def test_a_large_change_is_still_found() -> None:
    found = _compare([(1.0,)] * 100, [(float(n % 5 > 0),) for n in range(100)])
    assert found.verdict == "worse"
    assert found.interval.high < -0.1
