"""A folder for a worker's temporary files that is removed however worker and gateway end.

The gateway holds a lock on it for as long as it lives; a folder that nobody locks was left by one that was killed, and
goes when the next worker starts.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

PREFIX = "dockyard-worker-"


class Scratch:
    """The folder ``path``, of mode 0700, until ``remove``."""

    def __init__(self) -> None:
        sweep()
        self.path = tempfile.mkdtemp(prefix=PREFIX)
        self._lock = os.open(self.path, os.O_RDONLY)
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    def remove(self) -> None:
        """Idempotent."""
        if self._lock >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1


def sweep() -> None:
    """Remove what killed gateways of this user left. Young folders are spared: they may not be locked yet."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            if path.stat().st_uid != os.geteuid() or not _old(path):
                continue
            lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except OSError:
            pass
        finally:
            os.close(lock)


def _old(path: Path, seconds: float = 10.0) -> bool:
    return time.time() - path.stat().st_mtime > seconds
