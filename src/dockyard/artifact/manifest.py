"""What an artifact says of itself: read from every packaging that is about, written in three of them.

``read_artifact`` understands CNCF ModelPack, Docker's model format v0.1 and v0.2, KitOps' ModelKit, and whatever else
has layers with file names. ``modelpack``, ``docker_v1`` and ``docker_v2`` write: pure functions from contents to the
bytes of a manifest and a config, the same bytes for the same arguments.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from dockyard.artifact import media
from dockyard.artifact.digest import of_bytes
from dockyard.artifact.document import MAX_MANIFEST as MAX_MANIFEST
from dockyard.artifact.document import Index, Manifest, parse_manifest
from dockyard.artifact.document import descriptor as descriptor
from dockyard.artifact.document import document as document
from dockyard.artifact.document import dump as dump
from dockyard.artifact.document import encode as encode
from dockyard.artifact.safety import contained
from dockyard.artifact.writers import About as About
from dockyard.artifact.writers import Content as Content
from dockyard.artifact.writers import Lineage as Lineage
from dockyard.artifact.writers import Pack as Pack
from dockyard.artifact.writers import Parent as Parent
from dockyard.artifact.writers import Spec as Spec
from dockyard.artifact.writers import docker_v1 as docker_v1
from dockyard.artifact.writers import docker_v2 as docker_v2
from dockyard.artifact.writers import modelpack as modelpack
from dockyard.artifact.writers import spec_of as spec_of
from dockyard.errors import ArtifactError, DigestMismatch, UnsafeContent, UnsupportedFormat
from dockyard.types import Descriptor

if TYPE_CHECKING:
    from dockyard.artifact.store import Store

MAX_CONFIG = 16 << 20
_T = TypeVar("_T", About, Spec)
Fetch = Callable[[str], bytes]


class Layer(msgspec.Struct, frozen=True, kw_only=True):
    """One layer: what it is for, where its file belongs (relative, checked), and how it is ``packed`` ("" if raw)."""

    descriptor: Descriptor
    role: media.Role
    path: str
    packed: media.Packed = ""


class Artifact(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest with its config, understood. ``context`` is the window in tokens that the packager advises."""

    digest: str
    manifest: Manifest
    config: dict[str, Any]
    packaging: media.Packaging
    layers: tuple[Layer, ...]
    about: About = About()
    spec: Spec = Spec()
    lineage: Lineage | None = None
    context: int | None = None

    @property
    def pack(self) -> Pack:
        """This artifact as the writers take it, to package the same files again, the same way or another."""
        own = (media.LINEAGE, media.CONTEXT)
        return Pack(
            contents=tuple(
                Content(digest=each.descriptor.digest, size=each.descriptor.size, path=each.path, role=each.role)
                for each in self.layers
            ),
            about=self.about,
            spec=self.spec,
            lineage=self.lineage,
            context=self.context,
            annotations={key: value for key, value in self.manifest.annotations.items() if key not in own},
            subject=self.manifest.subject,
        )

    def of(self, *roles: media.Role) -> tuple[Layer, ...]:
        return tuple(each for each in self.layers if each.role in roles)


def read_artifact(source: Store | Fetch, digest: str) -> Artifact:
    """Read the artifact with this manifest digest; of an index, its first manifest that is a model's.

    ``source`` is the store, or a function from a digest to a small blob's bytes. Raises what ``parse_manifest`` raises,
    UnsafeContent for a path that leaves the artifact, and DigestMismatch where ``source`` gives something else.
    """
    fetch = source if callable(source) else source.read
    data = _checked(fetch, digest)
    found = parse_manifest(data)
    for _ in range(4):
        if isinstance(found, Manifest):
            break
        digest = _variant(found).digest
        found = parse_manifest(_checked(fetch, digest))
    else:
        raise UnsupportedFormat("the artifact is an index of indexes, nested too deep")
    assert isinstance(found, Manifest)
    config = _config(fetch, found.config)
    kind = media.packaging(found.artifact_type, found.config.media_type)
    return Artifact(
        digest=digest,
        manifest=found,
        config=config,
        packaging=kind,
        layers=_layers(found, kind, config),
        about=_about(config, kind),
        spec=_spec(config, kind),
        lineage=_lineage(found),
        context=_context(found, config, kind),
    )


def _checked(fetch: Fetch, digest: str) -> bytes:
    data = fetch(digest)
    if of_bytes(data, digest.split(":")[0]) != digest:
        raise DigestMismatch(f"what came for {digest} has another digest")
    return data


def _variant(index: Index) -> Descriptor:
    """The manifest of an index to read: not an attestation, and a model's own kind first."""
    real = [
        each
        for each in index.manifests
        if "vnd.docker.reference.type" not in each.annotations and each.media_type in (*media.MANIFESTS, *media.INDEXES)
    ]
    if not real:
        raise ArtifactError("the index names no manifest")
    models = [each for each in real if each.artifact_type == media.MODELPACK_MANIFEST]
    return (models or real)[0]


