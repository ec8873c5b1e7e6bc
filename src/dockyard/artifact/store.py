"""The store: an OCI image layout on disk that many processes share and that any OCI tool can read.

    oci-layout  index.json            the layout; names are full references in ``org.opencontainers.image.ref.name``
    blobs/sha256/<hex>                content, read-only; written aside and renamed in, so it is whole or absent
    incoming/                         blobs on their way in; an interrupted pull goes on from here
    leases/                           one locked file for each pull, push or build in progress, whose blobs gc leaves
    quarantine/                       what ``fsck`` moved out of the way

A process may be killed at any moment: what is visible is always consistent, and what is left over is reclaimed by gc.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dockyard.artifact import digest as digests
from dockyard.artifact import intake, lookup
from dockyard.artifact.anatomy import size as told
from dockyard.artifact.document import Index, Manifest, parse_manifest
from dockyard.artifact.gc import Deleted, Freed, Lease, live_since, sweep, usage_of
from dockyard.artifact.gc import Usage as Usage
from dockyard.artifact.index import LAYOUT, IndexFile, Row, reference_of, row, write_synced
from dockyard.artifact.lookup import Entry as Entry
from dockyard.artifact.media import OCI_INDEX
from dockyard.artifact.partial import PartialBlob
from dockyard.artifact.reference import DEFAULT_NAMESPACE, DEFAULT_REGISTRY, named
from dockyard.errors import ArtifactError, Conflict, DigestMismatch, ModelNotFound, NotFound, StoreFull
from dockyard.settings import Settings
from dockyard.types import Descriptor, OnProgress, Reference

if TYPE_CHECKING:
    from dockyard.artifact.fsck import Problem


class Store:
    """One folder of artifacts. Safe to use from many threads and processes at once.

    ``quota`` is the most bytes that blobs may take (0: no limit), checked before all writing: StoreFull. ``registry``
    and ``namespace`` complete the short names that ``resolve`` gets. ``policy``: see ``proof.policy``.
    """

    def __init__(
        self,
        root: Path,
        *,
        quota: int = 0,
        registry: str = DEFAULT_REGISTRY,
        namespace: str = DEFAULT_NAMESPACE,
        policy: Path | None = None,
    ) -> None:
        self.root = Path(root)
        self.quota = quota
        self.registry, self.namespace = registry, namespace
        self.policy = policy
        self.incoming = self.root / "incoming"
        self.run_root = self.root.parent / "run"
        self.index = IndexFile(self.root)
        self._reserved: dict[str, int] = {}
        self._guard = threading.Lock()
        self._parsed: dict[str, Manifest | Index] = {}
        for folder in (self.root / "blobs" / "sha256", self.incoming, self.root / "leases"):
            folder.mkdir(parents=True, exist_ok=True)
        if not (self.root / "oci-layout").exists():
            write_synced(self.root / "oci-layout", LAYOUT)

    @classmethod
    def open(cls, settings: Settings) -> Store:
        """The store that the settings name."""
        return cls(
            settings.store_path,
            quota=settings.store_quota,
            registry=settings.default_registry,
            namespace=settings.default_namespace,
            policy=Path(settings.policy).expanduser() if settings.policy else None,
        )

    def named(self, text: str) -> Reference:
        """The full name that a text means here; see ``reference.named``."""
        return named(text, registry=self.registry, namespace=self.namespace)

    def blob_path(self, digest: str) -> Path:
        """Where a blob is, or would be. Raises InvalidReference for what is not a digest."""
        algorithm, text = digests.split(digest)
        return self.root / "blobs" / algorithm / text

    def has(self, digest: str, size: int | None = None) -> bool:
        """Whether the blob is here (and has ``size`` bytes). Under a ``lease`` it then stays until that ends."""
        path = self.blob_path(digest)
        try:
            found = path.stat()
            if any((self.root / "leases").iterdir()):
                os.utime(path, ns=(time.time_ns(), found.st_mtime_ns))  # it may be a link to its owner's file
            return size in (None, found.st_size)
        except OSError:
            return path.exists() and (size is None or path.stat().st_size == size)

    def read(self, digest: str, limit: int = 64 << 20) -> bytes:
        """A small blob's content, checked against its digest. Raises NotFound or DigestMismatch."""
        path = self.blob_path(digest)
        try:
            if path.stat().st_size > limit:
                raise ArtifactError(f"blob {digest} is larger than {limit} bytes")
            data = path.read_bytes()
        except FileNotFoundError:
            raise NotFound(f"blob {digest} is not in the store") from None
        if digests.of_bytes(data, digest.split(":")[0]) != digest:
            raise DigestMismatch(
                f"blob {digest} is corrupt on disk", hint="run `dockyard fsck --repair`, then pull again"
            )
        return data

    def add_bytes(self, data: bytes, *, media_type: str = "application/octet-stream") -> Descriptor:
        """Keep ``data`` as a blob."""
        found = Descriptor(media_type=media_type, digest=digests.of_bytes(data), size=len(data))
        self._take(found.digest, data)
        return found

    def add_file(
        self,
        path: Path,
        *,
        link: bool = False,
        media_type: str = "application/octet-stream",
        on_progress: OnProgress | None = None,
    ) -> Descriptor:
        """Keep a file's content as a blob: a clone or a copy, or with ``link`` a hard link to the file itself.

        Link only what nobody writes to any more: a change in the file would be a change in the blob.
        """
        size = path.stat().st_size if path.is_file() else 0
        seen = intake.reporter(on_progress, path.name, size)
        try:
            self.check_room(size, here=size if link else 0)
        except StoreFull:
            digest = digests.of_file(path)
            if not self.has(digest, size):
                raise
            return Descriptor(media_type=media_type, digest=digest, size=size)
        digest, size = intake.take_file(path, self.blob_path, self.incoming, link=link, seen=seen)
        return Descriptor(media_type=media_type, digest=digest, size=size)

    @contextlib.contextmanager
    def partial(self, digest: str, size: int | None = None, *, resume: bool = True) -> Iterator[PartialBlob]:
        """A blob to be written: see PartialBlob. Checks the quota for what is still to come."""
        target = self.blob_path(digest)
        path = self.incoming / f"{digest.replace(':', '-')}.partial"
        with PartialBlob(path, target, digest, size, resume=resume) as blob:
            if not blob.complete and size is not None:
                here = path.stat().st_blocks * 512 if path.exists() else 0
                with self._guard:
                    self.check_room(size, here=here)
                    self._reserved[digest] = size
            try:
                yield blob
            finally:
                with self._guard:
                    self._reserved.pop(digest, None)

    def check_room(self, size: int, *, here: int = 0) -> None:
        """Raise StoreFull if ``size`` more bytes go over the quota or, less the ``here`` that are on it, the disk."""
        if self.quota:
            held = self.sizes()
            waiting = sum(each for digest, each in list(self._reserved.items()) if digest not in held)
            if (used := sum(held.values()) + waiting) + size > self.quota:
                raise StoreFull(
                    f"{told(size)} more do not fit: the store holds {told(used)} of its quota of {told(self.quota)}",
                    hint="`dockyard rm` what is not needed, `dockyard gc`, or raise `store_quota`",
                )
        if size - here > (free := shutil.disk_usage(self.root).free):
            there = f"the disk of {self.root} has {told(free)} free"
            raise StoreFull(f"{told(size)} more do not fit: {there}", hint="free some space, or move DOCKYARD_HOME")

    def put_manifest(
        self, data: bytes, *, media_type: str | None = None, reference: Reference | None = None
    ) -> Descriptor:
        """Keep a manifest or index whose blobs are all here, and name it if ``reference`` is given.

        Refuses what ``parse_manifest`` refuses; raises ArtifactError naming a blob that is missing or of another size,
        and DigestMismatch if ``reference`` has a digest that is not the manifest's. The store is then as before.
        """
        found = parse_manifest(data, media_type)
        wanted = reference.digest if reference is not None else None
        digest = digests.of_bytes(data, wanted.split(":")[0] if wanted else "sha256")
        if wanted and wanted != digest:
            raise DigestMismatch(f"the manifest of {reference} has the digest {digest}")
        described = Descriptor(
            media_type=found.media_type,
            digest=digest,
            size=len(data),
            artifact_type=found.kind if isinstance(found, Manifest) else found.artifact_type,
        )
        with self.index.edit() as rows:
            intake.check_present(self, found, digest)
            self._take(digest, data)
            subject = found.subject.digest if found.subject else None
            lookup.insert(rows, row(described, reference).change(added=f"{time.time():.3f}", subject=subject))
            if isinstance(found, Index):
                lookup.absorb(rows, {child.digest for child in found.manifests})
        return described

    def manifest(self, digest: str) -> bytes:
        """The bytes of a manifest, checked against the digest. Raises NotFound or DigestMismatch."""
        return self.read(digest, limit=8 << 20)

    def parsed(self, digest: str) -> Manifest | Index:
        """The manifest, read; remembered, since a digest's content never changes."""
        found = self._parsed.get(digest)
        if found is None:
            found = parse_manifest(self.manifest(digest))
            self._parsed[digest] = found
        return found

    def tag(self, reference: Reference, digest: str) -> None:
        """Give a manifest of this store a (further) name; a name it had before moves. Raises ModelNotFound."""
        with self.index.edit() as rows:
            known = next((each for each in rows if each.digest == digest), None)
            described = known.descriptor if known else self._describe(digest)
            bare = msgspec.structs.replace(described, annotations={})
            subject = known.subject if known else None
            lookup.insert(rows, row(bare, reference).change(added=f"{time.time():.3f}", subject=subject))

    def untag(self, reference: Reference) -> None:
        """Take a name away; what it named stays until ``gc`` unless another name keeps it. Raises ModelNotFound."""
        with self.index.edit() as rows:
            lookup.remove_name(rows, reference)

    def entries(self, *, everything: bool = False) -> list[Entry]:
        """One entry a name or nameless manifest; what is attached to others only with ``everything``."""
        found = []
        for each in self.index.read():
            reference = reference_of(each.name)
            if each.subject and reference is None and not everything:
                continue
            found.append(lookup.entry(each, reference, self._size(each.digest)))
        return found

    def resolve(self, name: str | Reference) -> Descriptor:
        """The manifest that a tag, a digest, an id of at least 12 hex digits or a source's text names.

        Raises ModelNotFound with the nearest names, and InvalidReference where an id fits several.
        """
        return lookup.resolve(self.index.read(), self._name(name), self._describe)

    def names(self, digest: str) -> list[Reference]:
        """All names of a manifest."""
        rows = (each for each in self.index.read() if each.digest == digest)
        return [found for each in rows if (found := reference_of(each.name)) is not None]

    def referrers(self, digest: str, artifact_type: str | None = None) -> list[Descriptor]:
        """What is attached to a manifest: reports, signatures, SBOMs, as the referrers API lists them."""
        found: dict[str, Descriptor] = {}
        for each in self.index.read():
            if each.subject != digest or each.digest in found or not self.blob_path(each.digest).exists():
                continue
            parsed = self.parsed(each.digest)
            if artifact_type is None or parsed.kind == artifact_type:
                found[each.digest] = msgspec.structs.replace(
                    each.descriptor, annotations=dict(parsed.annotations), artifact_type=parsed.kind
                )
        return list(found.values())

    # keeping and removing

    def pin(self, name: str | Reference) -> Descriptor:
        """Keep a manifest from ``delete`` and ``gc``, whatever becomes of its names."""
        return self._set_pin(name, "true")

    def unpin(self, name: str | Reference) -> Descriptor:
        return self._set_pin(name, None)

    def delete(self, name: str | Reference, *, force: bool = False) -> Deleted:
        """Remove a name; with the last one the manifest, what is attached to it, and blobs that nothing else needs.

        Named by digest or id, all its names go, if there is only one or with ``force``. Raises ModelNotFound, and
        Conflict for a pinned manifest or several names without ``force``.
        """
        name = self._name(name)
        with self.index.lock():
            with self.index.edit() as rows:
                done, roots = self._remove(rows, name, force)
            if not done.deleted:
                return done
            freed = sweep(self, rows, grace=0.0, only=lookup.reach(self, roots))
        return msgspec.structs.replace(done, freed=freed)

    def _remove(self, rows: list[Row], name: str | Reference, force: bool) -> tuple[Deleted, set[str]]:
        found = lookup.resolve(rows, name, self._describe)
        same = [each for each in rows if each.digest == found.digest]
        names = [each for each in same if each.name is not None]
        if any(each.pinned for each in same) and not force:
            raise Conflict(f"{name} is pinned", hint="unpin it first, or force")
        one = lookup.row_named(rows, name)
        if one is None and len(names) > 1 and not force:
            told = ", ".join(str(each.name) for each in names)
            raise Conflict(f"{found.digest} has {len(names)} names: {told}", hint="remove them one by one, or force")
        gone = names if one is None else [one]
        untagged = [str(each.name) for each in gone]
        rows[:] = [each for each in rows if each not in gone]
        if any(each.digest == found.digest and each.name is not None for each in rows):
            return Deleted(untagged=untagged), set()
        before = {each.digest for each in rows} | {found.digest}
        rows[:] = [each for each in rows if each.digest != found.digest]
        lookup.drop_referrers(rows, {found.digest})
        return Deleted(untagged=untagged, deleted=[found.digest]), before - {each.digest for each in rows}

    def gc(self, grace: float = 3600.0) -> Freed:
        """Remove manifests without a name and blobs that nothing reaches, except what is younger than ``grace`` seconds
        or came in during a pull, push or build that is still going on. Pinned manifests, named ones, the children of
        indexes and what is attached to a kept manifest stay."""
        with self.index.lock():
            with self.index.edit() as rows:
                lookup.drop_unnamed(rows, older_than=min(time.time() - grace, live_since(self)), store=self)
            return sweep(self, rows, grace=grace)

    def lease(self) -> Lease:
        """Use as a context manager round a pull, push or build: no blob added or asked for inside is collected."""
        return Lease(self.root / "leases")

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """The store's one lock; held for as short as an index change takes."""
        return self.index.lock()

    def fsck(self, *, repair: bool = False) -> list[Problem]:
        """All that is wrong, read from every blob; ``repair`` mends what it can and quarantines corrupt blobs."""
        from dockyard.artifact.fsck import fsck

        return fsck(self, repair=repair)

    def df(self) -> Usage:
        """What takes how much space."""
        return usage_of(self)

    # inside

    def _name(self, name: str | Reference) -> str | Reference:
        """A short name completed by this store's defaults; ids and what is no name at all stay text."""
        if isinstance(name, str) and not lookup.is_id(name.strip(), self.index.read()):
            return self.named(name)
        return name

    def _take(self, digest: str, data: bytes) -> None:
        """Write a blob whose bytes are at hand, unless just these bytes are there; so a corrupt one is mended."""
        path = self.blob_path(digest)
        if self.has(digest, len(data)) and path.read_bytes() == data:
            return
        self.check_room(len(data))
        intake.take_bytes(data, path, self.incoming)

    def sizes(self) -> dict[str, int]:
        """Every blob's digest and bytes."""
        found = {}
        for path in self._blob_files():
            with contextlib.suppress(FileNotFoundError):
                found[f"{path.parent.name}:{path.name}"] = path.stat().st_size
        return found

    def _blob_files(self) -> Iterator[Path]:
        for algorithm in digests.LENGTHS:
            folder = self.root / "blobs" / algorithm
            if folder.is_dir():
                yield from folder.iterdir()

    def _set_pin(self, name: str | Reference, value: str | None) -> Descriptor:
        with self.index.edit() as rows:
            found = lookup.resolve(rows, self._name(name), self._describe)
            if not any(each.digest == found.digest for each in rows):
                rows.append(row(found))
            rows[:] = [each.change(pinned=value) if each.digest == found.digest else each for each in rows]
        return found

    def _describe(self, digest: str) -> Descriptor:
        """The descriptor of a manifest that has no row, such as an index's child. Raises ModelNotFound."""
        try:
            found = self.parsed(digest)
            size = self.blob_path(digest).stat().st_size
        except (NotFound, ArtifactError, FileNotFoundError):
            raise ModelNotFound(f"{digest} is no artifact in the store") from None
        kind = found.kind if isinstance(found, Manifest) else found.artifact_type
        return Descriptor(media_type=found.media_type, digest=digest, size=size, artifact_type=kind)

    def _size(self, digest: str) -> int:
        try:
            found = self.parsed(digest)
        except (NotFound, ArtifactError):
            return 0
        if isinstance(found, Manifest):
            return found.size
        return sum(self._size(child.digest) for child in found.manifests if child.media_type != OCI_INDEX)


__all__ = ["Deleted", "Entry", "Freed", "Lease", "Row", "Store", "Usage"]
