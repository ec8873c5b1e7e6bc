"""One blob on its way in: its file, which blocks of it are here, and its hash, which follows the writers."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack

import msgspec

from dockyard.artifact import digest as digests
from dockyard.artifact.partial import PartialBlob, full
from dockyard.artifact.registry.ranges import BLOCK, BlockMap, missing, piece_size, pieces
from dockyard.artifact.registry.transport import Response
from dockyard.errors import StoreFull, TruncatedContent

WRITE = 32 << 10
"""Bytes of one system call to write. Larger ones make Linux take large pages that nothing has touched yet, which under
a hypervisor cost up to ten times as much: system time for a gigabyte, alternating runs, was 0.5 to 1.4 s in pieces of
this size, 1.1 to 2.1 s in pieces of 128 KiB, and up to 2.8 s in pieces of a MiB."""
HOT = 4
"""Blocks of a blob that may wait in memory for its hash thread; others are read back from the page cache."""

Open = Callable[[Mapping[str, str]], Response]
"""Sends the GET of a blob with these further headers."""
OnBytes = Callable[[str, int, int], None]
"""Digest, bytes here by now, bytes in all. From any thread; raising ends the download."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A blob to fetch; ``where`` is for messages."""

    digest: str
    size: int
    open: Open
    where: str


class Flight:
    """One blob in flight: its file, what of it is here, and who works on it."""

    def __init__(self, wanted: Wanted, partial: PartialBlob, on_bytes: OnBytes) -> None:
        self.wanted = wanted
        self.partial = partial
        self.computed: str | None = None
        self.closing = ExitStack()
        self.inline = False
        self.whole = False
        self.stopped = False
        self._users = 0
        self._hot: dict[int, memoryview] = {}
        self._spare: list[memoryview] = []
        self._hashed: int | None = None
        self._on_bytes = on_bytes
        self._changed = threading.Condition()
        side = partial.path.with_name(partial.path.name + ".map")
        known = side.exists()
        self.fd = os.open(partial.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        length = os.fstat(self.fd).st_size
        self.map = BlockMap(wanted.size, path=side)
        if known and length != wanted.size:
            self.map.clear()
        elif not known and length:
            self.map.written(0, length)  # left by a writer that goes from front to back
        self.current = self.map.bytes_done()
        self.resumed = self.current > 0
        if length != wanted.size:
            self._allocate()

    def _allocate(self) -> None:
        try:
            os.posix_fallocate(self.fd, 0, self.wanted.size)
        except OSError as error:
            failure = full(error, self.partial.path)
            if isinstance(failure, StoreFull):
                raise failure from error
            os.ftruncate(self.fd, self.wanted.size)  # a file system without fallocate

    def jobs(self, connections: int) -> list[tuple[int, int]]:
        holes = missing(self.map.done, self.wanted.size, self.map.block)
        return list(pieces(holes, piece_size(self.wanted.size, connections)))

    def write(self, block: memoryview, at: int) -> memoryview:
        """Write a whole block, or the blob's last bytes; returns a block to use next."""
        rest, place = block, at
        try:
            while rest:
                count = os.pwrite(self.fd, rest[:WRITE], place)
                rest, place = rest[count:], place + count
        except OSError as error:
            raise full(error, self.partial.path) from error
        with self._changed:
            self.map.written(at, place)
            self._changed.notify_all()
            while self._ahead(at) and not self.stopped:
                self._changed.wait()
            if self._hashed is None or not self._hashed <= at < self._hashed + HOT * BLOCK:
                return block
            self._hot[at] = block
            return self._spare.pop() if self._spare else memoryview(bytearray(BLOCK))

    def _ahead(self, at: int) -> bool:
        """Whether the hash thread has a full store of blocks before this one, so that waiting costs nothing."""
        if self._hashed is None or at < self._hashed + HOT * BLOCK:
            return False
        return self.map.frontier(self._hashed) > at

    def report(self, count: int) -> None:
        with self._changed:
            self.current = min(self.wanted.size, self.current + count)
            current = self.current
        self._on_bytes(self.wanted.digest, current, self.wanted.size)

    def claim_whole(self) -> bool:
        """For the one worker that streams all of it from a server that sends no ranges."""
        with self._changed:
            if self.whole:
                return False
            self.whole = True
            return True

    def stop(self) -> None:
        with self._changed:
            self.stopped = True
            self._changed.notify_all()

    def enter(self) -> bool:
        with self._changed:
            self._users += not self.stopped
            return not self.stopped

    def leave(self) -> None:
        with self._changed:
            self._users -= 1
            self._changed.notify_all()

    def hash(self) -> None:
        """Hash behind the writers to the end; sets ``computed``, unless stopped."""
        state = digests.hasher(self.wanted.digest)
        own = memoryview(bytearray(min(BLOCK, self.wanted.size)))
        at = 0
        while at < self.wanted.size:
            with self._changed:
                self._hashed = at
                self._changed.notify_all()
                while self.map.frontier(at) <= at and not self.stopped:
                    self._changed.wait()
                if self.stopped:
                    return
                hot = self._hot.pop(at, None)
            view = own[: min(BLOCK, self.wanted.size - at)] if hot is None else hot
            count = os.preadv(self.fd, [view], at) if hot is None else len(view)
            if count != len(view):
                raise TruncatedContent(f"{self.partial.path} became shorter while it was read")
            state.update(view)
            at += count
            if hot is not None and len(hot) == BLOCK:
                with self._changed:
                    self._spare.append(hot)
        self.computed = f"{self.wanted.digest.partition(':')[0]}:{state.hexdigest()}"

    def retire(self) -> None:
        """Wait until no thread uses the file, and close it."""
        self.stop()
        with self._changed:
            while self._users:
                self._changed.wait()
        self.map.close()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
