"""A run as a page for people. Pure; what came from models or data is escaped."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Sequence

from dockyard.ops.evaluate.result import Aggregate, Run
from dockyard.types import Json

SHOWN = 10
"""Failed items that are told one by one."""


def markdown(run: Run) -> str:
    """The page. The same run gives the same text."""
    parts = [
        f"# {text(run.suite)}: {text(run.subject.name)}",
        _about(run),
        "## Figures",
        figures(run.aggregates),
        _performance(run),
        _failures(run),
        "## How it was measured",
        _how(run),
        _contamination(run),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def figures(aggregates: Sequence[Aggregate]) -> str:
    """A table of metrics with their intervals."""
    rows = []
    for each in aggregates:
        within = "-"
        if each.interval is not None:
            within = f"{number(each.interval.low)} to {number(each.interval.high)} ({each.interval.level:.0%})"
        better = "↑" if each.metric.better == "higher" else "↓"
        found = number(each.detectable) if each.detectable is not None else "-"
        rows.append((f"{each.metric.name} {better}", number(each.value), within, each.n, each.errors, found))
    return table(("metric", "value", "interval", "items", "errors", "least difference found"), rows)


def table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; cells are escaped."""
    lines = ["| " + " | ".join(map(text, row)) + " |" for row in (titles, *rows)]
    return "\n".join([lines[0], "|" + " --- |" * len(titles), *lines[1:]])


def number(value: float | None) -> str:
    """Four significant digits; "-" for none."""
    return "-" if value is None else f"{value:.4g}"


def text(value: object) -> str:
    """On one line, and nothing of it read as Markdown or HTML."""
    flat = " ".join(str(value).split())
    for char in "\\`*_[]<>|#":
        flat = flat.replace(char, "\\" + char)
    return flat


def _about(run: Run) -> str:
    day = datetime.datetime.fromtimestamp(run.began, datetime.UTC).date().isoformat() if run.began else "an unknown day"
    digest = f"`{run.subject.digest}`" if run.subject.digest else "an artifact that the server did not name"
    engine = f", served by {text(run.subject.engine)}" if run.subject.engine else ""
    return (
        f"{text(run.subject.name)} ({digest}){engine}, on {day}: {len(run.records)} items, {run.errors} without an "
        f"answer, in {run.seconds:.0f} s. Run `{run.id}`."
    )


def _performance(run: Run) -> str:
    rows = [(name, _told(value)) for name, value in run.performance.items()]
    return "## Speed\n\n" + table(("what", "value"), rows) if rows else ""


def _told(value: Json) -> str:
    """A figure, or several by name."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_told(one)}" for name, one in value.items() if one not in (None, [], {}, ""))
    if isinstance(value, list):
        return ", ".join(map(_told, value))
    return number(value) if isinstance(value, float) else str(value)


def _failures(run: Run) -> str:
    failed = [(each.id, each.error or "; ".join(each.failures.values())) for each in run.records
              if each.error or each.failures]  # fmt: skip
    if not failed:
        return ""
    more = f"\n\n… and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
    lines = "\n".join(f"- {text(id)}: {text(why)[:300]}" for id, why in failed[:SHOWN])
    return f"## Items that failed\n\nThey are counted above, and in no figure.\n\n{lines}{more}"


def _how(run: Run) -> str:
    rows: list[tuple[str, object]] = [
        ("suite", run.suite_digest),
        ("data", run.data_digest),
        ("seed", run.seed),
        *((f"parameter {name}", value) for name, value in sorted(run.parameters.items())),
        *(
            (f"signature of {each.metric.name}", each.metric.signature)
            for each in run.aggregates
            if each.metric.signature
        ),
        *((name, _told(value)) for name, value in sorted(run.environment.items())),
    ]
    return table(("what", "value"), rows)


def _contamination(run: Run) -> str:
    found = run.contamination
    if not (found.checked or found.note or found.items):
        return "Whether the model has seen these items was not checked."
    told = f"Compared with {', '.join(map(text, found.checked))}: {len(found.items)} items were found there." \
        if found.checked else ""  # fmt: skip
    return " ".join(part for part in (told, text(found.note)) if part)