def _config(fetch: Fetch, described: Descriptor) -> dict[str, Any]:
    if described.size > MAX_CONFIG:
        raise UnsafeContent(f"the config has {described.size} bytes", hint=f"at most {MAX_CONFIG} are accepted")
    if described.media_type == media.OCI_EMPTY or not described.media_type.endswith("json"):
        return {}
    data = _inline(described) or _checked(fetch, described.digest)
    try:
        found = msgspec.json.decode(data or b"{}")
    except (msgspec.DecodeError, RecursionError) as error:
        raise ArtifactError(f"config {described.digest} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ArtifactError(f"config {described.digest} is not a JSON object")
    return found


def _inline(described: Descriptor) -> bytes | None:
    """Content that a descriptor carries itself, if it is what its digest says."""
    if described.data is None:
        return None
    try:
        data = base64.b64decode(described.data, validate=True)
    except (binascii.Error, ValueError):
        return None
    return data if of_bytes(data, described.digest.split(":")[0]) == described.digest else None


def _layers(found: Manifest, kind: media.Packaging, config: dict[str, Any]) -> tuple[Layer, ...]:
    kit = _kit_paths(config) if kind == "kitops" else {}
    taken: set[str] = set()
    layers: list[Layer] = []
    for place, each in enumerate(found.layers):
        if each.urls and not each.digest:
            continue
        given = each.annotations.get(media.FILEPATH) or each.annotations.get("org.opencontainers.image.title")
        given = given or kit.get(each.digest)
        packed = media.packed(each.media_type)
        role = media.role(each.media_type, given or "")
        if given is None and not packed and media.role(each.media_type, "x.gguf") == "config":
            role = "config"
        if given and not (packed and given in (".", "./")):
            path = contained(given, f"layer {place}")
        else:
            path = _fresh(media.default_name(each.media_type, role), taken)
        taken.add(path)
        layers.append(Layer(descriptor=each, role=role, path=path, packed=packed))
    return tuple(_as_shards(layers, found))


def _fresh(name: str, taken: set[str]) -> str:
    stem, dot, suffix = name.partition(".")
    number, fresh = 1, name
    while fresh in taken:
        number += 1
        fresh = f"{stem}-{number}{dot}{suffix}"
    return fresh


def _as_shards(layers: Sequence[Layer], found: Manifest) -> list[Layer]:
    """Name several nameless GGUF layers as llama.cpp names the parts of a split model, in the manifest's order."""
    nameless = [
        place
        for place, each in enumerate(layers)
        if each.role == "weight"
        and each.path.startswith("model")
        and each.path.endswith(".gguf")
        and media.FILEPATH not in each.descriptor.annotations
        and "org.opencontainers.image.title" not in each.descriptor.annotations
    ]
    done = list(layers)
    if len(nameless) > 1 and found.layers:
        for number, place in enumerate(nameless, 1):
            name = f"model-{number:05}-of-{len(nameless):05}.gguf"
            done[place] = msgspec.structs.replace(done[place], path=name)
    return done


def _kit_paths(config: dict[str, Any]) -> dict[str, str]:
    """Layer digest to path, from a Kitfile's ``layerInfo``; older kits do not have it and their tars name the paths."""
    found: dict[str, str] = {}
    waiting: list[Any] = [config]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting.extend(node)
        elif isinstance(node, dict):
            info, path = node.get("layerInfo"), node.get("path")
            if isinstance(info, dict) and isinstance(info.get("digest"), str) and isinstance(path, str):
                found[info["digest"]] = path
            waiting.extend(value for value in node.values() if isinstance(value, (dict, list)))
    return found


def _part(config: dict[str, Any], name: str) -> dict[str, Any]:
    value = config.get(name)
    return value if isinstance(value, dict) else {}


def _about(config: dict[str, Any], kind: media.Packaging) -> About:
    found = _part(config, "descriptor")
    if kind == "kitops":
        kit = _part(config, "package")
        found = {
            "name": kit.get("name"),
            "version": str(kit["version"]) if kit.get("version") else None,
            "description": kit.get("description"),
            "authors": kit.get("authors"),
            "licenses": [kit["license"]] if kit.get("license") else None,
        }
    if kind in ("docker-v0.1", "docker-v0.2"):
        found = {"createdAt": found.get("created") or found.get("createdAt")}
    return _liberal(found, About)


def _spec(config: dict[str, Any], kind: media.Packaging) -> Spec:
    found = _part(config, "config")
    if kind in ("docker-v0.1", "docker-v0.2"):
        headers = found.get(str(found.get("format", "")))
        found = {
            "architecture": found.get("architecture"),
            "format": found.get("format"),
            "paramSize": found.get("parameters"),
            "quantization": found.get("quantization"),
            "headers": headers if isinstance(headers, dict) else None,
        }
    if kind == "kitops":
        model = _part(config, "model")
        found = {"format": model.get("framework")}
    return _liberal(found, Spec)


def _liberal(found: dict[str, Any], kind: type[_T]) -> _T:
    """The fields of ``kind`` that ``found`` has with the right type; what other people got wrong is left out."""
    kept: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        value = found.get(field.encode_name)
        if value is None:
            continue
        try:
            kept[field.name] = msgspec.convert(value, field.type)
        except msgspec.ValidationError:
            continue
    return kind(**kept)


def _lineage(found: Manifest) -> Lineage | None:
    text = found.annotations.get(media.LINEAGE)
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=Lineage)
    except (msgspec.DecodeError, RecursionError):
        return None


def _context(found: Manifest, config: dict[str, Any], kind: media.Packaging) -> int | None:
    value: Any = found.annotations.get(media.CONTEXT)
    if value is None and kind in ("docker-v0.1", "docker-v0.2"):
        value = _part(config, "config").get("context_size")
    try:
        number = int(value)
    except (TypeError, ValueError):
        return None
    return number if number > 0 else None
