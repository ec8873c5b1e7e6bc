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
                head = self._head()
                if self.path.exists() and self.path.stat().st_size >= self._most:
                    self._put_aside()
                line = json.dumps({"number": head.number + 1, "previous": head.hash, **facts}, ensure_ascii=True)
                with self.path.open("a") as file:
                    file.write(line + "\n")
                self._keep(_Head(head.number + 1, _hash(line)))
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
            for where, line in self._lines():
                try:
                    record: dict[str, Any] = json.loads(line)
                    here, before = int(record["number"]), str(record["previous"])
                except (ValueError, KeyError, TypeError):
                    return Verdict(lines=count, first=first, broken=f"{where} is no record")
                if not count:
                    first = here
                    if here == 1 and before != START:
                        return Verdict(lines=0, first=1, broken=f"{where} does not begin the log")
                elif (here, before) != (number + 1, hash_):
                    return Verdict(lines=count, first=first, broken=f"{where} does not follow line number {number}")
                number, hash_, count = here, _hash(line), count + 1
            head = self._head()
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

    def _put_aside(self) -> None:
        with self.path.open() as file:
            number = json.loads(file.readline())["number"]
        self.path.rename(self.path.with_name(f"audit-{number:012d}.jsonl"))

    def _head(self) -> _Head:
        try:
            return msgspec.json.decode(self._head_path.read_bytes(), type=_Head)
        except FileNotFoundError:
            return _Head()

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
            self._lock = FileLock(self.path.with_name("audit.lock"), timeout=5, thread_local=False)
        return self._lock


def _hash(line: str) -> str:
    return hashlib.sha256(line.encode()).hexdigest()
