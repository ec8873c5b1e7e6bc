"""Media types of model artifacts and what each layer is for, for every packaging that we read or write."""

from __future__ import annotations

import re
from typing import Literal

Role = Literal["weight", "config", "doc", "licence", "code", "dataset", "template", "projector", "adapter"]
Packaging = Literal["modelpack", "docker-v0.1", "docker-v0.2", "kitops", "other"]
Packed = Literal["", "tar", "tar+gzip", "tar+zstd"]

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
INDEXES = (OCI_INDEX, DOCKER_LIST)

MODELPACK_MANIFEST = "application/vnd.cncf.model.manifest.v1+json"
MODELPACK_CONFIG = "application/vnd.cncf.model.config.v1+json"
DOCKER_V1_CONFIG = "application/vnd.docker.ai.model.config.v0.1+json"
DOCKER_V2_CONFIG = "application/vnd.docker.ai.model.config.v0.2+json"
KITOPS_CONFIG = "application/vnd.kitops.modelkit.config.v1+json"

FILEPATH = "org.cncf.model.filepath"
TITLE = "org.opencontainers.image.title"
REF_NAME = "org.opencontainers.image.ref.name"
CREATED = "org.opencontainers.image.created"
LINEAGE = "io.dockyard.lineage"
CONTEXT = "io.dockyard.context"
DEFAULTS = "io.dockyard.defaults"
ADDED = "io.dockyard.added"
PINNED = "io.dockyard.pinned"
SUBJECT = "io.dockyard.subject"

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib")
WEIGHT_SUFFIXES = (".gguf", ".safetensors", ".onnx", ".dduf", *PICKLE_SUFFIXES)

DOCKER_GGUF = "application/vnd.docker.ai.gguf.v3"
DOCKER_LORA = "application/vnd.docker.ai.gguf.v3.lora"
DOCKER_MMPROJ = "application/vnd.docker.ai.mmproj"
DOCKER_SAFETENSORS = "application/vnd.docker.ai.safetensors"
DOCKER_DDUF = "application/vnd.docker.ai.dduf"
DOCKER_LICENCE = "application/vnd.docker.ai.license"
DOCKER_TEMPLATE = "application/vnd.docker.ai.chat.template.jinja"
DOCKER_FILE = "application/vnd.docker.ai.model.file"

_DOCKER_ROLES: dict[str, Role] = {
    DOCKER_GGUF: "weight",
    DOCKER_LORA: "adapter",
    DOCKER_MMPROJ: "projector",
    "application/vnd.docker.ai.gguf.v3.mmproj": "projector",
    DOCKER_SAFETENSORS: "weight",
    DOCKER_DDUF: "weight",
    DOCKER_LICENCE: "licence",
    DOCKER_TEMPLATE: "template",
    "application/vnd.docker.ai.vllm.config.tar": "config",
    "application/vnd.docker.ai.dir.tar": "config",
}
_CNCF = re.compile(r"application/vnd\.cncf\.model\.(weight\.config|weight|doc|code|dataset)\.v1\.([a-z0-9+.-]+)")
_KITOPS = re.compile(
    r"application/vnd\.kitops\.modelkit\.(model|modelpart|dataset|code|docs)\.v1\.(tar(?:\+(?:gzip|zstd))?)"
)
_KITOPS_ROLES: dict[str, Role] = {
    "model": "weight",
    "modelpart": "adapter",
    "dataset": "dataset",
    "code": "code",
    "docs": "doc",
}
_CNCF_ROLES: dict[str, Role] = {
    "weight": "weight",
    "weight.config": "config",
    "doc": "doc",
    "code": "code",
    "dataset": "dataset",
}
_CNCF_NAMES: dict[Role, str] = {
    "weight": "weight",
    "config": "weight.config",
    "template": "weight.config",
    "projector": "weight",
    "adapter": "weight",
    "doc": "doc",
    "licence": "doc",
    "code": "code",
    "dataset": "dataset",
}


def is_model(artifact_type: str | None) -> bool:
    """Whether an artifact may be a model: prompts, reports and the like say by their type that they are none."""
    return not (artifact_type or "").startswith("application/vnd.dockyard.")


