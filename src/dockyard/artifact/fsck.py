"""Checking a store, and mending what can be mended: every blob hashed again, every name followed to its content.

A corrupt blob can't be mended here; ``repair`` moves it to ``quarantine``, so that the next pull fetches it again.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from dockyard.artifact import digest as digests
from dockyard.artifact.document import MAX_MANIFEST, Index, Manifest, parse_manifest
from dockyard.artifact.index import LAYOUT, Row, parse_rows, row, write_synced
from dockyard.artifact.lookup import absorb
from dockyard.errors import DockyardError
from dockyard.types import Descriptor

if TYPE_CHECKING:
    from dockyard.artifact.store import Store

Fault = Literal["corrupt-blob", "missing-blob", "missing-manifest", "broken-index", "stray-file", "layout"]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong: which, where, for which artifact if one is hurt, and whether it was mended."""

    fault: Fault
    where: str
    message: str
    artifact: str | None = None
    repaired: bool = False


def fsck(store: Store, *, repair: bool = False, seen: Callable[[str, int], None] | None = None) -> list[Problem]:
    """All that is wrong with a store. Reads every blob, so it takes as long as the disk does; ``seen`` gets each digest
    and size as it is checked. Other processes may go on pulling meanwhile: only the mending takes the lock."""
    return [
        *_check_layout(store, repair),
        *_check_index(store, repair),
        *_check_blobs(store, repair, seen),
        *_check_links(store, repair),
    ]


def _check_layout(store: Store, repair: bool) -> Iterator[Problem]:
    path = store.root / "oci-layout"
    try:
        found = msgspec.json.decode(path.read_bytes())
        if isinstance(found, dict) and found.get("imageLayoutVersion") == "1.0.0":
            return
    except (OSError, msgspec.DecodeError):
        pass
    if repair:
        write_synced(path, LAYOUT)
    yield Problem(fault="layout", where=str(path), message="oci-layout is missing or broken", repaired=repair)


def _check_index(store: Store, repair: bool) -> Iterator[Problem]:
    try:
        store.index.read()
        return
    except DockyardError as error:
        message = error.message
    if repair:
        with store.lock():
            _quarantine(store, store.index.path)
            store.index.write(_rebuilt(store))
    yield Problem(fault="broken-index", where=str(store.index.path), message=message, repaired=repair)


def _rebuilt(store: Store) -> list[Row]:
    """Rows as of the last change but one, and a nameless row for every other manifest among the blobs."""
    rows: list[Row] = []
    with contextlib.suppress(OSError, DockyardError):
        rows = list(parse_rows(store.index.previous.read_bytes(), "index.previous.json"))
    known = {each.digest for each in rows}
    children: set[str] = set()
    for path in store._blob_files():
        digest = f"{path.parent.name}:{path.name}"
        if digest in known or path.stat().st_size > MAX_MANIFEST:
            continue
        with contextlib.suppress(OSError, DockyardError):
            found = parse_manifest(path.read_bytes())
            kind = found.kind if isinstance(found, Manifest) else found.artifact_type
            described = Descriptor(
                media_type=found.media_type, digest=digest, size=path.stat().st_size, artifact_type=kind
            )
            subject = found.subject.digest if found.subject else None
            rows.append(row(described).change(added=f"{time.time():.3f}", subject=subject))
            if isinstance(found, Index):
                children |= {child.digest for child in found.manifests}
    absorb(rows, children)
    return rows


def _check_blobs(store: Store, repair: bool, seen: Callable[[str, int], None] | None) -> Iterator[Problem]:
    for path in sorted(store._blob_files()):
        digest = f"{path.parent.name}:{path.name}"
        if not digests.valid(digest) or not path.is_file():
            if repair:
                _quarantine(store, path)
            yield Problem(fault="stray-file", where=str(path), message="not named after a digest", repaired=repair)
            continue
        try:
            size, found = path.stat().st_size, digests.of_file(path, path.parent.name)
        except FileNotFoundError:
            continue
        except OSError as error:
            yield Problem(fault="corrupt-blob", where=digest, message=f"can't be read: {error.strerror}")
            continue
        if seen is not None:
            seen(digest, size)
        if found != digest:
            if repair:
                with store.lock():
                    _quarantine(store, path)
            message = f"its {size} bytes have the digest {found}"
            yield Problem(fault="corrupt-blob", where=digest, message=message, repaired=repair)


def _check_links(store: Store, repair: bool) -> Iterator[Problem]:
    """Follow every row of the index. Rows without a manifest go with ``repair``; missing blobs need a pull."""
    try:
        rows = store.index.read()
    except DockyardError:
        return
    lost: set[str] = set()
    for each in rows:
        name = each.name or each.digest
        missing = list(_missing(store, each.digest, name))
        yield from (
            problem for problem in missing if problem.fault != "missing-manifest" or problem.where != each.digest
        )
        if any(problem.where == each.digest for problem in missing):
            lost.add(each.digest)
            message = f"the index names {name}, whose manifest is missing or broken"
            yield Problem(fault="missing-manifest", where=each.digest, message=message, artifact=name, repaired=repair)
    if lost and repair:
        with store.index.edit() as current:
            current[:] = [each for each in current if each.digest not in lost]


def _missing(store: Store, digest: str, name: str) -> Iterator[Problem]:
    try:
        found = parse_manifest(store.manifest(digest))
    except DockyardError as error:
        yield Problem(fault="missing-manifest", where=digest, message=error.message, artifact=name)
        return
    if isinstance(found, Index):
        for child in found.manifests:
            yield from _missing(store, child.digest, name)
        return
    for blob in found.blobs():
        path = store.blob_path(blob.digest)
        if not path.exists():
            message = f"{name} needs this blob of {blob.size} bytes; pull it again"
        elif path.stat().st_size != blob.size:
            message = f"{name} needs {blob.size} bytes, the blob has {path.stat().st_size}"
        else:
            continue
        yield Problem(fault="missing-blob", where=blob.digest, message=message, artifact=name)


def _quarantine(store: Store, path: Path) -> None:
    folder = store.root / "quarantine"
    folder.mkdir(exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.replace(folder / f"{path.name}.{uuid.uuid4().hex[:8]}")
