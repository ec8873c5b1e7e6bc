"""The protocol's own conformance suite against the gateway, for both revisions, with servers of both eras behind it.

The server behind is the one that the tests use (``tests/tools_gateway/everything.py``): the suite calls tools by name.
A server of the older era names the newest revision's questions otherwise, so that cell is not the suite's to try; the
tests try all four.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from benchmarks._bars import Row, main
from benchmarks.mcp._npm import NODE, installed
from benchmarks.mcp._serving import ROOT, program

SUITE = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
REQUIRED = {"2025-11-25": 30, "2026-07-28": 37}
CELLS = (("modern", "2025-11-25"), ("modern", "2026-07-28"), ("legacy", "2025-11-25"))


def rows() -> Iterator[Row]:
    modules = installed("conformance", SUITE, NODE)
    suite = [
        str(modules / "node" / "bin" / "node"),
        str(modules / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"),
    ]
    gateway = ROOT / "tests" / "tools_gateway" / "conformance_gateway.py"
    for era, revision in CELLS:
        with program(str(gateway), era) as (_, url), tempfile.TemporaryDirectory() as folder:
            command = [*suite, "server", "--url", f"{url}/mcp", "--requirements", revision, "-o", folder]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        summary = done.stdout.partition("=== SUMMARY ===")[2].partition("Total:")[0]
        passed = len(re.findall(r"^✓", summary, re.M))
        failed = re.findall(r"^✗ (\S+)", summary, re.M)
        told = f"{passed} of {REQUIRED[revision]} passed" + (f", failed: {', '.join(failed)}" if failed else "")
        yield Row(
            f"conformance {revision} before a {era} server",
            told,
            "all required",
            done.returncode == 0 and passed >= REQUIRED[revision],
        )


if __name__ == "__main__":
    sys.exit(main({"conformance": rows}))
