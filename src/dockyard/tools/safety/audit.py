"""Who used what, in a file that shows when something was taken out of it or changed.

``<home>/mcp/audit.jsonl`` has a line a call; each line holds the hash of the one before it, across files that were put
aside when they were full (``audit-<number of the first line>.jsonl``). ``audit.head`` has the number and hash of the
last line, so that lines cut off at the end are missed too. Both are written in place, the line first, so that a process
that is killed between the two leaves a line that the next one counts. Who can write all these files can write a history
that fits together: to be safe from that, copy ``audit.head`` elsewhere now and then.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock, Timeout

from dockyard.types import Json

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

MOST_BYTES = 32 << 20
"""A file that is longer is put aside."""
START = "0" * 64
WAIT_SECONDS = 5.0
"""For other processes that write."""
HEAD_BYTES = 256
"""Of ``audit.head``, always: what is written over it leaves nothing of what was there."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """``lines`` that fit together, of which the first is number ``first``; ``broken`` says where they stop to."""

    lines: int
    first: int
    broken: str = ""


class _Head(msgspec.Struct):
    number: int = 0
    hash: str = START
    size: int = 0
    first: int = 1
    """Number of the first line of the file that is written now."""


class Audit:
    """The audit log of one home; several processes may write it. ``lost`` counts lines that could not be written."""

    def __init__(self, home: Path, most_bytes: int = MOST_BYTES) -> None:
        self.path = home / "mcp" / "audit.jsonl"
        self._head_path = self.path.with_name("audit.head")
        self.lost = 0
        self._most = most_bytes
        self._kept: tuple[tuple[int, ...], _Head] | None = None
        """The head that this process wrote last, and what its file looked like then."""
        self._lock: contextlib.AbstractContextManager[object] | None = None

    def write(self, facts: dict[str, Json]) -> None:
        """Add a line. A disk that is full stops no call: the line is lost, counted and told to the server's log."""
        try:
            with self._turn():
                head = self._mine() or self._mended(self._known())
                if head.size >= self._most:
                    self._put_aside(head)
                line = json.dumps({"number": head.number + 1, "previous": head.hash, **facts}, ensure_ascii=True)
                size = _append(self.path, head.size, line.encode() + b"\n")
                self._keep(_Head(head.number + 1, _hash(line), size, head.first))
        except (OSError, Timeout) as error:
            self.lost += 1
            log.error("a call could not be written into %s: %s", self.path, error)

    def read(self, last: int = 100) -> list[dict[str, Json]]:
        """The newest lines, oldest of them first."""
        lines: list[str] = []
        for path in reversed(self._files()):
            lines = [*path.read_text().splitlines(), *lines]
            if len(lines) >= last:
                break
        return [json.loads(line) for line in lines[-last:]]

    def verify(self) -> Verdict:
        """Read all of it and say whether it fits together."""
        number, hash_, first, count = 0, "", 0, 0
        with self._turn():
            try:
                start = self._mended(self._head()).first
            except msgspec.DecodeError as error:
                return Verdict(lines=0, first=0, broken=f"{self._head_path.name} is damaged: {error}")
            for where, line in self._lines():
                try:
                    record: dict[str, Any] = json.loads(line)
                    here, before = int(record["number"]), str(record["previous"])
                except (ValueError, KeyError, TypeError):
                    return Verdict(lines=count, first=first, broken=f"{where} is no record")
                if where == f"{self.path.name}:1" and here != start:
                    return Verdict(lines=count, first=first, broken=f"{where} is number {here}, and should be {start}")
                if not count:
                    first = here
                    if here == 1 and before != START:
                        return Verdict(lines=0, first=1, broken=f"{where} does not begin the log")
                elif (here, before) != (number + 1, hash_):
                    return Verdict(lines=count, first=first, broken=f"{where} does not follow line number {number}")
                number, hash_, count = here, _hash(line), count + 1
            head = self._mended(self._head())
        if (head.number, head.hash) != ((number, hash_) if count else (0, START)):
            return Verdict(lines=count, first=first, broken=f"it ends at number {number}, and should at {head.number}")
        return Verdict(lines=count, first=first)

    def _lines(self) -> Iterator[tuple[str, str]]:
        for path in self._files():
            with path.open() as file:
                for at, line in enumerate(file, 1):
                    yield f"{path.name}:{at}", line.rstrip("\n")

    def _files(self) -> list[Path]:
        """Oldest first."""
        aside = sorted(self.path.parent.glob("audit-*.jsonl"))
        return [*aside, self.path] if self.path.exists() else aside

    def _put_aside(self, head: _Head) -> None:
        self.path.rename(self._aside(head))
        head.first, head.size = head.number + 1, 0

    def _aside(self, head: _Head) -> Path:
        return self.path.with_name(f"audit-{head.first:012d}.jsonl")

    def _head(self) -> _Head:
        try:
            return msgspec.json.decode(self._head_path.read_bytes(), type=_Head)
        except FileNotFoundError:
            return _Head()

    def _mine(self) -> _Head | None:
        """The head that this process wrote, if nobody wrote since.

        Two writes in one tick of the file system's clock leave the same stamp; the second made the log longer.
        """
        try:
            if self._kept is None or _stamp(self._head_path.stat()) != self._kept[0]:
                return None
            head = self._kept[1]
            return head if self.path.stat().st_size == head.size else None
        except FileNotFoundError:
            return None

    def _known(self) -> _Head:
        """The head, or where that is damaged, one made of the last line: calls are written down all the same."""
        try:
            return self._head()
        except msgspec.DecodeError as error:
            log.error("%s is damaged and is made anew: %s", self._head_path, error)
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        try:
            last, first = json.loads(lines[-1]), json.loads(lines[0])
            return _Head(last["number"], _hash(lines[-1]), self.path.stat().st_size, first["number"])
        except (ValueError, KeyError, TypeError, IndexError):
            return _Head()

    def _mended(self, head: _Head) -> _Head:
        """The head with what a process may have done just before it died: a line written, or the file put aside."""
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            put_aside = self._aside(head).exists()
            return _Head(head.number, head.hash, 0, head.number + 1 if put_aside else head.first)
        if size == head.size:
            return head
        last = self.path.read_text().splitlines()[-1:]
        try:
            record = json.loads(last[0])
            if (record["number"], record["previous"]) == (head.number + 1, head.hash):
                return _Head(head.number + 1, _hash(last[0]), size, head.first)
        except (ValueError, KeyError, TypeError, IndexError):
            pass  # not ours: ``verify`` says so
        return _Head(head.number, head.hash, size, head.first)

    def _keep(self, head: _Head) -> None:
        descriptor = os.open(self._head_path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, msgspec.json.encode(head).ljust(HEAD_BYTES - 1) + b"\n")
            self._kept = (_stamp(os.fstat(descriptor)), head)
        finally:
            os.close(descriptor)

    def _turn(self) -> contextlib.AbstractContextManager[object]:
        if self._lock is None:
            path = self.path.with_name("audit.lock")
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = FileLock(path, timeout=WAIT_SECONDS) if fcntl is None else _Flock(path)
        return self._lock


