"""Two runs of one suite, item by item: what can be said of the second against the first."""

from __future__ import annotations

import msgspec

from dockyard import scorers
from dockyard.errors import DockyardError, InvalidRequest
from dockyard.ops.evaluate import statistics
from dockyard.ops.evaluate.few import widened
from dockyard.ops.evaluate.result import Record, Run, Subject
from dockyard.ops.evaluate.statistics import COMPARED, Difference
from dockyard.scorers import Chosen, Metric


class Compared(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One metric of both runs. ``difference`` is over the items that both could score; ``missing`` were scored in one
    of the two only, and are in neither value. Where there is no difference ``why`` says so."""

    metric: Metric
    scorer: str
    difference: Difference | None = None
    missing: int = 0
    why: str = ""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A second run against a first. ``errors`` counts items without an answer, in the first and in the second."""

    suite: str
    first: Subject
    second: Subject
    metrics: tuple[Compared, ...]
    errors: tuple[int, int]

    @property
    def apart(self) -> bool:
        """Whether any metric tells the two apart."""
        return any(each.difference and each.difference.verdict != "no difference" for each in self.metrics)


def compare(first: Run, second: Run, *, level: float = COMPARED, seed: int = 0) -> Comparison:
    """Pair the items of two runs and compare each metric of the second with the first's.

    Raises InvalidRequest where the runs are not of one suite: other items, or other scorers, are another measure.
    """
    if first.suite_digest != second.suite_digest or first.data_digest != second.data_digest:
        raise InvalidRequest(
            f"runs {first.id} and {second.id} are of different suites or data: {first.suite} and {second.suite}",
            hint="run the same suite on both models",
        )
    chosen = {each.name.replace("_", "-"): each for each in second.scorers}
    before = {each.metric.name: each for each in first.aggregates}
    compared = []
    for each in second.aggregates:
        if each.metric.name not in before:
            compared.append(Compared(metric=each.metric, scorer=each.scorer, why="the first run does not have it"))
            continue
        compared.append(_metric(first, second, each.metric, each.scorer, chosen, level, seed))
    return Comparison(
        suite=second.suite,
        first=first.subject,
        second=second.subject,
        metrics=tuple(compared),
        errors=(first.errors, second.errors),
    )


def _metric(
    first: Run, second: Run, metric: Metric, scorer: str, chosen: dict[str, Chosen], level: float, seed: int
) -> Compared:
    one, two = _scored(first, metric.name), _scored(second, metric.name)
    both = [key for key in one if key in two]
    missing = len(one.keys() ^ two.keys())
    if not both:
        return Compared(metric=metric, scorer=scorer, missing=missing, why="no item was scored in both runs")
    try:
        built = scorers.build(chosen.get(scorer.replace("_", "-")) or Chosen(name=scorer))
    except DockyardError as error:
        return Compared(metric=metric, scorer=scorer, missing=missing, why=error.message)
    before, after = [one[key] for key in both], [two[key] for key in both]
    difference = statistics.paired(
        before,
        after,
        lambda sums, n: built.combine(metric.name, sums, n),
        better=metric.better,
        level=level,
        seed=seed,
    )
    difference = widened(difference, metric, before, after)
    return Compared(metric=metric, scorer=scorer, difference=difference, missing=missing)


def _scored(run: Run, metric: str) -> dict[tuple[str, str], tuple[float, ...]]:
    """The statistics of one metric by what was asked, in the order of the data."""
    return {_key(each): each.scores[metric] for each in run.records if metric in each.scores}


def _key(record: Record) -> tuple[str, str]:
    return record.id, record.input
