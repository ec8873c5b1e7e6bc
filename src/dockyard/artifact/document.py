"""Manifests and indexes as they are on the wire, and the checks that every one of them passes on its way in.

``parse_manifest`` accepts OCI image manifests (1.0 and 1.1), Docker schema 2, and the index of either. It is liberal in
what it ignores and strict in what it uses: digests, sizes, media types and the size of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from dockyard.artifact import digest as digests
from dockyard.artifact.media import (
    DOCKER_MANIFEST,
    INDEXES,
    MANIFESTS,
    OCI_INDEX,
    OCI_MANIFEST,
)
from dockyard.errors import ArtifactError, InvalidReference, UnsafeContent, UnsupportedFormat
from dockyard.types import Descriptor

MAX_MANIFEST = 4 << 20
"""Bytes; what the distribution spec asks registries to accept at least, and the most that we take."""
MAX_LAYERS = 20_000


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact: its config and its layers; ``subject`` is what it is attached to, if anything."""

    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    artifact_type: str | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] = {}

    @property
    def kind(self) -> str:
        """What sort of artifact this is: its artifactType, else its config's media type (image-spec, manifest.md)."""
        return self.artifact_type or self.config.media_type

    @property
    def size(self) -> int:
        """Bytes of config and distinct layers."""
        return sum({each.digest: each.size for each in self.blobs()}.values())

    def blobs(self) -> Iterator[Descriptor]:
        """Config and layers; those with ``urls`` live elsewhere and are not in the store."""
        yield self.config
        yield from (layer for layer in self.layers if not layer.urls)


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """A list of manifests: the variants of one artifact."""

    media_type: str
    manifests: tuple[Descriptor, ...]
    artifact_type: str | None = None
    subject: Descriptor | None = None
    annotations: dict[str, str] = {}

    @property
    def kind(self) -> str:
        return self.artifact_type or self.media_type


