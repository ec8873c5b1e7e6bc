"""ROUGE-1, -2, -L and -Lsum, F-measure, as rouge-score computes it (Lin, 2004); the mean over items."""

from __future__ import annotations

from typing import ClassVar

from dockyard.errors import EngineUnavailable
from dockyard.scorers import Answer, Item, Mean, Means, Metric, Need, Options, Score
from dockyard.scorers._text import references

KINDS = ("rouge1", "rouge2", "rougeL", "rougeLsum")


class RougeOptions(Options, frozen=True):
    """``stem``: words are compared by Porter's stem. For ``rougeLsum`` each line is a sentence."""

    stem: bool = False


class Rouge(Mean):
    """From 0 to 1; of several references the best counts, for each metric by itself."""

    name: ClassVar[str] = "rouge"
    options = RougeOptions
    needs: frozenset[Need] = frozenset({"text", "reference"})

    def __init__(self, options: RougeOptions, means: Means) -> None:  # noqa: ARG002 - the protocol's
        try:
            from rouge_score.rouge_scorer import RougeScorer
        except ImportError:
            raise EngineUnavailable(
                "scorer 'rouge' needs rouge-score, which is not installed", hint="pip install 'dockyard[evaluate]'"
            ) from None
        from importlib.metadata import version

        self._scorer = RougeScorer(list(KINDS), use_stemmer=options.stem)
        signature = f"measure:f|stem:{'yes' if options.stem else 'no'}|rouge-score:{version('rouge-score')}"
        self.metrics = tuple(Metric(name=kind, signature=signature) for kind in KINDS)

    async def score(self, item: Item, answer: Answer) -> Score:
        found = self._scorer.score_multi(list(references(item)), answer.text)
        return Score(values={kind: (float(found[kind].fmeasure),) for kind in KINDS})


PLUGIN = Rouge
