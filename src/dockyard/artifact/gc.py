"""What may be removed from the store, and what it holds. Called under the store's lock."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import types
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from filelock import FileLock, Timeout

from dockyard.artifact import digest as digests
from dockyard.artifact.lookup import drop_unnamed, reach

if TYPE_CHECKING:
    from dockyard.artifact.index import Row
    from dockyard.artifact.store import Store

PARTIAL_AGE = 7 * 86400.0
"""Seconds after which an interrupted download is taken to be given up."""
SHORT_AGE = 60.0
"""Seconds for which a file that is being written in one go, without a lock of its own, is left alone in any case."""


class Freed(msgspec.Struct, frozen=True, kw_only=True):
    """What a collection removed: blobs, unfinished downloads and run directories, and their bytes together."""

    blobs: int = 0
    partials: int = 0
    runs: int = 0
    bytes: int = 0


class Deleted(msgspec.Struct, frozen=True, kw_only=True):
    """What ``delete`` did: names taken away, manifests removed, and the space that it freed."""

    untagged: list[str] = []
    deleted: list[str] = []
    freed: Freed = Freed()


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on disk. ``reclaimable`` is what ``gc(grace=0)`` would free of ``blobs``; ``runs`` counts only what run
    directories hold beside their hard links to blobs; ``quota`` 0 means no limit; ``free`` is the disk's."""

    artifacts: int
    blob_count: int
    blobs: int
    reclaimable: int
    incoming: int
    runs: int
    quarantine: int
    quota: int
    free: int


class Lease:
    """A file that its process keeps locked, so that it ends with the process however that dies."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / uuid.uuid4().hex
        self._fresh = folder / f".{self.path.name}"
        self._lock = FileLock(str(self._fresh), thread_local=False)

    def __enter__(self) -> Lease:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        self._fresh.replace(self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        self.path.unlink(missing_ok=True)
        self._lock.release()


def live_since(store: Store) -> float:
    """When the oldest lease that is still held began; infinity without one. Removes those whose process died."""
    oldest = float("inf")
    for path in (store.root / "leases").iterdir():
        with contextlib.suppress(FileNotFoundError):
            began = path.stat().st_mtime
            if path.name.startswith("."):
                if time.time() - began > SHORT_AGE:
                    path.unlink(missing_ok=True)
                continue
            trial = FileLock(str(path))
            try:
                trial.acquire(blocking=False)
            except Timeout:
                oldest = min(oldest, began)
                continue
            path.unlink(missing_ok=True)
            trial.release()
    return oldest


def sweep(store: Store, rows: Sequence[Row], *, grace: float, only: set[str] | None = None) -> Freed:
    """Remove blobs that no row reaches and that are older than ``grace`` and than every live lease.

    With ``only``, no other blobs are looked at, nor partials. A blob is renamed away before its age is read again, so
    that a ``has`` at the same moment either finds it gone or keeps it.
    """
    alive = reach(store, [each.digest for each in rows])
    before = min(time.time() - grace if grace else float("inf"), live_since(store) - 1.0)
    blobs = size = 0
    for path in list(store._blob_files()):
        digest = f"{path.parent.name}:{path.name}"
        if digest in alive or not digests.valid(digest) or (only is not None and digest not in only):
            continue
        with contextlib.suppress(FileNotFoundError):
            seen = path.stat()
            if max(seen.st_atime, seen.st_mtime, seen.st_ctime) >= before:
                continue
            aside = store.incoming / f"gone-{path.name}"
            path.replace(aside)
            found = aside.stat()
            if max(found.st_atime, found.st_mtime) >= before:
                aside.replace(path)
                continue
            aside.unlink()
            blobs, size = blobs + 1, size + found.st_size
    runs, run_bytes = _sweep_runs(store, alive)
    partials, partial_bytes = (0, 0) if only is not None else _sweep_incoming(store, grace, before)
    return Freed(blobs=blobs, partials=partials, runs=runs, bytes=size + run_bytes + partial_bytes)


def _sweep_runs(store: Store, alive: set[str]) -> tuple[int, int]:
    """Remove run directories of manifests that are gone; an engine that has their files open keeps them."""
    count = size = 0
    if not store.run_root.is_dir():
        return 0, 0
    living = {digest.split(":")[1] for digest in alive}
    for path in store.run_root.iterdir():
        if path.name.startswith(".building-") and time.time() - path.stat().st_mtime > 86400.0:
            shutil.rmtree(path, ignore_errors=True)
        if path.suffix == ".lock" and path.stem not in living:
            path.unlink(missing_ok=True)
        if path.is_dir() and len(path.name) in digests.LENGTHS.values() and path.name not in living:
            size += _own_bytes(path)
            shutil.rmtree(path, ignore_errors=True)
            count += 1
    return count, size


def _sweep_incoming(store: Store, grace: float, before: float) -> tuple[int, int]:
    """Remove downloads that were given up and, after as long, what was put into quarantine."""
    now = time.time()
    count = size = 0
    quarantine = store.root / "quarantine"
    for path in [*store.incoming.iterdir(), *(quarantine.iterdir() if quarantine.is_dir() else ())]:
        with contextlib.suppress(FileNotFoundError):
            found = path.stat()
            age = PARTIAL_AGE if grace else (0.0 if ".partial" in path.name or path.parent == quarantine else SHORT_AGE)
            if found.st_mtime >= min(now - age, before) or path.name.endswith(".lock"):
                continue
            if not _unlocked(store, path):
                continue
            size += _own_bytes(path) if path.is_dir() else found.st_blocks * 512
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
            count += 1
    return count, size


def _unlocked(store: Store, path: Path) -> bool:
    """Whether no one writes to a file of ``incoming`` just now. Only partial blobs have locks of their own."""
    stem, partial, _ = path.name.partition(".partial")
    if not partial:
        return True
    lock = FileLock(str(store.incoming / f"{stem}.partial.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return False
    lock.release()
    return True


def usage_of(store: Store) -> Usage:
    rows = list(store.index.read())
    artifacts = len({each.digest for each in rows if not each.subject})
    drop_unnamed(rows, older_than=time.time(), store=store)
    alive = reach(store, [each.digest for each in rows])
    sizes = store.sizes()
    return Usage(
        artifacts=artifacts,
        blob_count=len(sizes),
        blobs=sum(sizes.values()),
        reclaimable=sum(size for digest, size in sizes.items() if digest not in alive),
        incoming=_own_bytes(store.incoming),
        runs=_own_bytes(store.run_root),
        quarantine=_own_bytes(store.root / "quarantine"),
        quota=store.quota,
        free=shutil.disk_usage(store.root).free,
    )


def _own_bytes(folder: Path) -> int:
    """Bytes of the files below a folder that have no other name."""
    total = 0
    for where, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                found = (Path(where) / name).lstat()
                total += found.st_blocks * 512 if found.st_nlink == 1 else 0
    return total
