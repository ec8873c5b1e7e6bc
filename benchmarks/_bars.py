"""Rows of a bar table: what was measured, what it must be, met or short; the run fails if any is short."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One line of the table. ``met`` None means: said, not barred."""

    what: str
    measured: str
    bar: str
    met: bool | None

    def line(self) -> str:
        word = {True: "met", False: "SHORT", None: "said"}[self.met]
        return f"{word:5}  {self.what}: {self.measured}  (bar: {self.bar})"


Group = Callable[[], Iterator[Row]]


def main(groups: Mapping[str, Group], argv: list[str] | None = None) -> int:
    """Run the groups named on the command line, or all; a group that breaks is short, with its reason."""
    parser = argparse.ArgumentParser(description="Measure against the bars.")
    parser.add_argument("group", nargs="*", choices=[*groups, []], help="which to run; all if none is named")
    names = parser.parse_args(argv).group or list(groups)
    short = 0
    for name in names:
        began = time.monotonic()
        try:
            for row in groups[name]():
                print(row.line(), flush=True)
                short += row.met is False
        except Exception as error:  # noqa: BLE001  a group that breaks must not hide the others
            traceback.print_exc(file=sys.stderr)
            print(Row(name, f"could not be measured: {error}", "to be measured", False).line(), flush=True)
            short += 1
        print(f"       [{name} took {time.monotonic() - began:.0f} s]", flush=True)
    print(f"{short} short" if short else "all bars met", flush=True)
    return 1 if short else 0


def median(values: list[float]) -> float:
    return statistics.median(values)


def spread(values: list[float], form: str = ".0f") -> str:
    """The median with its least and greatest: ``120 (98-131)``."""
    return f"{median(values):{form}} ({min(values):{form}}-{max(values):{form}})"
