"""Runs and comparisons as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dockyard.ops.evaluate.compare import Comparison
    from dockyard.ops.evaluate.result import Aggregate, Interval, Run
    from dockyard.ops.evaluate.statistics import Difference

_SPEED = (
    "throughput",
    "goodput",
    "ttft_p50",
    "ttft_p95",
    "tpot_p50",
    "tpot_p95",
    "memory_peak",
    "cpu_seconds",
    "joules",
)


def print_run(run: Run) -> None:
    """A run's figures, what could be told by it, and what failed."""
    from dockyard.cli._output import show_table

    digest = f" ({run.subject.digest[7:19]})" if run.subject.digest else ""
    count = "1 item" if len(run.records) == 1 else f"{len(run.records)} items"
    print(f"{run.suite} on {run.subject.name}{digest}: {count}, run {run.id}")
    rows = [
        (
            each.metric.name,
            "-" if each.value is None else figure(each.value),
            _interval(each.interval),
            each.n,
            each.errors,
            "-" if each.detectable is None else figure(each.detectable),
        )
        for each in run.aggregates
    ]
    show_table(("metric", "value", "95 % interval", "n", "errors", "detects"), rows)
    for line in _remarks(run):
        print(line)


def _remarks(run: Run) -> list[str]:
    lines = [f"{each.metric.name}: {each.metric.signature}" for each in run.aggregates if each.metric.signature]
    if run.errors:
        first = next(each for each in run.records if each.error)
        lines.append(f"{run.errors} of {len(run.records)} items got no answer and are in no figure: {first.error}")
    failed = [(each, name) for each in run.records for name in each.failures]
    if failed:
        record, name = failed[0]
        where = f"line {record.line}" if record.line else record.id
        lines.append(f"{len(failed)} scores could not be given; {where}, {name}: {record.failures[name]}")
    if run.performance:
        told = [f"{name} {figure(run.performance[name])}" for name in _SPEED if name in run.performance]
        lines.append(f"speed: {', '.join(told)}")
    seen = run.contamination
    lines.append(f"contamination: {seen.note or 'not checked'}")
    return lines


def print_comparison(compared: Comparison) -> None:
    """The second run against the first, metric by metric."""
    print(f"{compared.second.name} against {compared.first.name}, on {compared.suite}:")
    for each in compared.metrics:
        found = each.difference
        print(f"  {each.metric.name}: {each.why if found is None else words(found)}")
        if each.missing:
            print(f"    {each.missing} items were scored in one of the two only, and are left out")
    if compared.metrics and not compared.apart:
        print("  The two cannot be told apart by this suite.")


def words(found: Difference) -> str:
    """A difference in a sentence."""
    share = f", {found.relative:+.1%}" if found.relative is not None else ""
    told = (
        f"{figure(found.first)} → {figure(found.second)} ({found.difference:+.4g}{share}; {_interval(found.interval)})"
    )
    level = f"{found.interval.level:.0%}"
    if found.verdict != "no difference":
        return f"{found.verdict}: {told}, p = {found.p:.2g}, n = {found.n}"
    least = "" if found.detectable is None else f"; {figure(found.detectable)} would have been found"
    return f"cannot tell apart at {level}: {told}, n = {found.n}{least}"


def figure(value: float) -> str:
    """Four digits that count."""
    return f"{value:.4g}"


def _interval(found: Interval | None) -> str:
    return "-" if found is None else f"{figure(found.low)} to {figure(found.high)}"


def brief(aggregates: tuple[Aggregate, ...]) -> str:
    """A run's first figures on one line."""
    return ", ".join(
        f"{each.metric.name} {'-' if each.value is None else figure(each.value)}" for each in aggregates[:3]
    )
