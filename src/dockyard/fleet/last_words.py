"""What a dead worker's status and log tell of its end."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from dockyard.errors import LoadFailed, UnsupportedFormat, WorkerCrashed
from dockyard.fleet.runner import Exit

TAIL_LINES = 20
_UNKNOWN = "unknown model architecture"
"""llama.cpp's words for a model that is whole and not of its kind: no failure of the server."""


def tail(path: Path, lines: int = TAIL_LINES, *, start: int = 0) -> list[str]:
    """The last lines of a log file, at most a few kilobytes of it; none if there is no file.

    ``start`` is where this worker's own output begins; a file shorter than that was begun afresh since.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start if start <= size else 0, size - 8192))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-lines:]


def how_it_ended(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"


def explained(error: LoadFailed, log: list[str]) -> LoadFailed | UnsupportedFormat:
    """Native code throws little and logs much: its first line about an error says what the trouble is."""
    found = (line.partition(" E ")[2] for line in log if " E " in line)
    first = next(found, None)
    if first and _UNKNOWN in first:
        hint = "a newer version of the engine may know it; `dockyard explain` says which engines there are"
        return UnsupportedFormat(f"{error.message}: {first.strip()}", hint=hint)
    return LoadFailed(f"{error.message}: {first.strip()}", hint=error.hint) if first else error


def trouble(ended: Exit) -> list[str]:
    """What it logged that may explain its end: lines of news, as of each load, do not."""
    return [line for line in ended.log_tail if " INFO " not in line[:40]]


def _last_words(ended: Exit) -> str:
    words = trouble(ended)
    return f"; its last words: {words[-1]}" if words else ""


def load_failure(reference: str, ended: Exit) -> LoadFailed:
    last = _last_words(ended)
    hint = "`dockyard logs` shows what it said"
    if ended.reason == "killed by SIGKILL":
        hint = "the system may have run out of memory; a smaller context or fewer parallel requests need less"
    return LoadFailed(f"the worker of {reference} died while loading ({ended.reason}){last}", hint=hint)


def crash(reference: str, ended: Exit) -> WorkerCrashed:
    """For requests that a worker took along."""
    last = _last_words(ended)
    return WorkerCrashed(
        f"the worker of {reference} died ({ended.reason}){last}",
        hint="try again: the model is loaded anew; `dockyard logs` shows what it said",
        retry_after=1.0,
    )