def packaging(artifact_type: str | None, config_type: str) -> Packaging:
    """Whose rules an artifact follows, from its manifest's artifactType and its config's media type."""
    if config_type == MODELPACK_CONFIG or artifact_type == MODELPACK_MANIFEST:
        return "modelpack"
    if config_type == DOCKER_V1_CONFIG:
        return "docker-v0.1"
    if config_type == DOCKER_V2_CONFIG:
        return "docker-v0.2"
    if config_type == KITOPS_CONFIG:
        return "kitops"
    return "other"


def packed(media_type: str) -> Packed:
    """How a layer's files are wrapped: "" for one raw file. ``.tgz``-like Docker and OCI image layers count too."""
    kind = media_type.lower()
    for gz in ("tar+gzip", "tar.gzip", "tar+gz"):
        if kind.endswith(gz):
            return "tar+gzip"
    if kind.endswith(("tar+zstd", "tar.zstd")):
        return "tar+zstd"
    return "tar" if kind.endswith((".tar", "+tar")) else ""


def role(media_type: str, path: str) -> Role:
    """What a layer is for. The media type decides; where it says only "weight" or "file", the path refines it."""
    known = _DOCKER_ROLES.get(media_type)
    if known is not None and known != "weight":
        return known
    found = _CNCF.fullmatch(media_type)
    if found:
        known = _CNCF_ROLES[found[1]]
    kit = _KITOPS.fullmatch(media_type)
    if kit:
        known = _KITOPS_ROLES[kit[1]]
    by_path = role_of_path(path)
    if known is None:
        return by_path
    if known == "weight" and by_path in ("projector", "adapter"):
        return by_path
    if known == "config" and by_path == "template":
        return by_path
    if known == "doc" and by_path == "licence":
        return by_path
    return known


def role_of_path(path: str) -> Role:
    """What a file of this name is for, as people name the files of models."""
    name = path.rsplit("/", 1)[-1].lower()
    stem = name.split(".", 1)[0]
    if name.endswith((".jinja", ".jinja2")):
        return "template"
    if stem.startswith(("license", "licence", "copying", "notice")):
        return "licence"
    if (
        name.endswith(WEIGHT_SUFFIXES)
        or name == "openvino_model.xml"
        or (name.startswith("openvino_") and ".xml" in name)
    ):
        if "mmproj" in name:
            return "projector"
        if name.startswith("adapter_model") or (name.endswith(".gguf") and re.search(r"(^|[-_.])lora([-_.]|$)", name)):
            return "adapter"
        return "weight"
    if name.endswith((".md", ".rst", ".pdf", ".html")):
        return "doc"
    if name.endswith((".py", ".sh", ".ipynb")):
        return "code"
    if name.endswith((".csv", ".parquet", ".jsonl", ".arrow")):
        return "dataset"
    return "config"


def cncf_layer(what: Role) -> str:
    """The media type of a raw ModelPack layer."""
    return f"application/vnd.cncf.model.{_CNCF_NAMES[what]}.v1.raw"


def docker_layer(what: Role, path: str) -> str:
    """The media type of a Docker layer."""
    name, by_path = path.lower(), role_of_path(path)
    if by_path in ("template", "licence", "projector", "adapter"):
        what = by_path
    if what == "projector":
        return DOCKER_MMPROJ
    if what == "adapter" and name.endswith(".gguf"):
        return DOCKER_LORA
    if what == "licence":
        return DOCKER_LICENCE
    if what == "template":
        return DOCKER_TEMPLATE
    for suffix, kind in ((".gguf", DOCKER_GGUF), (".safetensors", DOCKER_SAFETENSORS), (".dduf", DOCKER_DDUF)):
        if name.endswith(suffix):
            return kind
    return DOCKER_FILE


def default_name(media_type: str, what: Role) -> str:
    """A file name for a layer that does not say one."""
    names: dict[Role, str] = {
        "projector": "mmproj.gguf",
        "adapter": "adapter.gguf",
        "licence": "LICENSE",
        "template": "chat_template.jinja",
        "config": "config.json",
        "doc": "README.md",
        "code": "code",
        "dataset": "dataset",
    }
    if what != "weight":
        return names[what]
    for word in ("safetensors", "dduf", "onnx"):
        if word in media_type:
            return f"model.{word}"
    return "model.gguf"
