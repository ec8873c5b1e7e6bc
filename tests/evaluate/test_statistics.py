"""Intervals and comparisons against what theory says of them."""

from __future__ import annotations

import math
import random

import pytest

from dockyard.errors import InvalidRequest
from dockyard.ops.evaluate import statistics as st


def rows(*values: float) -> list[tuple[float]]:
    return [(value,) for value in values]


def test_wilson_is_the_published_formula() -> None:
    # Newcombe, Statistics in Medicine 17 (1998) 857, table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29
    for successes, n, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611)):
        found = st.wilson(successes, n)
        assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    with pytest.raises(InvalidRequest):
        st.wilson(0, 0)


def test_equal_runs_are_no_difference_and_unequal_ones_are_found() -> None:
    same = st.paired(rows(1, 0, 1, 1), rows(1, 0, 1, 1), st.mean)
    assert (same.verdict, same.difference, same.p, same.interval.low) == ("no difference", 0.0, 1.0, 0.0)
    dice = random.Random(3)
    first = rows(*(dice.gauss(0, 1) for _ in range(200)))
    second = [(value + 1,) for (value,) in first]
    found = st.paired(first, second, st.mean)
    assert (found.verdict, round(found.difference, 9)) == ("better", 1.0)
    assert st.paired(first, second, st.mean, better="lower").verdict == "worse"
    assert st.paired(second, first, st.mean).p < 0.01


def test_few_items_are_wider_than_many_and_one_says_nothing() -> None:
    dice = random.Random(5)
    values = rows(*(dice.gauss(0, 1) for _ in range(400)))
    few, many = st.bootstrap(values[:10], st.mean), st.bootstrap(values, st.mean)
    assert few.high - few.low > 3 * (many.high - many.low)
    assert st.detectable(values[:1], st.mean) is None
    least = st.detectable(values, st.mean)
    assert least is not None
    assert math.isclose(least, (2.326 + 0.842) * math.sqrt(2 / 400), rel_tol=0.15)


def test_items_that_are_all_alike_promise_nothing() -> None:
    assert st.detectable(rows(*[0.5] * 20), st.mean) is None
    assert st.detectable([(-0.5 * n, float(n)) for n in range(1, 9)], lambda sums, _: sums[0] / sums[1]) is None
    same = st.paired(rows(*[0.5] * 20), rows(*[0.5] * 20), st.mean)
    assert (same.verdict, same.detectable) == ("no difference", None)


@pytest.mark.parametrize(("n", "verdict"), [(1, "no difference"), (6, "no difference"), (7, "worse")])
def test_what_may_be_chance_in_all_items_is_no_difference(n: int, verdict: str) -> None:
    found = st.paired(rows(*[1.0] * n), rows(*[0.5] * n), st.mean)
    assert found.verdict == verdict
    assert found.p >= 2.0 ** (1 - n)
    assert found.relative_interval is not None
    assert (found.interval.high, found.relative_interval.high) == ((0.0, 0.0) if n < 7 else (-0.5, -0.5))


def test_false_alarms_are_rare() -> None:
    alarms = 0
    for seed in range(100):
        dice = random.Random(seed)
        first, second = (rows(*(float(dice.random() < 0.6) for _ in range(60))) for _ in range(2))
        alarms += st.paired(first, second, st.mean, seed=seed, resamples=1000).verdict != "no difference"
    assert alarms <= 5


def test_runs_of_other_items_are_refused() -> None:
    for first, second in ((rows(1), rows(1, 2)), ([], [])):
        with pytest.raises(InvalidRequest):
            st.paired(first, second, st.mean)
