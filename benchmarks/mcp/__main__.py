"""``python -m benchmarks.mcp [group …]``; see ``make bars NAME=mcp``."""

from __future__ import annotations

import sys

from benchmarks._bars import main
from benchmarks.mcp import canaries, conformance, kills, overhead, real, responses, search

GROUPS = {
    "conformance": conformance.rows,
    "overhead": overhead.rows,
    "kills": kills.rows,
    "canaries": canaries.rows,
    "real": real.rows,
    "responses": responses.rows,
    "search": search.rows,
}

if __name__ == "__main__":
    sys.exit(main(GROUPS))
