"""``python -m benchmarks.foundation [group …]``; see ``make bars NAME=foundation``."""

from __future__ import annotations

import sys

from benchmarks._bars import main
from benchmarks.foundation import container, engine, failure, gateway, install, transfer

GROUPS = {
    "install": install.rows,
    "gateway": gateway.rows,
    "engine": engine.rows,
    "cold": engine.cold_rows,
    "transfer": transfer.rows,
    "interoperability": transfer.interoperability_rows,
    "killed": failure.killed_rows,
    "hang-ups": failure.hang_up_rows,
    "container": container.rows,
}

if __name__ == "__main__":
    sys.exit(main(GROUPS))
