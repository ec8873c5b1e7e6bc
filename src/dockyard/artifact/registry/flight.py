"""One blob on its way in: its file, which blocks of it are here, and its hash, which follows the writers."""

from __future__ import annotations

import errno
import mmap
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

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
HOT = 16
"""Blocks of a blob that may wait in memory for its hash thread; others are read back from the page cache."""
FAST = 400e6
"""Bytes a second from which the processor is the limit, not the network or the server."""
SETTLED = 32 << 20
"""Bytes of a blob after which its rate is known."""

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
        self.failure: BaseException | None = None
        self._users = 0
        self._hot: dict[int, memoryview] = {}
        self._spare: list[memoryview] = []
        self._hashed: int | None = None
        self._pending: deque[tuple[int, memoryview]] = deque()
        self._writing: set[int] = set()
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
        self._here = bytearray(self.map.done)
        self._direct = _unbuffered(partial.path) if wanted.size > SETTLED else -1
        self._began = time.monotonic()
        self._new = 0
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
        """Write a whole block, or the blob's last bytes, now or behind; returns a block to use next."""
        with self._changed:
            while self._ahead(at) and not self.stopped:
                self._changed.wait()
            near = self._hashed is not None and self._hashed <= at < self._hashed + HOT * BLOCK
            self._new += len(block)
            if near:
                self._hot[at] = block
                self._here[at // BLOCK] = 1
                self._changed.notify_all()
                if self._goes_behind(block):
                    self._pending.append((at, block))
                    self._writing.add(at)
                    return self._fresh()
                self._writing.add(at)
        self._write([block], at, self.fd)
        with self._changed:
            self._written([block], at, kept=not near)
            return self._fresh() if near else block

    def write_behind(self) -> None:
        """Write what is pending past the page cache, adjacent blocks together, until the blob is whole or stopped."""
        while True:
            with self._changed:
                while not (self._pending or self.stopped or self.computed):
                    self._changed.wait()
                if not self._pending:
                    return
                at, block = self._pending.popleft()
                run = [block]
                while self._pending and self._pending[0][0] == at + BLOCK * len(run):
                    run.append(self._pending.popleft()[1])
            self._write(run, at, self._direct)
            with self._changed:
                self._written(run, at)

    def _goes_behind(self, block: memoryview) -> bool:
        """Whether to write past the page cache: what comes faster than FAST is limited by the processor, and half of
        that goes into pages of the cache. A disk that can't keep up shows in what is pending: then the cache serves."""
        if self._direct < 0 or len(block) != BLOCK or self._new < SETTLED or len(self._pending) >= HOT:
            return False
        return self._new > FAST * (time.monotonic() - self._began)

    def _write(self, run: list[memoryview], at: int, fd: int) -> None:
        try:
            if fd == self._direct and os.pwritev(fd, run, at) == sum(map(len, run)):
                return
        except OSError as error:
            if error.errno != errno.EINVAL:  # a file system that opens so and can't write so
                raise full(error, self.partial.path) from error
            self._direct = -1
        try:
            for block in run:
                rest = block
                while rest:
                    count = os.pwrite(self.fd, rest[:WRITE], at)
                    rest, at = rest[count:], at + count
        except OSError as error:
            raise full(error, self.partial.path) from error

    def _written(self, run: list[memoryview], at: int, *, kept: bool = False) -> None:
        self.map.written(at, at + sum(map(len, run)))
        for number, block in enumerate(run):
            place = at + number * BLOCK
            self._here[place // BLOCK] = 1
            self._writing.discard(place)
            if not kept:
                self._recycle(place, block)
        self._changed.notify_all()

    def _recycle(self, at: int, block: memoryview) -> None:
        """Take a block back once it is both hashed and written."""
        if at not in self._writing and at not in self._hot and at != self._hashed and len(block) == BLOCK:
            self._spare.append(block)

    def _fresh(self) -> memoryview:
        return self._spare.pop() if self._spare else new_block()

    def _frontier(self, start: int) -> int:
        """The byte up to which everything from ``start`` is here, in memory or in the file."""
        index = self._here.find(0, start // BLOCK)
        return self.wanted.size if index < 0 else index * BLOCK

    def _ahead(self, at: int) -> bool:
        """Whether the hash thread has a full store of blocks before this one, so that waiting costs nothing; but one
        that is far behind, in what an earlier attempt left, keeps no connection waiting."""
        if self._hashed is None or not HOT <= (at - self._hashed) // BLOCK < 4 * HOT:
            return False
        return self._frontier(self._hashed) >= at

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
                while self._frontier(at) <= at and not self.stopped:
                    self._changed.wait()
                if self.stopped:
                    return
                hot = self._hot.pop(at, None)
            view = own[: min(BLOCK, self.wanted.size - at)] if hot is None else hot
            count = os.preadv(self.fd, [view], at) if hot is None else len(view)
            if count != len(view):
                raise TruncatedContent(f"{self.partial.path} became shorter while it was read")
            state.update(view)
            if hot is not None:
                with self._changed:
                    self._hashed = at + count
                    self._recycle(at, hot)
            at += count
        with self._changed:
            self.computed = f"{self.wanted.digest.partition(':')[0]}:{state.hexdigest()}"
            self._changed.notify_all()

    def retire(self) -> None:
        """Wait until no thread uses the file, and close it."""
        self.stop()
        with self._changed:
            while self._users:
                self._changed.wait()
        self.map.close()
        for fd in (self.fd, self._direct):
            if fd >= 0:
                os.close(fd)
        self.fd = self._direct = -1


def new_block() -> memoryview:
    """A block at the start of a page, as writing past the page cache wants it."""
    return memoryview(mmap.mmap(-1, BLOCK))


def _unbuffered(path: Path) -> int:
    """The file opened for writing past the page cache; -1 where the system has no such thing."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_DIRECT)
    except (AttributeError, OSError):
        return -1
