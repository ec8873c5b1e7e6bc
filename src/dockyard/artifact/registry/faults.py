"""Faults that the in-memory registry commits on demand: answers of 503, bodies cut short, slow lines."""

from __future__ import annotations

import re
import threading

import msgspec


class Fault(msgspec.Struct, kw_only=True):
    """What goes wrong, how often, and for which requests (a regular expression over method and path).

    ``status`` answers with it (and ``retry_after`` seconds); ``cut`` ends the connection after so many bytes of the
    body, of a request that sends one or of an answer; ``spoil`` flips a byte of the answer at that place; ``delay``
    waits that many seconds first. ``skip`` lets so many matching requests pass before.
    """

    match: str = ""
    times: int = 1
    skip: int = 0
    status: int | None = None
    retry_after: float | None = None
    cut: int | None = None
    spoil: int | None = None
    delay: float = 0.0


class Faults:
    """The list of faults to come; threads share it."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._waiting.append(fault)

    def take(self, request: str) -> Fault | None:
        """The first fault that this request meets, used up by one."""
        with self._lock:
            for fault in self._waiting:
                if fault.times < 1 or not re.search(fault.match, request):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None

    def clear(self) -> None:
        with self._lock:
            self._waiting.clear()
