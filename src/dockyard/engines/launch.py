"""Starting worker processes: at once, or ahead of the need.

A ``spare`` is a worker that waits for its first order. ``dockyard serve --model`` starts one before it imports anything
heavy, so that worker and gateway get ready side by side.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from dockyard.engines.scratch import Scratch


class Launched(NamedTuple):
    """A worker, the gateway's end of its socket, and its folder for temporary files."""

    process: subprocess.Popen[bytes]
    connection: socket.socket
    scratch: Scratch


_spares: list[Launched] = []


def launch(log: Path | None, engine: str = "") -> Launched:
    """Spawned, not forked, from the thread of the event loop: the kernel ties the worker's life to that thread.

    Output goes to ``log``; without one it goes nowhere until ``Load`` names the file. ``engine`` is imported ahead.
    Raises OSError.
    """
    ours, theirs = socket.socketpair()
    scratch = Scratch()
    try:
        with contextlib.closing(theirs):
            return Launched(_popen(theirs, log, scratch.path, engine), ours, scratch)
    except BaseException:
        ours.close()
        scratch.remove()
        raise


def prepare(engine: str) -> None:
    """Start a spare that expects to load with ``engine``, from the thread that will run the event loop.

    Where that fails, ``launch`` will tell.
    """
    with contextlib.suppress(OSError):
        _spares.append(launch(None, engine))


def take() -> Launched | None:
    """The spare, if there is a live one."""
    while _spares:
        spare = _spares.pop()
        if spare.process.poll() is None:
            return spare
        _discard(spare)
    return None


def discard() -> None:
    """End a spare that nobody took."""
    while _spares:
        _discard(_spares.pop())


def _discard(spare: Launched) -> None:
    spare.connection.close()
    spare.process.kill()
    spare.process.wait()
    spare.scratch.remove()


def _popen(connection: socket.socket, log: Path | None, scratch: str, engine: str) -> subprocess.Popen[bytes]:
    output = os.open(os.devnull, os.O_WRONLY) if log is None else open_log(log)
    descriptor = connection.fileno()
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "dockyard.engines.worker", str(descriptor), str(os.getpid()), engine],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(descriptor,),
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "TMPDIR": scratch},
        )
    finally:
        os.close(output)


def open_log(path: Path) -> int:
    """A descriptor that appends to a worker's log."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
