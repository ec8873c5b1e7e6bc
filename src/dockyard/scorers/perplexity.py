"""Perplexity of the items' texts: how surprised the model is, by token, word and byte."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import ClassVar

from dockyard.errors import InvalidRequest
from dockyard.scorers import Answer, Item, Means, Metric, Need, Options, Score


class PerplexityOptions(Options, frozen=True):
    """None."""


class Perplexity:
    """Of the whole corpus: exp(-log-probability / count), so long texts weigh more. Words are split at space, and bytes
    are UTF-8's, as lm-evaluation-harness counts them; only these two compare models of different tokenizers."""

    name: ClassVar[str] = "perplexity"
    options = PerplexityOptions
    needs: frozenset[Need] = frozenset({"likelihood"})
    metrics = (
        Metric(name="perplexity", kind="corpus", better="lower"),
        Metric(name="word_perplexity", kind="corpus", better="lower"),
        Metric(name="byte_perplexity", kind="corpus", better="lower"),
        Metric(name="bits_per_byte", kind="corpus", better="lower"),
    )

    def __init__(self, options: PerplexityOptions, means: Means) -> None:
        pass

    def begin(self, items: Sequence[Item]) -> None:
        """Nothing depends on the other items."""

    async def score(self, item: Item, answer: Answer) -> Score:
        if not item.text or len(answer.likelihoods) != 1:
            raise InvalidRequest(
                f"line {item.line} has no text to read", param="text", hint="the suite's `text:` names a column"
            )
        found = answer.likelihoods[0]
        size = float(len(item.text.encode()))
        counts = {
            "perplexity": float(found.tokens),
            "word_perplexity": float(len(re.split(r"\s+", item.text))),
            "byte_perplexity": size,
            "bits_per_byte": size,
        }
        return Score(values={name: (found.logprob, count) for name, count in counts.items()})

    def combine(self, metric: str, sums: Sequence[float], n: int) -> float:  # noqa: ARG002 - the protocol's
        if not sums[1]:
            return math.nan
        loss = -sums[0] / sums[1]
        try:
            return loss / math.log(2) if metric == "bits_per_byte" else math.exp(loss)
        except OverflowError:
            return math.inf


PLUGIN = Perplexity
