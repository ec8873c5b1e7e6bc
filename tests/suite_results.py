"""Which of other people's clients and suites passed here: ``scripts/compatibility.py`` puts it on a page."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from filelock import FileLock

SUITES = Path(sys.prefix) / "client-suites"


def note(name: str, version: str, result: str) -> None:
    """A suite passed: its name, version, and how much of it."""
    SUITES.mkdir(parents=True, exist_ok=True)
    with FileLock(SUITES / "results.lock"):
        path = SUITES / "results.json"
        found = json.loads(path.read_text()) if path.exists() else {}
        found[name] = {"version": version, "result": result}
        path.write_text(json.dumps(found, indent=1, sort_keys=True))


def node_version(folder: Path, package: str) -> str:
    """The version of a Node package installed in ``folder``."""
    found: str = json.loads((folder / "node_modules" / package / "package.json").read_text())["version"]
    return found
