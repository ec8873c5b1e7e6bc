"""``python -m benchmarks.usecases [group …]``; see ``make bars NAME=usecases``."""

from __future__ import annotations

import sys

from benchmarks._bars import main
from benchmarks.usecases import prompting, starters

GROUPS = {
    "starters": starters.rows,
    "prompting": prompting.rows,
    "optimizer": prompting.optimizer_rows,
}

if __name__ == "__main__":
    sys.exit(main(GROUPS))
