"""From ``dockyard new`` to a passing test, for each starter, on a warm cache."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks._bars import Row
from benchmarks.usecases._home import warm
from dockyard import starters

SECONDS = 120.0


def rows() -> Iterator[Row]:
    with warm(code=True) as home:
        environment = {**os.environ, "DOCKYARD_HOME": str(home), "DOCKYARD_OFFLINE": "true"}
        for starter in starters.starters():
            folder = home.parent / starter.name
            begun = time.monotonic()
            new = [sys.executable, "-m", "dockyard", "new", starter.name, str(folder)]
            subprocess.run(new, check=True, capture_output=True, env=environment)
            test = [sys.executable, "-m", "unittest"]
            done = subprocess.run(test, cwd=folder, env=environment, capture_output=True, text=True)
            took = time.monotonic() - begun
            passed = done.returncode == 0
            told = f"{took:.1f} s, {'passed' if passed else 'FAILED: ' + done.stderr[-300:]}"
            yield Row(f"{starter.name}: new to a passing test", told, "< 120 s, passing", passed and took < SECONDS)
