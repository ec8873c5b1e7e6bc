"""Where an artifact came from, and what has been said of it: parents, operations, attached reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from dockyard.artifact import media
from dockyard.artifact.document import Manifest, encode
from dockyard.artifact.manifest import Lineage, read_artifact
from dockyard.artifact.manifest import Parent as Parent
from dockyard.errors import DockyardError
from dockyard.types import Descriptor, Json, Reference

if TYPE_CHECKING:
    from dockyard.artifact.store import Store

MAX_DEPTH = 64


class Ancestor(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact in a history. ``depth`` 0 is the artifact asked for, 1 its parents, and so on; ``role`` is what it
    was to its child. ``here`` says whether the store holds it; if not, only digest, role and maybe a name are known."""

    digest: str
    depth: int
    role: str = ""
    names: tuple[str, ...] = ()
    here: bool = True
    created: float = 0.0
    operation: str | None = None
    version: str | None = None
    params: dict[str, Json] = {}


def lineage_of(store: Store, name: str | Reference) -> Lineage:
    """What an artifact says of its making; an empty Lineage where it says nothing."""
    return read_artifact(store, store.resolve(name).digest).lineage or Lineage()


def history(store: Store, name: str | Reference) -> list[Ancestor]:
    """The artifact and its ancestors, each once, children before parents. Raises ModelNotFound for an unknown name."""
    created = {each.descriptor.digest: each.created for each in store.entries(everything=True)}
    found: dict[str, Ancestor] = {}
    waiting: list[tuple[Parent, int]] = [(Parent(digest=store.resolve(name).digest, role=""), 0)]
    while waiting:
        link, depth = waiting.pop(0)
        if link.digest in found or depth > MAX_DEPTH:
            continue
        names = tuple(str(each) for each in store.names(link.digest)) or ((link.reference,) if link.reference else ())
        try:
            made = read_artifact(store, link.digest).lineage or Lineage()
            here = True
        except DockyardError:
            if depth == 0:
                raise
            made, here = Lineage(), False
        found[link.digest] = Ancestor(
            digest=link.digest,
            depth=depth,
            role=link.role,
            names=names,
            here=here,
            created=created.get(link.digest, 0.0),
            operation=made.operation,
            version=made.version,
            params=made.params,
        )
        waiting.extend((parent, depth + 1) for parent in made.parents)
    return list(found.values())


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One file of what is attached; ``title`` is its name, where it has one."""

    content: bytes
    media_type: str = "application/json"
    title: str = ""


def attach(
    store: Store,
    name: str | Reference,
    content: bytes,
    *,
    artifact_type: str,
    media_type: str = "application/json",
    annotations: Mapping[str, str] | None = None,
) -> Descriptor:
    """Attach a report, signature or SBOM of one file; see ``attach_files``."""
    parts = (Part(content=content, media_type=media_type),)
    return attach_files(store, name, parts, artifact_type=artifact_type, annotations=annotations)


def attach_files(
    store: Store,
    name: str | Reference,
    parts: Sequence[Part],
    *,
    artifact_type: str,
    annotations: Mapping[str, str] | None = None,
) -> Descriptor:
    """Attach files to an artifact: an OCI manifest whose ``subject`` it is, with a layer for each. The same content is
    attached once; ``Store.referrers`` finds it, and it goes when its subject goes."""
    subject = store.resolve(name)
    with store.lease():
        layers = []
        for part in parts:
            layer = store.add_bytes(part.content, media_type=part.media_type)
            titled = {media.TITLE: part.title} if part.title else {}
            layers.append(msgspec.structs.replace(layer, annotations=titled))
        config = store.add_bytes(b"{}", media_type=media.OCI_EMPTY)
        manifest = Manifest(
            media_type=media.OCI_MANIFEST,
            artifact_type=artifact_type,
            config=config,
            layers=tuple(layers),
            subject=Descriptor(media_type=subject.media_type, digest=subject.digest, size=subject.size),
            annotations=dict(annotations or {}),
        )
        return store.put_manifest(encode(manifest))


def attached(store: Store, referrer: Descriptor, media_type: str | None = None) -> bytes:
    """The content of a referrer's first file, or of the first of a media type; b"" where there is none such.

    Raises NotFound where the blob is missing, DigestMismatch where it is damaged.
    """
    found = store.parsed(referrer.digest)
    layers = found.layers if isinstance(found, Manifest) else ()
    layer = next((each for each in layers if media_type in (None, each.media_type)), None)
    return store.read(layer.digest) if layer is not None else b""
