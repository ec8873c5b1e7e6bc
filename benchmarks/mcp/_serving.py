"""A Dockyard server in a process of its own, with profiles made for a row."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from dockyard.tools.model import Profile
from dockyard.tools.profiles import Profiles

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys, msgspec
from dockyard.api import server
from dockyard.settings import Settings
server.serve(msgspec.json.decode(sys.argv[1], type=Settings), ready=lambda url: print(url, flush=True))
"""


@contextlib.contextmanager
def program(*command: str, **environ: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A program, and the line that it prints when it is ready; it is told to end, and made to if it does not."""
    given = {**os.environ, "PYTHONPATH": str(ROOT), **environ}
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True, env=given) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline().strip()
            assert line, f"{command[:3]} did not start"
            yield process, line
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.contextmanager
def dockyard(home: Path, *profiles: Profile, **settings: Any) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server with these profiles on a free port: its process and its address."""
    home.mkdir(parents=True, exist_ok=True)
    for profile in profiles:
        Profiles(home).put(profile)
    given = {"home": str(home), "port": 0, "log_level": "warning", **settings}
    with program("-c", PROGRAM, msgspec.json.encode(given).decode(), DOCKYARD_HOME=str(home)) as found:
        yield found
