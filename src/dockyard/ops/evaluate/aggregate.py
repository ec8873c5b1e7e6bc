"""From records to figures: a metric's value with its interval, its errors, and the difference that could be found."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import msgspec

from dockyard.ops.evaluate import statistics
from dockyard.ops.evaluate.result import Aggregate, Record
from dockyard.scorers import Metric, Scorer


def aggregates(records: Sequence[Record], built: Sequence[Scorer], seed: int) -> tuple[Aggregate, ...]:
    """Every metric of every scorer, over the items that it could score."""
    return tuple(_one(records, scorer, metric, seed) for scorer in built for metric in scorer.metrics)


def _one(records: Sequence[Record], scorer: Scorer, metric: Metric, seed: int) -> Aggregate:
    rows = [record.scores[metric.name] for record in records if metric.name in record.scores]
    blank = Aggregate(
        metric=metric, scorer=scorer.name, n=len(rows), errors=len(records) - len(rows), value=None, interval=None
    )
    if not rows:
        return blank
    combine = partial(scorer.combine, metric.name)
    value = combine([sum(column) for column in zip(*rows, strict=True)], len(rows))
    plain = metric.kind == "proportion" and all(row in ((0.0,), (1.0,)) for row in rows)
    interval = (
        statistics.wilson(sum(row[0] for row in rows), len(rows))
        if plain
        else statistics.bootstrap(rows, combine, seed=seed)
    )
    least = statistics.detectable(rows, combine, seed=seed)
    return msgspec.structs.replace(blank, value=value, interval=interval, detectable=least)
