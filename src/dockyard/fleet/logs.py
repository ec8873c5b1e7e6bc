"""What workers wrote: the last lines of their log files, and new lines as they come."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO

BLOCK = 1 << 16


def tail(path: Path, lines: int) -> list[str]:
    """The last ``lines`` lines of a file; none if there is no such file."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            data = b""
            while end > 0 and data.count(b"\n") <= lines:
                begin = max(0, end - BLOCK)
                file.seek(begin)
                data = file.read(end - begin) + data
                end = begin
    except OSError:
        return []
    return [line.decode(errors="replace") for line in data.splitlines()[-lines:]] if lines > 0 else []


async def follow(sources: Callable[[], Mapping[Path, str]], interval: float = 0.25) -> AsyncIterator[str]:
    """New lines of all files that ``sources`` names, each after its prefix, until the iterator is closed.

    Files are read from their present ends; those that appear later, or are begun anew, from their start.
    """
    files: dict[Path, _Follower] = {path: _Follower(path, skip=True) for path in sources()}
    try:
        while True:
            for path, prefix in sources().items():
                follower = files.setdefault(path, _Follower(path))
                for line in follower.lines():
                    yield prefix + line
            await asyncio.sleep(interval)
    finally:
        for follower in files.values():
            follower.close()


class _Follower:
    def __init__(self, path: Path, skip: bool = False) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self._rest = b""
        if skip and (file := self._open()) is not None:
            file.seek(0, os.SEEK_END)

    def lines(self) -> Iterable[str]:
        file = self._open()
        if file is None:
            return
        parts = (self._rest + file.read()).split(b"\n")
        self._rest = parts.pop()
        for part in parts:
            yield part.decode(errors="replace")

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> BinaryIO | None:
        try:
            now = self._path.stat()
            if self._file is not None:
                held = os.fstat(self._file.fileno())
                if held.st_ino != now.st_ino or now.st_size < self._file.tell():
                    self.close()
            if self._file is None:
                self._file = self._path.open("rb")
                self._rest = b""
        except OSError:
            return self._file
        return self._file
