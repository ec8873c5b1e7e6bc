"""Several lists of hits become one, and near-copies give way to something new. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dockyard.knowledge.models import cosine

SMOOTH = 60
"""The constant of reciprocal rank fusion (Cormack, Clarke and Büttcher, SIGIR 2009)."""


def fused(lists: Mapping[str, Sequence[int]]) -> list[tuple[int, float]]:
    """Ids by the sum of 1 / (60 + rank) over the lists that have them, the best first; ties by id."""
    scores: dict[int, float] = {}
    for ids in lists.values():
        for rank, id in enumerate(ids, 1):
            scores[id] = scores.get(id, 0.0) + 1.0 / (SMOOTH + rank)
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))


def diverse(scores: Sequence[float], vectors: Sequence[bytes], weight: float, limit: int) -> list[int]:
    """Places in the order of maximal marginal relevance: (1 - weight) · score - weight · likeness to what is chosen.

    ``scores`` are from 0 to 1; Carbonell and Goldstein, SIGIR 1998.
    """
    left, chosen = list(range(len(scores))), list[int]()
    near = [0.0] * len(scores)
    while left and len(chosen) < limit:
        best = max(left, key=lambda place: ((1 - weight) * scores[place] - weight * near[place], -place))
        left.remove(best)
        chosen.append(best)
        for place in left:
            near[place] = max(near[place], cosine(vectors[best], vectors[place]))
    return chosen
