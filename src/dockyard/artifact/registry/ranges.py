"""Which parts of a blob are here already and which to ask for next: pure bookkeeping, and its small file on disk.

A blob is cut into blocks. The map beside a partial blob has one byte a block, set after the block's bytes were
written. A process killed at any moment leaves a map that says at most what the file holds, because both went to the
same page cache in that order; after a power cut it may say too much, which the digest finds and the caller heals by
starting again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from dockyard.errors import InvalidRequest

BLOCK = 1 << 20
_MAGIC = b"dockyard blocks 1 "


def missing(done: Sequence[int], size: int, block: int) -> Iterator[tuple[int, int]]:
    """The half-open byte ranges that ``done`` (a truth value a block) lacks, in order, as long as possible."""
    start: int | None = None
    for index, have in enumerate(done):
        if not have and start is None:
            start = index * block
        elif have and start is not None:
            yield start, index * block
            start = None
    if start is not None:
        yield start, size


def pieces(holes: Iterator[tuple[int, int]], piece: int) -> Iterator[tuple[int, int]]:
    """Cut ranges into requests of at most ``piece`` bytes, in order."""
    for start, end in holes:
        for first in range(start, end, piece):
            yield first, min(first + piece, end)


def blocks(size: int, block: int) -> int:
    return -(-size // block)


def piece_size(size: int, connections: int, block: int = BLOCK) -> int:
    """Bytes to ask for in one request, in whole blocks: 8 to 64 MiB, small enough that every connection has work.

    One connection asks for everything at once: a pause between requests would be a pause for all that follow it.
    """
    if connections == 1:
        return max(1, blocks(size, block)) * block
    share = blocks(size, block * connections * 4) * block
    return max(8 << 20, min(64 << 20, share)) // block * block


class BlockMap:
    """The blocks of a blob that are on disk; kept in ``path`` if one is given. Safe for threads on distinct blocks."""

    def __init__(self, size: int, *, path: Path | None = None, block: int = BLOCK) -> None:
        if size < 0 or block < 1:
            raise InvalidRequest(f"a blob of {size} bytes in blocks of {block} makes no sense")
        self.size = size
        self.block = block
        self.done = bytearray(blocks(size, block))
        self._header = _MAGIC + f"{size} {block}\n".encode()
        self._path = path
        self._fd = -1
        if path is not None:
            self._open(path)

    def _open(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        found = os.pread(self._fd, len(self._header) + len(self.done) + 1, 0)
        if found.startswith(self._header) and len(found) <= len(self._header) + len(self.done):
            marks = found[len(self._header) :]
            self.done[: len(marks)] = bytes(1 if mark == 1 else 0 for mark in marks)
        else:
            self.clear()

    def clear(self) -> None:
        """Forget everything: the next download starts at the first byte."""
        self.done[:] = bytes(len(self.done))
        if self._fd >= 0:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, self._header, 0)

    def written(self, start: int, end: int) -> None:
        """Mark the blocks that lie wholly within the bytes ``start`` to ``end``, which are on disk now."""
        first = blocks(start, self.block)
        last = len(self.done) if end >= self.size else end // self.block
        if last <= first:
            return
        self.done[first:last] = b"\1" * (last - first)
        if self._fd >= 0:
            os.pwrite(self._fd, b"\1" * (last - first), len(self._header) + first)

    def frontier(self, start: int = 0) -> int:
        """The byte up to which everything from the beginning is there; the search begins at byte ``start``."""
        index = self.done.find(0, start // self.block)
        return self.size if index < 0 else index * self.block

    def bytes_done(self) -> int:
        return self.size - sum(end - start for start, end in missing(self.done, self.size, self.block))

    def close(self, *, remove: bool = False) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if remove and self._path is not None:
            self._path.unlink(missing_ok=True)
