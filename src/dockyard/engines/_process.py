"""What a worker process asks of the operating system: die with the parent, resident size, a log that stays short."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from pathlib import Path

LOG_BYTES = 8 << 20
"""A log file longer than this is renamed to ``<name>.1``, and a fresh one begun."""

_PR_SET_PDEATHSIG = 1
_PAGE = os.sysconf("SC_PAGE_SIZE")


def die_with_parent(parent: int, by: signal.Signals = signal.SIGKILL) -> None:
    """Have the kernel kill this process when the thread that started it ends; end now if ``parent`` is gone already.

    Only Linux can do that; elsewhere the closed socket is what ends a worker.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, by, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def die_first() -> None:
    """Where memory runs out after all, the kernel should take a worker, which can be restarted, not the gateway."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")


def resident(pid: int) -> int:
    """Resident bytes of a process and its children; 0 for what has ended."""
    if sys.platform != "linux":
        import psutil

        return int(psutil.Process(pid).memory_info().rss)
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, IndexError):
        return 0
    return pages * _PAGE + sum(resident(int(child)) for child in children)


def tell(text: str) -> None:
    """A line of news for the worker's log, in the form of the server's own. Never anything of a prompt or an answer."""
    now = time.time()
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    print(f"{moment},{int(now % 1 * 1000):03d} INFO {text}", file=sys.stderr, flush=True)


def rotate_output(limit: int = LOG_BYTES) -> None:
    """If standard output is a file that grew beyond ``limit``, keep it as ``<name>.1`` and go on in a fresh one.

    Native code writes to the descriptors directly, so the descriptors are what is exchanged.
    """
    if os.fstat(1).st_size <= limit:
        return
    path = Path("/proc/self/fd/1").resolve()
    if not path.is_file():
        return
    path.replace(path.with_name(path.name + ".1"))
    send_output(path)


def send_output(path: Path) -> None:
    """Append standard output and errors to a file from now on, those of native code too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(fresh, 1)
    os.dup2(fresh, 2)
    os.close(fresh)
