"""The container's bars are the suite's container tests, run for real; their figures are taken from what they print."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator

from benchmarks._bars import Row


def rows() -> Iterator[Row]:
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-s", "-p", "no:cacheprovider", "tests/container"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500)
    for what, figure in re.findall(r"^(image|compose up to healthy): (.+)$", done.stdout, re.MULTILINE):
        yield Row(what, figure, "said", None)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr[-300:]
    passed = done.returncode == 0 and "skipped" not in last
    what = "compose up to a streamed answer; 512 MB refuses what does not fit, and is not killed"
    yield Row(what, last, "all pass, none skipped", passed)
