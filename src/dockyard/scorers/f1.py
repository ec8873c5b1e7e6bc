"""Token F1: how many words of answer and reference are the same (SQuAD; Rajpurkar et al., EMNLP 2016)."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from dockyard.scorers import Answer, Item, Mean, Means, Metric, Need, Options, Score
from dockyard.scorers._text import normalized, references


class F1Options(Options, frozen=True):
    """None."""


class F1(Mean):
    """The best over the references, from 0 to 1; two empty texts are equal."""

    name: ClassVar[str] = "f1"
    options = F1Options
    needs: frozenset[Need] = frozenset({"text", "reference"})
    metrics = (Metric(name="f1"),)

    def __init__(self, options: F1Options, means: Means) -> None:
        pass

    async def score(self, item: Item, answer: Answer) -> Score:
        return Score(values={"f1": (max(_f1(answer.text, each) for each in references(item)),)})


def _f1(said: str, right: str) -> float:
    one, two = normalized(said).split(), normalized(right).split()
    if not one or not two:
        return float(one == two)
    same = sum((Counter(one) & Counter(two)).values())
    return 2 * same / (len(one) + len(two))


PLUGIN = F1
