"""``python -m benchmarks.mcp [group …]``; see ``make bars NAME=mcp``."""

from __future__ import annotations

import sys

from benchmarks._bars import main
from benchmarks.mcp import canaries, search

GROUPS = {
    "canaries": canaries.rows,
    "search": search.rows,
}

if __name__ == "__main__":
    sys.exit(main(GROUPS))
