"""Who used what, in a file that shows when something was taken out of it or changed.

``<home>/mcp/audit.jsonl`` has a line a call; each line holds the hash of the one before it, across files that were put
aside when they were full (``audit-<number of the first line>.jsonl``). ``audit.head`` has the number and hash of the
last line, so that lines cut off at the end are missed too. Who can write all these files can write a history that fits
together: to be safe from that, copy ``audit.head`` elsewhere now and then.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock, Timeout

from dockyard.types import Json

log = logging.getLogger(__name__)

MOST_BYTES = 32 << 20
"""A file that is longer is put aside."""
START = "0" * 64


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
        self.lost = 0
        self._most = most_bytes
        self._lock: FileLock | None = None

    def write(self, facts: dict[str, Json]) -> None:
        """Add a line. A disk that is full stops no call: the line is lost, counted and told to the server's log."""
        try:
            with self._turn():
                head = self._mended(self._head())
                if head.size >= self._most:
                    self._put_aside(head)
                line = json.dumps({"number": head.number + 1, "previous": head.hash, **facts}, ensure_ascii=True)
                with self.path.open("a") as file:
                    file.write(line + "\n")
                    file.flush()
                    size = os.fstat(file.fileno()).st_size
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
            start = self._mended(self._head()).first
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
        head.first = head.number + 1

    def _aside(self, head: _Head) -> Path:
        return self.path.with_name(f"audit-{head.first:012d}.jsonl")

    def _head(self) -> _Head:
        try:
            return msgspec.json.decode(self._head_path.read_bytes(), type=_Head)
        except FileNotFoundError:
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
        part = self._head_path.with_suffix(".part")
        part.write_bytes(msgspec.json.encode(head))
        part.replace(self._head_path)

    @property
    def _head_path(self) -> Path:
        return self.path.with_name("audit.head")

    def _turn(self) -> FileLock:
        if self._lock is None:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = FileLock(self.path.with_name("audit.lock"), timeout=5)
        return self._lock


def _hash(line: str) -> str:
    return hashlib.sha256(line.encode()).hexdigest()
