"""Manifests and configs that we write: CNCF ModelPack, and Docker's model format v0.1 and v0.2.

Pure and reproducible: sorted keys, no clock, no file times, no user names. Lineage and the advised context window have
no field in these formats, whose schemas forbid unknown ones, so they go into annotations of the manifest, where OCI
invites everybody's own: ``io.dockyard.lineage`` (JSON) and ``io.dockyard.context`` (tokens).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from dockyard.artifact import media
from dockyard.artifact.digest import of_bytes
from dockyard.artifact.document import Manifest, dump, encode
from dockyard.artifact.safety import contained, is_pickle
from dockyard.errors import ArtifactError, InvalidRequest, UnsafeContent, UnsupportedFormat
from dockyard.types import Descriptor, Json, ModelFacts


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """One file of an artifact: a blob, the relative path that it has for an engine, and what it is for."""

    digest: str
    size: int
    path: str
    role: media.Role


class About(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """Who made a model and what it is called: ModelPack's ``descriptor``. ``created_at`` is RFC 3339."""

    created_at: str | None = None
    authors: tuple[str, ...] = ()
    family: str | None = None
    name: str | None = None
    doc_url: str | None = msgspec.field(name="docURL", default=None)
    source_url: str | None = msgspec.field(name="sourceURL", default=None)
    datasets_url: tuple[str, ...] = msgspec.field(name="datasetsURL", default=())
    version: str | None = None
    revision: str | None = None
    vendor: str | None = None
    licenses: tuple[str, ...] = ()
    title: str | None = None
    description: str | None = None


class Spec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """What a model is: ModelPack's ``config``. ``param_size`` reads "135M"; ``headers`` is only for Docker's format."""

    architecture: str | None = None
    format: str | None = None
    param_size: str | None = None
    precision: str | None = None
    quantization: str | None = None
    capabilities: dict[str, Json] = {}
    headers: dict[str, str] = {}


class Parent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An artifact that another was made from, and as what: "base", "adapter", "dataset", "teacher" …"""

    digest: str
    role: str = "base"
    reference: str | None = None


class Lineage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an artifact came to be: its parents, and the operation with its version and parameters."""

    parents: tuple[Parent, ...] = ()
    operation: str | None = None
    version: str | None = None
    params: dict[str, Json] = {}


class Pack(msgspec.Struct, frozen=True, kw_only=True):
    """All that a writer needs. ``context`` is the window in tokens to advise; ``subject`` what to attach this to."""

    contents: tuple[Content, ...]
    about: About = About()
    spec: Spec = Spec()
    lineage: Lineage | None = None
    context: int | None = None
    annotations: dict[str, str] = {}
    subject: Descriptor | None = None


def spec_of(facts: ModelFacts) -> Spec:
    """What a model's headers say, in the words of a config."""
    outputs = ["embedding"] if "embed" in facts.capabilities else ["text"]
    return Spec(
        architecture=facts.architecture,
        format=facts.format if facts.format != "unknown" else None,
        param_size=_count(facts.parameters) if facts.parameters else None,
        quantization=facts.quantization,
        capabilities={"inputTypes": ["text"], "outputTypes": outputs},
    )


def modelpack(pack: Pack) -> tuple[bytes, bytes]:
    """Bytes of the manifest and of the config of a CNCF ModelPack with one raw layer a file."""
    layers = _layers(pack.contents, lambda each: media.cncf_layer(each.role))
    model = {key: value for key, value in msgspec.to_builtins(pack.spec).items() if key != "headers"}
    config = dump(
        {
            "descriptor": msgspec.to_builtins(pack.about),
            "config": model,
            "modelfs": {"type": "layers", "diffIds": [each.digest for each in layers]},
        }
    )
    return _manifest(pack, config, media.MODELPACK_CONFIG, layers, media.MODELPACK_MANIFEST), config


def docker_v1(pack: Pack) -> tuple[bytes, bytes]:
    """The same for Docker's v0.1, which holds GGUF weights. UnsupportedFormat for any other."""
    for each in pack.contents:
        if each.role in ("weight", "projector", "adapter") and not each.path.lower().endswith(".gguf"):
            raise UnsupportedFormat(
                f"{each.path} is no GGUF file, and Docker's format v0.1 holds only those", hint="use v0.2 or ModelPack"
            )
    return _docker(pack, media.DOCKER_V1_CONFIG)


def docker_v2(pack: Pack) -> tuple[bytes, bytes]:
    """The same for Docker's v0.2: one layer a file, whatever the weights' format."""
    return _docker(pack, media.DOCKER_V2_CONFIG)


def _docker(pack: Pack, config_type: str) -> tuple[bytes, bytes]:
    spec = pack.spec
    layers = _layers(pack.contents, lambda each: media.docker_layer(each.role, each.path))
    weights = sum(
        each.size for each in layers if media.role(each.media_type, each.annotations[media.FILEPATH]) == "weight"
    )
    model: dict[str, Any] = {
        "format": spec.format,
        "quantization": spec.quantization,
        "parameters": spec.param_size,
        "architecture": spec.architecture,
        "size": _bytes(weights) if weights else None,
        "context_size": pack.context,
    }
    if spec.format and spec.headers:
        model[spec.format] = spec.headers
    config = dump(
        {
            "config": {key: value for key, value in model.items() if value is not None},
            "descriptor": {"created": pack.about.created_at} if pack.about.created_at else {},
            "rootfs": {"type": "rootfs", "diff_ids": [each.digest for each in layers]},
        }
    )
    return _manifest(pack, config, config_type, layers, None), config


def _manifest(
    pack: Pack, config: bytes, config_type: str, layers: tuple[Descriptor, ...], artifact_type: str | None
) -> bytes:
    annotations = dict(pack.annotations)
    if pack.lineage is not None and pack.lineage != Lineage():
        annotations[media.LINEAGE] = dump(pack.lineage).decode()
    if pack.context and artifact_type is not None:
        annotations[media.CONTEXT] = str(pack.context)
    return encode(
        Manifest(
            media_type=media.OCI_MANIFEST,
            artifact_type=artifact_type,
            config=Descriptor(media_type=config_type, digest=of_bytes(config), size=len(config)),
            layers=layers,
            subject=pack.subject,
            annotations=annotations,
        )
    )


def _layers(contents: Sequence[Content], kind: Callable[[Content], str]) -> tuple[Descriptor, ...]:
    if not contents:
        raise InvalidRequest("an artifact needs at least one file", param="contents")
    seen: dict[str, str] = {}
    layers = []
    for each in contents:
        path = contained(each.path)
        if seen.setdefault(path, each.digest) != each.digest:
            raise ArtifactError(f"two files are both called {path}")
        if each.role in ("weight", "adapter", "projector") and is_pickle(path, b""):
            raise UnsafeContent(f"{path} is a pickle by its name, which is never packaged as weights", param=path)
        layers.append(
            Descriptor(media_type=kind(each), digest=each.digest, size=each.size, annotations={media.FILEPATH: path})
        )
    return tuple(layers)


def _count(number: int) -> str:
    """A number of parameters as model cards write it: 134515008 is "135M"."""
    for unit, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= unit:
            return f"{number / unit:.3g}{letter}"
    return str(number)


def _bytes(number: int) -> str:
    """A size as Docker's configs write it: "256.35MiB"."""
    for unit, letters in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if number >= unit:
            return f"{number / unit:.2f}{letters}"
    return f"{number}B"
