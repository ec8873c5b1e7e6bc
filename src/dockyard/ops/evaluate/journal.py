"""A run under way, item by item in a file, so that one that is killed goes on where it was.

The first line says which run it is; each other line is a finished item, written in one piece when it is scored. A line
that was cut when the machine stopped is dropped. Who writes holds a lock, so that two runs don't write the same file.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from dockyard.errors import Conflict
from dockyard.ops.evaluate.result import Record


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """Whose items follow, and when the run began (Unix seconds)."""

    id: str
    began: float


class Journal:
    """An open journal: what is finished by item id, and a place to add more."""

    def __init__(self, path: Path, descriptor: int, began: float, finished: dict[str, Record]) -> None:
        self.path = path
        self.began = began
        self.finished = finished
        self._descriptor = descriptor

    def add(self, record: Record) -> None:
        """Write a finished item; from here on a kill does not lose it."""
        os.write(self._descriptor, msgspec.json.encode(record) + b"\n")
        self.finished[record.id] = record

    def remove(self) -> None:
        """The run is kept elsewhere."""
        self.path.unlink(missing_ok=True)


@contextmanager
def journal(path: Path, head: Head) -> Iterator[Journal]:
    """Open the journal of a run, or begin it. Raises Conflict where another process is at it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_suffix(".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Conflict(f"run {head.id} is under way in another process", hint="wait for it, or stop it") from None
    try:
        began, finished, good = _read(path, head)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.ftruncate(descriptor, good)
            if not good:
                os.write(descriptor, msgspec.json.encode(msgspec.structs.replace(head, began=began)) + b"\n")
            yield Journal(path, descriptor, began, finished)
        finally:
            os.close(descriptor)
    finally:
        lock.release()


def _read(path: Path, head: Head) -> tuple[float, dict[str, Record], int]:
    """When it began, its finished items, and how many bytes are whole lines of this run."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return head.began, {}, 0
    lines = data.split(b"\n")[:-1]
    try:
        first = msgspec.json.decode(lines[0], type=Head) if lines else None
    except msgspec.DecodeError:
        first = None
    if first is None or first.id != head.id:
        return head.began, {}, 0
    finished: dict[str, Record] = {}
    good = len(lines[0]) + 1
    for line in lines[1:]:
        try:
            record = msgspec.json.decode(line, type=Record)
        except msgspec.DecodeError:
            break
        finished[record.id] = record
        good += len(line) + 1
    return first.began, finished, good
