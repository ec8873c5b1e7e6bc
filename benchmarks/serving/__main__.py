"""``python -m benchmarks.serving [group …]``; see ``make bars NAME=serving``."""

from __future__ import annotations

import sys

from benchmarks._bars import main
from benchmarks.serving import adapters, batch, fleet, latency, throughput

GROUPS = {
    "same": throughput.same_rows,
    "busy": throughput.busy_rows,
    "best": throughput.best_rows,
    "vllm": throughput.vllm_rows,
    "prefix": latency.prefix_rows,
    "adapters": adapters.rows,
    "fleet": fleet.rows,
    "batch": batch.rows,
    "schemas": latency.schema_rows,
}

if __name__ == "__main__":
    sys.exit(main(GROUPS))
