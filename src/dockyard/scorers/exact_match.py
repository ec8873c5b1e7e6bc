"""Exact match: the answer is one of the references, or has one in it."""

from __future__ import annotations

import re
from typing import ClassVar

from dockyard.scorers import Answer, Item, Mean, Means, Metric, Need, Options, Score
from dockyard.scorers._text import normalized, references


class ExactOptions(Options, frozen=True):
    """``normalize``: as SQuAD does, without case, punctuation, English articles, extra space. Else ends are trimmed.

    ``within``: it is enough that a reference stands in the answer, in whole words.
    """

    normalize: bool = True
    within: bool = False


class ExactMatch(Mean):
    """1 where the answer equals a reference, else 0."""

    name: ClassVar[str] = "exact-match"
    options = ExactOptions
    needs: frozenset[Need] = frozenset({"text", "reference"})
    metrics: tuple[Metric, ...] = (Metric(name="exact_match", kind="proportion"),)

    def __init__(self, options: ExactOptions, means: Means) -> None:  # noqa: ARG002 - the protocol's
        self._plain = normalized if options.normalize else str.strip
        self._within = options.within
        if options.within:
            self.metrics = (Metric(name="exact_match", kind="proportion", signature="within:yes"),)

    async def score(self, item: Item, answer: Answer) -> Score:
        said = self._plain(answer.text)
        right = any(self._same(said, self._plain(each)) for each in references(item))
        return Score(values={"exact_match": (float(right),)})

    def _same(self, said: str, right: str) -> bool:
        if self._within:
            return bool(right) and re.search(rf"(?<!\w){re.escape(right)}(?!\w)", said) is not None
        return said == right


PLUGIN = ExactMatch
