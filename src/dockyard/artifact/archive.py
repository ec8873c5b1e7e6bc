"""Artifacts in one tar file: an OCI image layout, which ``skopeo copy oci-archive:…`` and other tools read too.

Docker Model Runner's archives are blobs and one ``manifest.json``, the raw OCI manifest: ``load`` reads those too, and
``save`` adds that file where it writes a single artifact, so that Model Runner reads it.
"""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

import msgspec

from dockyard.artifact import digest as digests
from dockyard.artifact import media
from dockyard.artifact.document import MAX_MANIFEST, Index, dump, parse_manifest
from dockyard.artifact.index import LAYOUT, Row, parse_rows, reference_of
from dockyard.artifact.intake import check_present
from dockyard.artifact.lookup import bare, reach
from dockyard.artifact.partial import PartialBlob, full
from dockyard.artifact.safety import contained
from dockyard.artifact.unpack import opened, packing
from dockyard.errors import (
    ArtifactError,
    DockyardError,
    NotFound,
    TruncatedContent,
    UnsafeContent,
    UnsupportedFormat,
)
from dockyard.types import Descriptor, OnProgress, Progress, Reference

if TYPE_CHECKING:
    from dockyard.artifact.store import Store

_MOST = 1 << 62
_NAMED = ("io.containerd.image.name", media.REF_NAME)


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact that came out of an archive; ``reference`` is None where the archive does not name it."""

    descriptor: Descriptor
    reference: Reference | None = None


def save(
    store: Store,
    names: Sequence[str | Reference],
    path: Path | BinaryIO,
    *,
    on_progress: OnProgress | None = None,
) -> list[Descriptor]:
    """Write artifacts, with what is attached to them, to a tar file or a stream; the same bytes each time.

    A file is written aside and renamed: it appears whole or not at all.
    """
    found = [store.resolve(name) for name in names]
    manifests = [
        _listed(described, told)
        for described in _unique(found)
        for told in _names_of(store, [n for n, each in zip(names, found, strict=True) if each == described])
    ]
    roots = {each.digest for each in found}
    waiting = set(roots)
    while waiting:
        more = _unique(each for digest in sorted(waiting) for each in store.referrers(digest))
        waiting = {each.digest for each in more} - roots
        manifests += [_listed(each, None) for each in more if each.digest in waiting]
        roots |= waiting
    index = dump({"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": manifests})
    documents = {"oci-layout": LAYOUT, "index.json": index}
    if len(_unique(found)) == 1 and found[0].media_type in media.MANIFESTS:
        documents["manifest.json"] = store.manifest(found[0].digest)
    blobs = sorted(reach(store, roots, foreign=False))
    if isinstance(path, Path):
        aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            with aside.open("wb") as file:
                _write(store, file, documents, blobs, on_progress)
            aside.replace(path)
        except OSError as error:
            raise full(error, path) from error
        finally:
            aside.unlink(missing_ok=True)
    else:
        _write(store, path, documents, blobs, on_progress)
    return found


def load(
    store: Store,
    path: Path | BinaryIO,
    *,
    reference: Reference | None = None,
    on_progress: OnProgress | None = None,
) -> list[Loaded]:
    """Read the artifacts of an archive, or of a folder with an OCI layout, into the store.

    ``reference`` names the artifact where the archive holds just one. Every blob is checked against its digest. On any
    error the store is as before, less what other artifacts already had.
    """
    with store.lease():
        fresh: set[str] = set()
        try:
            if isinstance(path, Path) and path.is_dir():
                documents = _read_folder(store, path, fresh, on_progress)
            else:
                documents = _read_tar(store, path, fresh, on_progress)
            return _register(store, documents, reference)
        except BaseException:
            _undo(store, fresh)
            raise


def _names_of(store: Store, asked: Sequence[str | Reference]) -> list[str | None]:
    """The full names to save one artifact under: those that were asked for, else any that it has, else none."""
    known = [str(each) for each in store.names(store.resolve(asked[0]).digest)]
    told: dict[str, None] = {}
    for name in asked:
        with contextlib.suppress(DockyardError):
            told[str(store.named(name) if isinstance(name, str) else name)] = None
    return [each for each in told if each in known] or [*known[:1]] or [None]


def _unique(found: Iterable[Descriptor]) -> list[Descriptor]:
    return list({each.digest: each for each in found}.values())


def _listed(described: Descriptor, name: str | None) -> Descriptor:
    annotations = {media.REF_NAME: name} if name is not None else {}
    return msgspec.structs.replace(bare(described), annotations=annotations)


def _write(
    store: Store,
    file: BinaryIO,
    documents: Mapping[str, bytes],
    blobs: Sequence[str],
    on_progress: OnProgress | None,
) -> None:
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT, bufsize=digests.BLOCK) as archive:
        archive.copybufsize = digests.BLOCK  # type: ignore[attr-defined]
        for name, data in documents.items():
            archive.addfile(_member(name, len(data)), io.BytesIO(data))
        for digest in blobs:
            try:
                source = store.blob_path(digest).open("rb")
            except FileNotFoundError:
                message = f"blob {digest} is missing from the store"
                raise NotFound(message, hint="`dockyard pull` the artifact") from None
            with source:
                size = os.fstat(source.fileno()).st_size
                told: Any = source if on_progress is None else _Told(source, digest, size, on_progress)
                archive.addfile(_member(f"blobs/{digest.replace(':', '/')}", size), told)


class _Told:
    """A file that tells of its progress as it is read."""

    def __init__(self, file: IO[bytes], item: str, total: int, on_progress: OnProgress) -> None:
        self._file = file
        self._item = item
        self._total = total
        self._current = 0
        self._on_progress = on_progress

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._current += len(data)
        self._on_progress(Progress(action="pack", item=self._item, total=self._total, current=self._current))
        return data


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = size
    member.mode = 0o644
    return member


def _read_tar(store: Store, path: Path | BinaryIO, fresh: set[str], on_progress: OnProgress | None) -> dict[str, bytes]:
    documents: dict[str, bytes] = {}
    with contextlib.ExitStack() as stack:
        if isinstance(path, Path):
            try:
                file: BinaryIO = stack.enter_context(path.open("rb"))
            except FileNotFoundError:
                raise NotFound(f"there is no file {path}") from None
            packed = packing(file)
        else:
            file, packed = path, "tar"
        archive = stack.enter_context(opened(file, packed, _MOST))
        for member in archive:
            if member.isdir():
                continue
            name = contained(member.name, "the archive")
            digest = _digest_of(name)
            if digest is None and name not in ("index.json", "manifest.json", "oci-layout"):
                continue
            content = archive.extractfile(member) if member.isreg() else None
            if content is None:
                raise UnsafeContent(f"{member.name} in the archive is not a regular file")
            if digest is None:
                if member.size > MAX_MANIFEST:
                    raise UnsafeContent(f"{name} in the archive has {member.size} bytes")
                documents[name] = content.read()
                continue
            _take(store, digest, member.size, content, fresh, on_progress)
    return documents


def _read_folder(store: Store, folder: Path, fresh: set[str], on_progress: OnProgress | None) -> dict[str, bytes]:
    documents = {}
    for name in ("index.json", "oci-layout"):
        place = folder / name
        if place.is_file():
            if place.stat().st_size > MAX_MANIFEST:
                raise UnsafeContent(f"{place} has more than {MAX_MANIFEST} bytes")
            documents[name] = place.read_bytes()
    for algorithm in digests.LENGTHS:
        for place in sorted((folder / "blobs" / algorithm).glob("*")):
            digest = _digest_of(f"blobs/{algorithm}/{place.name}")
            if digest and place.is_file() and not place.is_symlink():
                with place.open("rb") as content:
                    _take(store, digest, place.stat().st_size, content, fresh, on_progress)
    return documents


def _digest_of(name: str) -> str | None:
    """The digest that a path of an OCI layout stands for. An odd name below ``blobs`` is an error."""
    if not name.startswith("blobs/"):
        return None
    digest = name.removeprefix("blobs/").replace("/", ":", 1)
    if not digests.valid(digest):
        raise ArtifactError(f"{name} in the archive is not named after a digest")
    return digest


def _take(
    store: Store, digest: str, size: int, content: IO[bytes], fresh: set[str], on_progress: OnProgress | None
) -> None:
    """Bring one blob in, checked against its digest; one that is here already is passed over."""
    with store.partial(digest, size, resume=False) as blob:
        if blob.complete:
            store.has(digest)
            return
        try:
            _fill(blob, content, size, on_progress)
        except BaseException:
            blob.discard()
            raise
        blob.commit()
        fresh.add(digest)


def _fill(blob: PartialBlob, content: IO[bytes], size: int, on_progress: OnProgress | None) -> None:
    while blob.offset < size:
        data = content.read(min(size - blob.offset, digests.BLOCK))
        if not data:
            left = size - blob.offset
            raise TruncatedContent(f"the archive ends {left} bytes before the end of blob {blob.digest}")
        blob.append(data)
        if on_progress is not None:
            on_progress(Progress(action="load", item=blob.digest, total=size, current=blob.offset))


def _register(store: Store, documents: dict[str, bytes], reference: Reference | None) -> list[Loaded]:
    if "index.json" in documents:
        rows = parse_rows(documents["index.json"], "index.json")
    elif "manifest.json" in documents:
        rows = (_model_runner_row(store, documents["manifest.json"]),)
    else:
        raise UnsupportedFormat(
            "the archive has neither index.json nor manifest.json", hint="OCI layouts and Model Runner exports are read"
        )
    subjects = {each.digest: _subject(store, each.digest) for each in rows}
    plain = {each.digest for each in rows if subjects[each.digest] is None}
    for each in rows:
        _verify(store, each.digest, depth=0)
    loaded: list[Loaded] = []
    for each in sorted(rows, key=lambda row: subjects[row.digest] is not None):
        name = _reference(each)
        if reference is not None and each.digest in plain:
            if len(plain) > 1:
                raise ArtifactError(f"the archive holds {len(plain)} artifacts, and one name was given for them")
            name = reference
        described = _put(store, each.digest, name)
        found = Loaded(descriptor=described, reference=name)
        if subjects[each.digest] is None and found not in loaded:
            loaded.append(found)
    return loaded


def _model_runner_row(store: Store, data: bytes) -> Row:
    try:
        manifest = parse_manifest(data)
    except ArtifactError as error:
        raise UnsupportedFormat(
            f"manifest.json in the archive is not an OCI manifest: {error.message}",
            hint="`docker save` archives of container images are not models",
        ) from error
    store.add_bytes(data)
    return Row(descriptor=Descriptor(media_type=manifest.media_type, digest=digests.of_bytes(data), size=len(data)))


def _reference(row: Row) -> Reference | None:
    """The full name that an archive gives; a bare tag, which other tools write, is not enough to name anything."""
    known = row.descriptor.annotations.get(_NAMED[0])
    for text in (row.name, known):
        if text is not None and "/" in text:
            found = reference_of(text)
            if found is not None:
                return found
    return None


def _subject(store: Store, digest: str) -> str | None:
    try:
        found = store.parsed(digest)
    except NotFound:
        raise ArtifactError(f"the archive names manifest {digest} but does not hold it") from None
    return found.subject.digest if found.subject else None


def _verify(store: Store, digest: str, depth: int) -> None:
    """Check that the archive brought all that a manifest needs, before the first name is given."""
    if depth > 4:
        raise UnsafeContent("the archive nests indexes too deep")
    found = store.parsed(digest)
    check_present(store, found, digest)
    if isinstance(found, Index):
        for child in found.manifests:
            if child.media_type in (*media.MANIFESTS, *media.INDEXES):
                _verify(store, child.digest, depth + 1)


def _put(store: Store, digest: str, name: Reference | None) -> Descriptor:
    """Register a manifest after the manifests that it lists."""
    found = store.parsed(digest)
    if isinstance(found, Index):
        for child in found.manifests:
            if child.media_type in (*media.MANIFESTS, *media.INDEXES):
                _put(store, child.digest, None)
    return store.put_manifest(store.manifest(digest), reference=name)


def _undo(store: Store, fresh: set[str]) -> None:
    """Remove the blobs that a failed load brought, unless something needs them by now."""
    with store.lock(), contextlib.suppress(ArtifactError):
        rows = [each for each in store.index.read() if each.name is not None or each.digest not in fresh]
        with store.index.edit() as current:
            current[:] = rows
        alive = reach(store, [each.digest for each in rows])
        for digest in fresh - alive:
            store.blob_path(digest).unlink(missing_ok=True)
