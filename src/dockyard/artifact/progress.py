"""News of a transfer, thinned out: at most ten reports a second for one item, but always the first and the last."""

from __future__ import annotations

import threading
import time
from typing import Literal

from dockyard.types import OnProgress, Progress

INTERVAL = 0.1


class Meter:
    """Passes progress on to a callback that may be None; any thread may use it. What the callback raises comes out."""

    def __init__(self, on_progress: OnProgress | None, action: Literal["pull", "push", "pack"]) -> None:
        self._on_progress = on_progress
        self._action = action
        self._last: dict[str, float] = {}
        self._ended: set[str] = set()
        self._lock = threading.Lock()

    def bytes(self, item: str, current: int, total: int) -> None:
        """``item`` (a digest or a file's name) is at ``current`` of ``total`` bytes."""
        if self._on_progress is None:
            return
        now = time.monotonic()
        with self._lock:
            ended = current >= total
            if item in self._ended and ended:
                return
            if not ended and now - self._last.get(item, -INTERVAL) < INTERVAL:
                return
            self._last[item] = now
            if ended:
                self._ended.add(item)
        self._on_progress(Progress(action=self._action, item=item, total=total, current=current))

    def note(self, message: str) -> None:
        """A sentence for the reader."""
        if self._on_progress is not None:
            self._on_progress(Progress(action="note", message=message))

    def beat(self) -> None:
        """Give the callback a chance to cancel while something runs that can't tell how far it is."""
        if self._on_progress is not None:
            self._on_progress(Progress(action=self._action))
