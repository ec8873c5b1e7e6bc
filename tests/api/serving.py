"""A real server in a process of its own, and raw connections to it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

PROGRAM = """
import sys, msgspec
from dockyard.api import server
from dockyard.settings import Settings
settings = msgspec.json.decode(sys.argv[1], type=Settings)
options = msgspec.json.decode(sys.argv[2])
server.serve(settings, ready=lambda url: print(url, flush=True), **options)
"""


class Serving:
    """A running server: its process, URL and log."""

    def __init__(self, process: subprocess.Popen[str], url: str, log: Path) -> None:
        self.process = process
        self.url = url
        self.log = log
        self.address = (urlsplit(url).hostname or "", urlsplit(url).port or 0)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=20)

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)


def command(settings: dict[str, object], **options: object) -> list[str]:
    return [
        sys.executable,
        "-W",
        "error",
        "-c",
        PROGRAM,
        *(msgspec.json.encode(one).decode() for one in (settings, options)),
    ]


@contextmanager
def serving(home: Path, *, options: dict[str, object] | None = None, **settings: object) -> Iterator[Serving]:
    """A server on a free port; it must end well when it is told to."""
    home.mkdir(parents=True, exist_ok=True)
    log = home / "stderr"
    arguments = command({"home": str(home), "port": 0, **settings}, **(options or {}))
    with log.open("w") as sink, subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=sink, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert url, log.read_text()
            found = Serving(process, url, log)
            yield found
            if process.poll() is None:
                assert found.stop() == 0, log.read_text()
        finally:
            if process.poll() is None:
                process.kill()


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def until(what: object, seconds: float = 10.0) -> None:
    """Wait until ``what()`` is true."""
    deadline = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