def parse_manifest(data: bytes, media_type: str | None = None) -> Manifest | Index:
    """Read a manifest or an index. ``media_type`` is what the transport said; the document's own wins if they agree.

    Raises UnsafeContent (more than 4 MiB, a negative size), UnsupportedFormat (a kind we do not know) or ArtifactError
    (anything malformed), each saying where.
    """
    if len(data) > MAX_MANIFEST:
        raise UnsafeContent(f"the manifest has {len(data)} bytes", hint=f"at most {MAX_MANIFEST} are accepted")
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ArtifactError(f"the manifest is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ArtifactError("the manifest is not a JSON object")
    said = found.get("mediaType")
    if said is not None and not isinstance(said, str):
        raise ArtifactError("the manifest's mediaType is not text")
    if said and media_type and said != media_type and media_type in (*MANIFESTS, *INDEXES):
        raise ArtifactError(f"the manifest says it is {said!r} but came as {media_type!r}")
    kind = said or (media_type if media_type in (*MANIFESTS, *INDEXES) else None) or _guess(found)
    if found.get("schemaVersion") != 2 or kind not in (*MANIFESTS, *INDEXES):
        told = kind or f"schemaVersion {found.get('schemaVersion')!r}"
        raise UnsupportedFormat(
            f"the manifest is of a kind that is not supported: {told}",
            hint="OCI image manifests and indexes and Docker schema 2 are",
        )
    return _index(found, kind) if kind in INDEXES else _manifest(found, kind)


def descriptor(found: Any, where: str) -> Descriptor:
    """Check a descriptor that came from outside; ``where`` says in messages which one it is."""
    if not isinstance(found, dict):
        raise ArtifactError(f"{where} is not a descriptor")
    kind, digest, size = found.get("mediaType"), found.get("digest"), found.get("size")
    if not isinstance(kind, str) or not kind:
        raise ArtifactError(f"{where} has no mediaType")
    if not isinstance(digest, str):
        raise ArtifactError(f"{where} has no digest")
    try:
        digests.split(digest)
    except InvalidReference as error:
        raise ArtifactError(f"{where}: {error.message}", hint=error.hint) from error
    if isinstance(size, bool) or not isinstance(size, int):
        raise ArtifactError(f"{where} has no size")
    if size < 0 or size >= 1 << 63:
        raise UnsafeContent(f"{where} has the size {size}", hint="a size is 0 or more bytes")
    urls = found.get("urls") or ()
    if not isinstance(urls, (list, tuple)) or not all(isinstance(url, str) for url in urls):
        raise ArtifactError(f"{where} has urls that are not a list of text")
    return Descriptor(
        media_type=kind,
        digest=digest,
        size=size,
        annotations=_annotations(found, where),
        artifact_type=_text(found, "artifactType", where),
        urls=tuple(urls),
        data=_text(found, "data", where),
    )


def dump(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: the same value is always the same bytes."""
    return msgspec.json.encode(value, order="sorted")


def document(manifest: Manifest | Index) -> dict[str, Any]:
    """The JSON object of a manifest or an index, without what is empty."""
    found: dict[str, Any] = {"schemaVersion": 2, "mediaType": manifest.media_type}
    if isinstance(manifest, Index):
        found["manifests"] = [msgspec.to_builtins(each) for each in manifest.manifests]
    else:
        found["config"] = msgspec.to_builtins(manifest.config)
        found["layers"] = [msgspec.to_builtins(each) for each in manifest.layers]
    if manifest.artifact_type:
        found["artifactType"] = manifest.artifact_type
    if manifest.subject:
        found["subject"] = msgspec.to_builtins(manifest.subject)
    if manifest.annotations:
        found["annotations"] = manifest.annotations
    return found


def encode(manifest: Manifest | Index) -> bytes:
    """The bytes of a manifest that we write ourselves; sorted keys, so the digest is reproducible."""
    return dump(document(manifest))


def _guess(found: Mapping[str, Any]) -> str | None:
    """The kind of a document without mediaType, which OCI 1.0 allowed."""
    if "manifests" in found:
        return OCI_INDEX
    config = found.get("config")
    if "layers" in found and isinstance(config, dict):
        docker = str(config.get("mediaType", "")).startswith("application/vnd.docker.container.image")
        return DOCKER_MANIFEST if docker else OCI_MANIFEST
    return None


def _index(found: Mapping[str, Any], kind: str) -> Index:
    return Index(
        media_type=kind,
        manifests=_list(found, "manifests"),
        artifact_type=_text(found, "artifactType", "the index"),
        subject=_subject(found),
        annotations=_annotations(found, "the index"),
    )


def _manifest(found: Mapping[str, Any], kind: str) -> Manifest:
    return Manifest(
        media_type=kind,
        config=descriptor(found.get("config"), "the manifest's config"),
        layers=_list(found, "layers"),
        artifact_type=_text(found, "artifactType", "the manifest"),
        subject=_subject(found),
        annotations=_annotations(found, "the manifest"),
    )


def _list(found: Mapping[str, Any], name: str) -> tuple[Descriptor, ...]:
    items = found.get(name)
    if items is None:
        items = []
    if not isinstance(items, list):
        raise ArtifactError(f"the manifest's {name} is not a list")
    if len(items) > MAX_LAYERS:
        raise UnsafeContent(f"the manifest lists {len(items)} {name}", hint=f"at most {MAX_LAYERS} are accepted")
    return tuple(descriptor(item, f"entry {place} of the manifest's {name}") for place, item in enumerate(items))


def _subject(found: Mapping[str, Any]) -> Descriptor | None:
    return descriptor(found["subject"], "the manifest's subject") if found.get("subject") is not None else None


def _text(found: Mapping[str, Any], name: str, where: str) -> str | None:
    value = found.get(name)
    if value is not None and not isinstance(value, str):
        raise ArtifactError(f"{where} has a {name} that is not text")
    return value or None


def _annotations(found: Mapping[str, Any], where: str) -> dict[str, str]:
    value = found.get("annotations") or {}
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise ArtifactError(f"{where} has annotations that are not text")
    return value
