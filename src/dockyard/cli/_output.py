"""Printing: JSON, plain tables, sizes and times. Results go to stdout, everything else to stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any


def show_json(value: Any) -> None:
    """Anything msgspec can encode, indented, as one document."""
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def show_table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Left-aligned columns under upper-case titles; nothing is cut, so that output can be parsed."""
    lines = [[title.upper() for title in titles], *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(titles))]
    for line in lines:
        print("   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def note(text: str) -> None:
    """A line that is not the result."""
    print(text, file=sys.stderr, flush=True)


def size(count: int | float | None) -> str:
    """Bytes in decimal units, as disks and ``docker`` count: 98.4 MB."""
    if count is None:
        return "-"
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 99.95 else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.2f} TB"


def count(number: int | None) -> str:
    """Parameters as people say them: 134.5M."""
    if number is None:
        return "-"
    value = float(number)
    for unit in ("", "K", "M", "B"):
        if value < 1000:
            return f"{value:.0f}" if not unit else f"{value:.4g}{unit}"
        value /= 1000
    return f"{value:.4g}T"


def ago(moment: float | None, *, now: float | None = None) -> str:
    """How long ago a Unix time was: 5 minutes ago."""
    return "-" if moment is None else f"{span((now or time.time()) - moment)} ago"


def span(seconds: float) -> str:
    """A duration in its largest fitting unit."""
    seconds = max(0.0, seconds)
    for unit, length in (("week", 604800), ("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}s"
    return "1 second" if int(seconds) == 1 else f"{int(seconds)} seconds"
