"""What the metrics of sacrebleu share: its own counts for an item, its own score of their sums, its signature."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from dockyard.errors import EngineUnavailable, InvalidRequest
from dockyard.scorers import Answer, Item, Metric, Need, Score
from dockyard.scorers._text import references


class Sacre:
    """A corpus metric of sacrebleu. Statistics of an item are sacrebleu's (counts and lengths), so that sums of them
    score exactly as ``corpus_score`` of all items does."""

    name: ClassVar[str]
    needs: frozenset[Need] = frozenset({"text", "reference"})

    def __init__(self, metric: Callable[[Any], Any], *, better: Any = "higher") -> None:
        try:
            import sacrebleu.metrics
        except ImportError:
            raise EngineUnavailable(
                f"scorer {self.name!r} needs sacrebleu, which is not installed", hint="pip install 'dockyard[evaluate]'"
            ) from None
        try:
            self._metric = metric(sacrebleu.metrics)
        except (ValueError, AssertionError, TypeError, KeyError) as error:
            raise InvalidRequest(f"scorer {self.name!r}: sacrebleu knows no {error}", param="scorers") from error
        except (ImportError, RuntimeError) as error:
            raise EngineUnavailable(f"scorer {self.name!r}: {error}", hint="pip install what it names") from error
        self._better = better
        self._counts: set[int] = set()

    @property
    def metrics(self) -> tuple[Metric, ...]:
        self._metric.num_refs = self._counts.copy().pop() if len(self._counts) == 1 else -1
        signature = str(self._metric.get_signature())
        return (Metric(name=self.name, kind="corpus", better=self._better, signature=signature),)

    def begin(self, items: Sequence[Item]) -> None:
        self._counts = {len(item.references) for item in items}

    async def score(self, item: Item, answer: Answer) -> Score:
        right = references(item)
        (counted,) = self._metric._extract_corpus_statistics([answer.text], [[each] for each in right])
        return Score(values={self.name: tuple(float(value) for value in counted)})

    def combine(self, metric: str, sums: Sequence[float], n: int) -> float:  # noqa: ARG002 - the protocol's
        return float(self._metric._compute_score_from_stats(list(sums)).score)