class _Flock:
    """A lock between threads and processes whose file stays open: every call takes it, so it must cost nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = threading.Lock()
        self._file = -1

    def __enter__(self) -> None:
        end = time.monotonic() + WAIT_SECONDS
        if not self._threads.acquire(timeout=WAIT_SECONDS):
            raise Timeout(str(self._path))
        try:
            while not self._taken():
                if time.monotonic() > end:
                    raise Timeout(str(self._path))
                time.sleep(0.002)
        except BaseException:
            self._threads.release()
            raise

    def _taken(self) -> bool:
        if self._file < 0:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if os.fstat(self._file).st_nlink:
            return True
        os.close(self._file)  # the file was taken away, and others may lock another by now
        self._file = -1
        return False

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)
        self._threads.release()

    def __del__(self) -> None:
        if self._file >= 0:
            os.close(self._file)


def _append(path: Path, size: int, line: bytes) -> int:
    """The file's new size. A line that does not fit on the disk is taken back, so that the next does not follow it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        if os.write(descriptor, line) != len(line):
            os.ftruncate(descriptor, size)
            raise OSError(f"there is no room for a line of {len(line)} bytes")
    finally:
        os.close(descriptor)
    return size + len(line)


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def _hash(line: str) -> str:
    return hashlib.sha256(line.encode()).hexdigest()
