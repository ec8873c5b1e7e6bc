"""Packages of npm that rows need, installed once beside the other peers."""

from __future__ import annotations

import subprocess
from pathlib import Path

from filelock import FileLock

from benchmarks._peers import PEERS

NODE = "node@22"
"""The conformance suite needs a newer one than systems have."""


def installed(name: str, *packages: str) -> Path:
    """The folder ``node_modules`` that has these packages."""
    home = PEERS / f"npm-{name}"
    home.mkdir(parents=True, exist_ok=True)
    stamp = home / "installed"
    with FileLock(home / "lock"):
        if not stamp.exists() or stamp.read_text() != " ".join(packages):
            command = ["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(home), *packages]
            subprocess.run(command, check=True, timeout=400)
            stamp.write_text(" ".join(packages))
    return home / "node_modules"
