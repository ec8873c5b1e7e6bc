"""``python -m benchmarks.refit [group …]``; see ``make bars NAME=refit``. Each group trains or measures for minutes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import import_module

from benchmarks._bars import Row, main

GROUPS = {
    "quantisation": ("quantisation", "rows"),
    "gguf": ("quantisation", "gguf_rows"),
    "qat": ("quantisation", "trained_rows"),
    "quantised-speed": ("quantisation", "speed_rows"),
    "pruning": ("pruning", "rows"),
    "pruned-speed": ("pruning", "speed_rows"),
    "adapters": ("adapters", "rows"),
    "gate": ("gate", "rows"),
    "tuning": ("tuning", "rows"),
    "distilling": ("distilling", "rows"),
    "preferring": ("preferring", "rows"),
    "speed": ("speed", "rows"),
    "killed": ("killed", "rows"),
}


def _later(module: str, rows: str) -> Callable[[], Iterator[Row]]:
    """A group's rows; its libraries are imported when it is run."""
    return lambda: getattr(import_module(f"benchmarks.refit.{module}"), rows)()


if __name__ == "__main__":
    sys.exit(main({name: _later(*place) for name, place in GROUPS.items()}))
