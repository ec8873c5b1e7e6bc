"""How bytes and files become blobs: hashed while copied, cloned where the file system can, put in place whole."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dockyard.artifact import digest as digests
from dockyard.artifact.document import Index, Manifest
from dockyard.artifact.partial import full, place
from dockyard.errors import ArtifactError, NotFound, UnsafeContent
from dockyard.types import OnProgress, Progress

if TYPE_CHECKING:
    from dockyard.artifact.store import Store

_FICLONE = 0x40049409
"""Linux ioctl that makes a file share another's blocks until one is written (btrfs, XFS, bcachefs)."""


def take_bytes(data: bytes, target: Path, incoming: Path) -> None:
    """Make ``data`` the blob at ``target``."""
    with _aside(incoming) as path:
        try:
            path.write_bytes(data)
        except OSError as error:
            raise full(error, path) from error
        place(path, target)


def take_file(
    source: Path,
    target_of: Callable[[str], Path],
    incoming: Path,
    *,
    link: bool,
    seen: Callable[[int], None] | None = None,
) -> tuple[str, int]:
    """Make a file's content a blob; returns its digest and size. The source is never changed.

    ``link`` shares the file itself (a hard link) where both are on one file system: no space, but whoever later writes
    into the source corrupts the blob. Else the blob is a clone where the file system has those, or a copy.
    """
    if not source.exists():
        raise NotFound(f"there is no file {source}")
    if not source.is_file():
        raise UnsafeContent(f"{source} is not a regular file")
    before = source.stat()
    with _aside(incoming) as path:
        try:
            if (link and _linked(source, path)) or _cloned(source, path):
                digest = digests.of_file(path, seen=seen)
            else:
                digest = _copied(source, path, seen)
        except OSError as error:
            raise full(error, path) from error
        after = source.stat()
        if (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
            raise ArtifactError(f"{source} was written to while it was read", hint="try again when it is complete")
        target = target_of(digest)
        if target.exists() and target.stat().st_size == before.st_size:
            return digest, before.st_size
        if path.stat().st_ino == before.st_ino:
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        else:
            place(path, target)
    return digest, before.st_size


def check_present(store: Store, found: Manifest | Index, digest: str) -> None:
    """Raise ArtifactError naming the first blob or child that a manifest needs and lacks, or that has another size."""
    if isinstance(found, Index):
        for child in found.manifests:
            if child.digest == digest or not store.has(child.digest, child.size):
                raise ArtifactError(f"the index names manifest {child.digest}, which is not in the store")
        return
    for blob in found.blobs():
        if store.has(blob.digest, blob.size):
            continue
        path = store.blob_path(blob.digest)
        if path.exists():
            raise ArtifactError(f"blob {blob.digest} has {path.stat().st_size} bytes, the manifest says {blob.size}")
        raise ArtifactError(f"the manifest names blob {blob.digest}, which is not in the store")


def reporter(on_progress: OnProgress | None, item: str, total: int) -> Callable[[int], None] | None:
    """A callback for bytes read that tells ``on_progress`` of them."""
    if on_progress is None:
        return None
    return lambda current: on_progress(Progress(action="pack", item=item, total=total, current=current))


@contextlib.contextmanager
def _aside(incoming: Path) -> Iterator[Path]:
    path = incoming / f"new-{uuid.uuid4().hex}"
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _linked(source: Path, path: Path) -> bool:
    try:
        path.hardlink_to(source.resolve())
    except OSError:
        return False
    return True


def _cloned(source: Path, path: Path) -> bool:
    try:
        import fcntl
    except ImportError:
        return False
    with source.open("rb") as reading, path.open("wb") as writing:
        try:
            fcntl.ioctl(writing.fileno(), _FICLONE, reading.fileno())
        except OSError:
            return False
    return True


def _copied(source: Path, path: Path, seen: Callable[[int], None] | None) -> str:
    state, view, total = digests.hasher("sha256"), memoryview(bytearray(digests.BLOCK)), 0
    with source.open("rb", buffering=0) as reading, path.open("wb", buffering=0) as writing:
        while count := reading.readinto(view):
            state.update(view[:count])
            part = view[:count]
            while part:
                part = part[os.write(writing.fileno(), part) :]
            total += count
            if seen is not None:
                seen(total)
    return f"sha256:{state.hexdigest()}"
