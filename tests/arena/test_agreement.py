"""Kappa and alpha against figures from the books."""

from __future__ import annotations

import pytest

from dockyard.ops.evaluate.agreement import alpha, kappa, pairwise_kappa


def test_kappa_of_the_textbook() -> None:
    one = ["y"] * 25 + ["n"] * 25
    two = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    assert kappa(one, two) == pytest.approx(0.4)
    assert kappa(one, one) == 1
    assert kappa(["y", "y"], ["y", "y"]) is None
    assert kappa([], []) is None


def test_quadratic_weights_forgive_near_misses() -> None:
    one, near, far = [1, 2, 3, 4, 5] * 4, [2, 3, 4, 5, 4] * 4, [5, 4, 1, 2, 1] * 4
    assert kappa(one, near) < 0  # type: ignore[operator]
    assert kappa(one, near, weights="quadratic") > 0.5  # type: ignore[operator]
    assert kappa(one, far, weights="quadratic") < 0  # type: ignore[operator]


def test_alpha_of_krippendorffs_own_example() -> None:
    rows = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ]
    units = [{f"r{rater}": row[unit] for rater, row in enumerate(rows) if row[unit] is not None} for unit in range(12)]
    assert alpha(units) == pytest.approx(0.743, abs=0.0005)  # type: ignore[arg-type]
    assert alpha(units, level="interval") == pytest.approx(0.849, abs=0.0005)  # type: ignore[arg-type]
    assert alpha([{"a": 1}]) is None
    assert alpha([{"a": 1, "b": 1}]) is None


def test_pairs_of_raters_are_averaged() -> None:
    units = [{"a": x, "b": x, "c": y} for x, y in [(1, 1), (0, 1), (1, 0), (0, 0)]]
    assert pairwise_kappa(units) == pytest.approx(1 / 3)
    assert pairwise_kappa([{"a": 1}]) is None
