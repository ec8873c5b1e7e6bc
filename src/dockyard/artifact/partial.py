"""A blob on its way in: a file in ``incoming`` that becomes a blob when its digest and size fit, and not before.

One writer at a time: opening the same blob twice waits for the first, and then finds it ``complete``. What was written
survives the writer, so that the next one goes on at ``offset``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import types
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from dockyard.artifact import digest as digests
from dockyard.errors import ArtifactError, DigestMismatch, StoreFull, TruncatedContent

SYNC_BELOW = 8 << 20
"""Blobs up to this size (manifests, configs, templates) are synced before they are put in place. Weights are not: that
would cost a disk's whole write time a pull, and a power cut that loses them is found by size and by ``fsck``."""


class PartialBlob:
    """Use as a context manager; write at ``offset`` with ``append``, or to ``path`` by any means; then ``commit``.

    ``complete`` is True if the blob is in the store already: there is nothing to write or commit. ``size`` may be None
    if it is not known beforehand. Files beside ``path`` named ``<path.name>.*`` belong to it and go with it.
    """

    def __init__(self, path: Path, target: Path, digest: str, size: int | None, *, resume: bool = True) -> None:
        self.path = path
        self.target = target
        self.digest = digest
        self.size = size
        self.offset = 0
        self.complete = False
        self._resume = resume
        self._lock = FileLock(str(path.with_name(path.name + ".lock")), thread_local=False)
        self._hash: digests.Hasher | None = None
        self._file: int | None = None

    def __enter__(self) -> PartialBlob:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock.acquire(poll_interval=0.02)
        self.complete = self._whole()
        if self.complete:
            self.discard()
            return self
        if not self._resume:
            self.discard()
        with contextlib.suppress(FileNotFoundError):
            self.offset = self.path.stat().st_size
        if self.size is not None and self.offset > self.size:
            self.discard()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self._close()
        self._lock.release()

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Write at ``offset`` and hash on the way, so that ``commit`` need not read everything again."""
        if self.size is not None and self.offset + len(data) > self.size:
            self.discard()
            raise DigestMismatch(f"blob {self.digest} is longer than its {self.size} bytes")
        if self._file is None:
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            os.lseek(self._file, self.offset, os.SEEK_SET)
            self._hash = digests.hasher(self.digest)
            if self.offset:
                _feed(self.path, self._hash)
        assert self._hash is not None
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            raise full(error, self.path) from error
        self._hash.update(data)
        self.offset += len(data)

    def discard(self) -> None:
        """Forget what was written, and the side files."""
        self._close()
        self.offset = 0
        self._hash = None
        self.path.unlink(missing_ok=True)
        for side in self.path.parent.glob(f"{self.path.name}.*"):
            if not side.name.endswith(".lock"):
                side.unlink(missing_ok=True)

    def commit(self, *, computed: str | None = None, on_progress: Callable[[int], None] | None = None) -> Path:
        """Check size and digest and rename into place; returns the blob's path.

        ``computed`` is the digest of the file, if the caller hashed every byte of it in order already; otherwise
        ``append``'s own hash is used, or the file is read. TruncatedContent keeps what is there, to be resumed;
        DigestMismatch discards it, since no one can know which byte is wrong.
        """
        if self.complete:
            return self.target
        self._close()
        try:
            length = self.path.stat().st_size
        except FileNotFoundError:
            if self.size:
                raise TruncatedContent(f"blob {self.digest} is missing all of its {self.size} bytes") from None
            self.path.touch()
            length = 0
        if self.size is not None and length < self.size:
            raise TruncatedContent(
                f"blob {self.digest} was cut short: {length} of {self.size} bytes", hint="pull again: it goes on there"
            )
        found = computed or self._computed(length) or digests.of_file(self.path, self.digest.split(":")[0], on_progress)
        if found != self.digest or (self.size is not None and length != self.size):
            self.discard()
            raise DigestMismatch(
                f"blob {self.digest} came as {found} with {length} bytes", hint="what was sent is not what was named"
            )
        place(self.path, self.target)
        self.complete = True
        self.discard()
        return self.target

    def _whole(self) -> bool:
        """Whether the blob is here with the right size; one that a power cut shortened is written again."""
        try:
            found = self.target.stat().st_size
        except FileNotFoundError:
            return False
        return self.size is None or found == self.size

    def _computed(self, length: int) -> str | None:
        if self._hash is None or length != self.offset:
            return None
        return f"{self.digest.split(':')[0]}:{self._hash.hexdigest()}"

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def place(source: Path, target: Path) -> None:
    """Make a finished file a blob: read-only, so that a program that opens a link to it can't change it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source.chmod(0o444)
    if source.stat().st_size <= SYNC_BELOW:
        with source.open("rb") as file:
            os.fsync(file.fileno())
    source.replace(target)


def full(error: OSError, path: Path) -> Exception:
    """StoreFull for a disk or a disk quota that is full; ArtifactError for any other failure to write."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"the disk of {path.parent} is full", hint="free some space, or run `dockyard gc`")
    return ArtifactError(f"can't write {path}: {error.strerror}")


def _feed(path: Path, into: digests.Hasher) -> None:
    with path.open("rb", buffering=0) as file:
        while block := file.read(digests.BLOCK):
            into.update(block)
