"""Runs a command, and ends it and every process that it begot when standard input ends.

vLLM is three processes and more, and those below the first live on when it is killed. This one adopts what is orphaned
below it, so it finds them all. Run by its path, by an interpreter that needs nothing of Dockyard.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

_SUBREAPER = 36
SECONDS = 10.0


def descendants(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def end_all() -> None:
    """Kill until nothing is left; what is killed leaves its children to us."""
    deadline = time.monotonic() + SECONDS
    while (left := descendants(os.getpid())) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.02)


def main(command: list[str]) -> int:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the end of standard input is the one signal
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    ended = threading.Event()

    def listen() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1024):
                pass
        ended.set()

    threading.Thread(target=listen, daemon=True).start()
    while not ended.wait(0.1):
        if child.poll() is not None:
            break
    status = child.poll()
    end_all()
    return 0 if status is None else (status if status >= 0 else 128 - status)


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
