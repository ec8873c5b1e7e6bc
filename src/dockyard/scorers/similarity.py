"""Similarity of meaning: the cosine of the embeddings of answer and reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

from dockyard.scorers import Answer, Item, Mean, Means, Metric, Need, Options, Score
from dockyard.scorers._text import references


class SimilarityOptions(Options, frozen=True, kw_only=True):
    """``model`` computes the embeddings; a comparison holds only for runs with the same one."""

    model: str


class Similarity(Mean):
    """The best over the references, from -1 to 1."""

    name: ClassVar[str] = "similarity"
    options = SimilarityOptions
    needs: frozenset[Need] = frozenset({"text", "reference", "embeddings"})

    def __init__(self, options: SimilarityOptions, means: Means) -> None:
        self._model, self._means = options.model, means
        self.metrics = (Metric(name="similarity", signature=f"model:{options.model}"),)

    async def score(self, item: Item, answer: Answer) -> Score:
        said, *right = await self._means.embed(self._model, [answer.text or " ", *references(item)])
        return Score(values={"similarity": (max(cosine(said, each) for each in right),)})


def cosine(one: Sequence[float], two: Sequence[float]) -> float:
    """0.0 where one of them is nought."""
    sizes = math.hypot(*one) * math.hypot(*two)
    return sum(a * b for a, b in zip(one, two, strict=True)) / sizes if sizes else 0.0


PLUGIN = Similarity
