"""The page of figures and its chart are what the measurements in docs/performance.json come to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_the_page_is_made_from_the_figures() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/performance.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
