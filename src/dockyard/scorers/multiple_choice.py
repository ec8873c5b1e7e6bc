"""Multiple choice: the choice that the model holds likeliest, by log-likelihood, is the right one."""

from __future__ import annotations

from typing import ClassVar

from dockyard.errors import InvalidRequest
from dockyard.scorers import Answer, Item, Mean, Means, Metric, Need, Options, Score


class ChoiceOptions(Options, frozen=True):
    """None."""


class MultipleChoice(Mean):
    """``acc``: by log-likelihood; ``acc_norm``: by log-likelihood a character of the choice, as
    lm-evaluation-harness has them. The first of equals is taken."""

    name: ClassVar[str] = "multiple-choice"
    options = ChoiceOptions
    needs: frozenset[Need] = frozenset({"likelihood"})
    metrics = (Metric(name="acc", kind="proportion"), Metric(name="acc_norm", kind="proportion"))

    def __init__(self, options: ChoiceOptions, means: Means) -> None:
        pass

    async def score(self, item: Item, answer: Answer) -> Score:
        if item.label is None or len(answer.likelihoods) != len(item.choices) or not item.choices:
            raise InvalidRequest(
                f"line {item.line} has no choices, or no label",
                param="choices",
                hint="the suite's `choices:` and `label:` name columns",
            )
        plain = [each.logprob for each in answer.likelihoods]
        by_length = [value / max(1, len(choice)) for value, choice in zip(plain, item.choices, strict=True)]
        return Score(
            values={
                "acc": (float(plain.index(max(plain)) == item.label),),
                "acc_norm": (float(by_length.index(max(by_length)) == item.label),),
            },
            note=item.choices[plain.index(max(plain))],
        )


PLUGIN = MultipleChoice
