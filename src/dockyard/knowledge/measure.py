"""Figures of retrieval: how many of the documents that answer a question are found, and how high. Pure functions.

``ranked`` are ids, the best first, each once; ``relevant`` those that answer. Järvelin and Kekäläinen (2002) for nDCG,
with a gain of 1 for each relevant document.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import msgspec


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A mean over questions, and where 95 of 100 resamplings of them put it."""

    mean: float
    low: float
    high: float
    questions: int


def recall(ranked: Sequence[str], relevant: AbstractSet[str], k: int) -> float:
    """The share of the relevant ones that are among the first ``k``, of as many as could be."""
    return len(relevant & set(ranked[:k])) / min(k, len(relevant)) if relevant else 0.0


def ndcg(ranked: Sequence[str], relevant: AbstractSet[str], k: int) -> float:
    """Gains discounted by log2(rank + 1), of the best there could be."""
    gained = sum(1 / math.log2(rank + 1) for rank, id in enumerate(ranked[:k], 1) if id in relevant)
    best = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(relevant)) + 1))
    return gained / best if best else 0.0


def reciprocal_rank(ranked: Sequence[str], relevant: AbstractSet[str]) -> float:
    """1 / the rank of the first relevant one; 0 if none was found."""
    return next((1 / rank for rank, id in enumerate(ranked, 1) if id in relevant), 0.0)


def precision(ranked: Sequence[str], relevant: AbstractSet[str], k: int) -> float:
    """The mean, over the places of relevant ones among the first ``k``, of the share that is relevant up to there.

    What is called context precision: 1 if all relevant ones come before all others.
    """
    found, shares = 0, []
    for rank, id in enumerate(ranked[:k], 1):
        if id in relevant:
            found += 1
            shares.append(found / rank)
    return sum(shares) / len(shares) if shares else 0.0


def interval(values: Sequence[float], *, rounds: int = 2000, seed: int = 7) -> Interval:
    """The mean with its bootstrap interval; the same for the same values."""
    if not values:
        return Interval(mean=0.0, low=0.0, high=0.0, questions=0)
    draw = random.Random(seed)  # noqa: S311 - resampling, no secret
    means = sorted(sum(draw.choices(values, k=len(values))) / len(values) for _ in range(rounds))
    low, high = means[int(0.025 * rounds)], means[min(rounds - 1, int(0.975 * rounds))]
    return Interval(mean=sum(values) / len(values), low=low, high=high, questions=len(values))


def gain(new: Sequence[float], old: Sequence[float], *, rounds: int = 2000, seed: int = 7) -> Interval:
    """How much more the new mean is than the old, as a share of the old, question by question (paired)."""
    if not new or not any(old):
        return Interval(mean=0.0, low=0.0, high=0.0, questions=len(new))
    draw, count = random.Random(seed), len(new)  # noqa: S311
    shares = []
    for _ in range(rounds):
        places = draw.choices(range(count), k=count)
        before = sum(old[place] for place in places)
        shares.append(sum(new[place] for place in places) / before - 1 if before else 0.0)
    shares.sort()
    low, high = shares[int(0.025 * rounds)], shares[min(rounds - 1, int(0.975 * rounds))]
    return Interval(mean=sum(new) / sum(old) - 1, low=low, high=high, questions=count)
