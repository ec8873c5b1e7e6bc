"""Runs of a suite that nobody had to wait for: item by item right or wrong."""

from __future__ import annotations

from collections.abc import Sequence

from dockyard.ops.evaluate import statistics
from dockyard.ops.evaluate.result import Aggregate, Record, Run, Subject, digest_of
from dockyard.scorers import Answer, Chosen, Metric

EXACT = Metric(name="exact_match", kind="proportion")


def run_of(digest: str | None, right: Sequence[bool | None], *, suite: str = "qa", at: float = 1e9) -> Run:
    """A run whose items were answered right, wrong, or (None) not at all."""
    records, rows = [], []
    for number, each in enumerate(right):
        asked = digest_of([suite, number])
        if each is None:
            records.append(Record(id=f"q{number}", input=asked, error="the endpoint failed"))
            continue
        rows.append((float(each),))
        records.append(Record(id=f"q{number}", input=asked, answer=Answer(text="x"), scores={"exact_match": rows[-1]}))
    errors = sum(each is None for each in right)
    interval = statistics.wilson(sum(row[0] for row in rows), len(rows)) if rows else None
    value = sum(row[0] for row in rows) / len(rows) if rows else None
    return Run(
        id=digest_of([digest, suite, at])[7:19],
        suite=suite,
        suite_digest=digest_of(suite),
        data_digest=digest_of([suite, "data"]),
        subject=Subject(name="tiny", digest=digest, engine="echo"),
        scorers=(Chosen(name="exact-match"),),
        parameters={"temperature": 0},
        seed=1,
        records=tuple(records),
        aggregates=(
            Aggregate(metric=EXACT, scorer="exact-match", value=value, interval=interval, n=len(rows), errors=errors),
        ),
        errors=errors,
        began=at,
        seconds=3.0,
        performance={"ttft_p95": 0.2},
    )


def share(right: int, of: int) -> list[bool]:
    """So many right of so many, spread evenly."""
    return [(number * right) // of != ((number + 1) * right) // of for number in range(of)]
