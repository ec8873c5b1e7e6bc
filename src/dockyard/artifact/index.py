"""``index.json`` of the store: which manifests are kept, and under which names.

Every change reads, edits and replaces the file under one lock between threads and processes, so no entry is lost. The
new file is synced and renamed into place: a reader, ours or another OCI tool's, sees the old list or the new one. The
list before is kept as ``index.previous.json`` for ``fsck``.
"""

from __future__ import annotations

import contextlib
import os
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
from filelock import FileLock

from dockyard.artifact.document import descriptor, dump
from dockyard.artifact.media import ADDED, OCI_INDEX, PINNED, REF_NAME, SUBJECT
from dockyard.artifact.reference import named
from dockyard.errors import ArtifactError, InvalidReference
from dockyard.types import Descriptor, Reference

LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of ``index.json``. ``name`` is the full reference as text, None for a manifest without a name."""

    descriptor: Descriptor
    name: str | None = None

    @property
    def digest(self) -> str:
        return self.descriptor.digest

    @property
    def pinned(self) -> bool:
        return self.descriptor.annotations.get(PINNED) == "true"

    @property
    def subject(self) -> str | None:
        return self.descriptor.annotations.get(SUBJECT)

    @property
    def added(self) -> float:
        try:
            return float(self.descriptor.annotations.get(ADDED, "0"))
        except ValueError:
            return 0.0

    def change(self, **annotations: str | None) -> Row:
        """The same row with annotations set, or removed where None; keys are ``pinned`` and ``added``."""
        keys = {"pinned": PINNED, "added": ADDED, "subject": SUBJECT}
        merged = dict(self.descriptor.annotations)
        for name, value in annotations.items():
            merged.pop(keys[name], None)
            if value is not None:
                merged[keys[name]] = value
        return msgspec.structs.replace(self, descriptor=msgspec.structs.replace(self.descriptor, annotations=merged))


def row(found: Descriptor, name: Reference | None = None) -> Row:
    """A row for a manifest, named if ``name`` is given."""
    annotations = {key: value for key, value in found.annotations.items() if key != REF_NAME}
    bare = msgspec.structs.replace(found, annotations=annotations, data=None, urls=())
    return Row(descriptor=bare, name=str(name) if name is not None else None)


class IndexFile:
    """The list on disk. ``read`` is cheap (parsed again only when the file changed); ``edit`` holds the lock."""

    def __init__(self, root: Path) -> None:
        self.path = root / "index.json"
        self.previous = root / "index.previous.json"
        self._lock = FileLock(str(root / ".lock"))
        self._cached: tuple[tuple[int, int, int], tuple[Row, ...]] | None = None
        self._guard = threading.Lock()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Exclusive among threads and processes; may be taken again by the thread that holds it."""
        with self._lock.acquire(poll_interval=0.005):
            yield

    def read(self) -> tuple[Row, ...]:
        """All rows in the file's order. Raises ArtifactError if the file is broken."""
        try:
            with self.path.open("rb") as file:
                state = os.fstat(file.fileno())
                stamp = (state.st_ino, state.st_mtime_ns, state.st_size)
                with self._guard:
                    if self._cached is not None and self._cached[0] == stamp:
                        return self._cached[1]
                data = file.read()
        except FileNotFoundError:
            return ()
        rows = parse_rows(data, str(self.path))
        with self._guard:
            self._cached = (stamp, rows)
        return rows

    @contextlib.contextmanager
    def edit(self) -> Iterator[list[Row]]:
        """A list to change in place; written when the block ends without an error, if it differs."""
        with self.lock():
            before = self.read()
            rows = list(before)
            yield rows
            if tuple(rows) != before:
                self.write(rows)

    def write(self, rows: list[Row]) -> None:
        """Replace the file. Only under ``lock``."""
        manifests = []
        for each in rows:
            annotations = dict(each.descriptor.annotations)
            if each.name is not None:
                annotations[REF_NAME] = each.name
            manifests.append(msgspec.structs.replace(each.descriptor, annotations=annotations))
        data = dump({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests})
        if self.path.exists():
            spare = self.previous.with_suffix(f".{uuid.uuid4().hex}")
            with contextlib.suppress(OSError):
                spare.hardlink_to(self.path)
                spare.replace(self.previous)
        write_synced(self.path, data)


def parse_rows(data: bytes, where: str) -> tuple[Row, ...]:
    """The rows of an ``index.json`` of any OCI layout."""
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ArtifactError(f"{where} is broken: {error}", hint="`dockyard fsck --repair` rebuilds it") from error
    if not isinstance(found, dict) or not isinstance(found.get("manifests"), list | None):
        raise ArtifactError(f"{where} is not an OCI index", hint="`dockyard fsck --repair` rebuilds it")
    rows = []
    for place, item in enumerate(found.get("manifests") or []):
        each = descriptor(item, f"entry {place} of {where}")
        annotations = dict(each.annotations)
        name = annotations.pop(REF_NAME, None)
        rows.append(Row(descriptor=msgspec.structs.replace(each, annotations=annotations), name=name))
    return tuple(rows)


def reference_of(name: str | None) -> Reference | None:
    """What a row's name refers to; None for none and for names that other tools wrote and are no references."""
    if name is None:
        return None
    try:
        return named(name)
    except InvalidReference:
        return None


def write_synced(path: Path, data: bytes) -> None:
    """Put a small file in place as a whole and durably: written aside, synced, renamed, folder synced."""
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
