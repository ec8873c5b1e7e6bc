"""A server's address for programs that speak HTTP only: the one that runs, or one that lasts as long as they do.

``python -m dockyard.cli._serving PARENT_PID PORT`` is the server that is started here: it stops when its parent is
gone, however that went.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dockyard.cli._connect import named_server
from dockyard.errors import ServerUnreachable

if TYPE_CHECKING:
    from dockyard.settings import Settings

START_SECONDS = 60.0
STOP_SECONDS = 30.0


@contextmanager
def served(settings: Settings, host: str | None) -> Iterator[tuple[str, str | None]]:
    """The URL and the key of the server that was named or runs on this home; else of one that ends with the block."""
    from dockyard.client import running

    if named := named_server(host):
        yield named.rstrip("/"), os.environ.get("DOCKYARD_API_KEY")
        return
    server = running(settings.home_path)
    if server is not None:
        yield server.url.rstrip("/"), server.token or None
        return
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    child = subprocess.Popen(
        [sys.executable, "-m", __name__, str(os.getpid()), str(port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until = time.monotonic() + START_SECONDS
        while (server := running(settings.home_path)) is None:
            if child.poll() is not None or time.monotonic() > until:
                raise ServerUnreachable("no server could be started here", hint="`dockyard serve` says why")
            time.sleep(0.05)
        yield server.url.rstrip("/"), server.token or None
    finally:
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _while_parent_lives(parent: str, port: str) -> None:
    from dockyard.cli import call
    from dockyard.engines._process import die_with_parent

    die_with_parent(int(parent), signal.SIGTERM)
    sys.exit(call(["serve", "--port", port]))


if __name__ == "__main__":
    _while_parent_lives(*sys.argv[1:])
