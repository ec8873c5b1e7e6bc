"""How far raters agree, beyond what chance would give: Cohen's kappa and Krippendorff's alpha.

Sources: Cohen, Educational and Psychological Measurement 20 (1960) 37; Cohen, Psychological Bulletin 70 (1968) 213
(weights); Krippendorff, Content Analysis, 3rd ed. (2013), chapter 12 (alpha, any number of raters, missing ratings).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar

L = TypeVar("L", bound="str | int | float | bool")
Scale = Literal["none", "quadratic"]
"""How a disagreement counts: any alike, or by the square of how far apart."""


def kappa(first: Sequence[L], second: Sequence[L], *, weights: Scale = "none") -> float | None:
    """Cohen's kappa of two raters on the same things; 1 agreement, 0 what chance gives. None of no things, or where
    both gave the same one label throughout, so that chance explains everything. Quadratic weights need numbers."""
    if len(first) != len(second):
        raise ValueError(f"two raters rate the same things: {len(first)} and {len(second)}")
    count = len(first)
    one, two = Counter(first), Counter(second)
    distance = _squared if weights == "quadratic" else _differs
    expected = sum(one[a] * two[b] * distance(a, b) for a in one for b in two)
    if not count or not expected:
        return None
    observed = sum(distance(a, b) for a, b in zip(first, second, strict=True))
    return 1 - observed * count / expected


def alpha(units: Sequence[Mapping[str, L]], *, level: Literal["nominal", "interval"] = "nominal") -> float | None:
    """Krippendorff's alpha; each unit maps raters to what they said of it. Units with one rating count for nothing.

    None where nothing can be said: no unit with two ratings, or all ratings the same.
    """
    distance: Callable[[L, L], float] = _differs if level == "nominal" else _squared
    pairable = [list(unit.values()) for unit in units if len(unit) > 1]
    totals = Counter(value for values in pairable for value in values)
    count = sum(totals.values())
    if count < 2:
        return None
    observed = 0.0
    for values in pairable:
        inside = Counter(values)
        pairs = sum(inside[a] * inside[b] * distance(a, b) for a in inside for b in inside)
        observed += pairs / (len(values) - 1)
    expected = sum(totals[a] * totals[b] * distance(a, b) for a in totals for b in totals)
    if not expected:
        return None
    return 1 - (count - 1) * observed / expected


def pairwise_kappa(units: Sequence[Mapping[str, L]]) -> float | None:
    """The mean of Cohen's kappa over all pairs of raters who rated something together; None where there is none."""
    rated: dict[tuple[str, str], list[tuple[L, L]]] = defaultdict(list)
    for unit in units:
        raters = sorted(unit)
        for place, one in enumerate(raters):
            for two in raters[place + 1 :]:
                rated[one, two].append((unit[one], unit[two]))
    found = [kappa([a for a, _ in rows], [b for _, b in rows]) for rows in rated.values()]
    told = [each for each in found if each is not None]
    return sum(told) / len(told) if told else None


def _differs(one: L, two: L) -> float:
    return float(one != two)


def _squared(one: L, two: L) -> float:
    return (float(one) - float(two)) ** 2
