"""Manifests: read from every packaging, written in three, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockyard.artifact import media
from dockyard.artifact.digest import of_bytes
from dockyard.artifact.manifest import (
    MAX_MANIFEST,
    About,
    Content,
    Index,
    Lineage,
    Manifest,
    Pack,
    Parent,
    Spec,
    docker_v1,
    docker_v2,
    encode,
    modelpack,
    parse_manifest,
    read_artifact,
    spec_of,
)
from dockyard.errors import ArtifactError, DigestMismatch, UnsafeContent, UnsupportedFormat
from dockyard.types import Descriptor, ModelFacts

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")
WRITERS = (modelpack, docker_v1, docker_v2)

STRICT: dict[str, Any] = {"type": "object", "additionalProperties": False}
TEXT = {"type": "string"}
TEXTS = {"type": "array", "items": TEXT}
MODALITIES = {"type": "array", "items": {"enum": ["text", "image", "audio", "video", "embedding", "other"]}}
MODELPACK_SCHEMA: dict[str, Any] = {
    **STRICT,
    "required": ["descriptor", "config", "modelfs"],
    "properties": {
        "descriptor": {
            **STRICT,
            "properties": {
                **dict.fromkeys(("createdAt", "family", "name", "docURL", "sourceURL", "version"), TEXT),
                **dict.fromkeys(("revision", "vendor", "title", "description"), TEXT),
                **dict.fromkeys(("authors", "datasetsURL", "licenses"), TEXTS),
            },
        },
        "config": {
            **STRICT,
            "properties": {
                **dict.fromkeys(("architecture", "format", "paramSize", "precision", "quantization"), TEXT),
                "capabilities": {**STRICT, "properties": dict.fromkeys(("inputTypes", "outputTypes"), MODALITIES)},
            },
        },
        "modelfs": {
            **STRICT,
            "required": ["type", "diffIds"],
            "properties": {"type": {"enum": ["layers"]}, "diffIds": {**TEXTS, "minItems": 1}},
        },
    },
}
"""The rules of the ModelPack v0.0.7 config for the fields that we write: no field of our own fits in it."""


def fetch_of(*blobs: bytes) -> Any:
    return {of_bytes(each): each for each in blobs}.__getitem__


def full_pack() -> Pack:
    return Pack(
        contents=(
            Content(digest=A, size=10, path="model.gguf", role="weight"),
            Content(digest=B, size=3, path="LICENSE", role="licence"),
            Content(digest=C, size=4, path="chat_template.jinja", role="template"),
            Content(digest=A, size=10, path="vision/mmproj-F16.gguf", role="projector"),
            Content(digest=B, size=3, path="style-lora.gguf", role="adapter"),
        ),
        about=About(created_at="2026-01-02T03:04:05Z"),
        spec=Spec(architecture="llama", format="gguf", param_size="135M", quantization="Q4_1"),
        lineage=Lineage(
            parents=(Parent(digest=C, role="base", reference="docker.io/ai/x:latest"),),
            operation="quantize",
            version="1",
            params={"bits": 4},
        ),
        context=8192,
        annotations={"org.opencontainers.image.title": "x"},
    )


@pytest.mark.parametrize("write", WRITERS)
def test_what_is_written_is_read_again(write: Any) -> None:
    pack = full_pack()
    manifest, config = write(pack)
    found = read_artifact(fetch_of(manifest, config), of_bytes(manifest))
    assert found.pack == pack
    assert found.packaging == {modelpack: "modelpack", docker_v1: "docker-v0.1", docker_v2: "docker-v0.2"}[write]
    assert write(found.pack) == (manifest, config)
    assert [layer.path for layer in found.of("projector", "adapter")] == ["vision/mmproj-F16.gguf", "style-lora.gguf"]


def test_modelpack_follows_its_schema() -> None:
    facts = ModelFacts(format="gguf", architecture="llama", parameters=134_515_008, quantization="Q4_1")
    about = About(name="x", doc_url="https://example.com", licenses=("Apache-2.0",), authors=("a",), family="llama")
    pack = Pack(contents=full_pack().contents, about=about, spec=spec_of(facts), lineage=full_pack().lineage)
    manifest, config = modelpack(pack)
    jsonschema.validate(json.loads(config), MODELPACK_SCHEMA)
    assert json.loads(config)["config"]["paramSize"] == "135M"
    told = json.loads(manifest)
    assert told["artifactType"] == media.MODELPACK_MANIFEST
    assert told["config"]["mediaType"] == media.MODELPACK_CONFIG
    assert {layer["mediaType"] for layer in told["layers"]} == {
        "application/vnd.cncf.model.weight.v1.raw",
        "application/vnd.cncf.model.weight.config.v1.raw",
        "application/vnd.cncf.model.doc.v1.raw",
    }


def test_docker_configs_have_the_fields_that_model_runner_reads() -> None:
    manifest, config = docker_v1(full_pack())
    told = json.loads(config)
    assert told["config"] == {
        "architecture": "llama",
        "context_size": 8192,
        "format": "gguf",
        "parameters": "135M",
        "quantization": "Q4_1",
        "size": "10B",
    }
    assert told["descriptor"] == {"created": "2026-01-02T03:04:05Z"}
    assert told["rootfs"]["diff_ids"] == [A, B, C, A, B]
    assert [layer["mediaType"] for layer in json.loads(manifest)["layers"]] == [
        media.DOCKER_GGUF,
        media.DOCKER_LICENCE,
        media.DOCKER_TEMPLATE,
        media.DOCKER_MMPROJ,
        media.DOCKER_LORA,
    ]


def test_docker_v1_holds_only_gguf() -> None:
    contents = (Content(digest=A, size=1, path="model.safetensors", role="weight"),)
    with pytest.raises(UnsupportedFormat, match=r"model\.safetensors"):
        docker_v1(Pack(contents=contents))
    assert docker_v2(Pack(contents=contents))


names = st.from_regex(r"[a-z]{1,6}(/[A-Za-z0-9_]{1,6}){0,2}", fullmatch=True) | st.sampled_from(
    ["mmproj", "my-lora-x", "LICENSE", "adapter_model", "openvino_model"]
)
suffixes = st.sampled_from(["", ".gguf", ".safetensors", ".json", ".md", ".jinja", ".xml", ".onnx", ".py"])
roles = st.sampled_from(["weight", "config", "doc", "licence", "code", "dataset", "template", "projector", "adapter"])
contents = st.lists(
    st.builds(
        lambda name, suffix, role, size: Content(
            digest=of_bytes(name.encode()), size=size, path=name + suffix, role=role
        ),
        names,
        suffixes,
        roles,
        st.integers(0, 1 << 40),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda each: each.path,
)
texts = st.none() | st.text(min_size=1, max_size=20)
packs = st.builds(
    Pack,
    contents=contents.map(tuple),
    about=st.builds(
        About, name=texts, version=texts, description=texts, licenses=st.lists(st.text(min_size=1)).map(tuple)
    ),
    spec=st.builds(Spec, architecture=texts, quantization=texts, param_size=texts),
    lineage=st.none()
    | st.builds(Lineage, operation=st.text(min_size=1), params=st.dictionaries(st.text(), st.integers() | st.text())),
    context=st.none() | st.integers(1, 1 << 30),
)


@given(packs)
def test_writing_what_was_read_gives_the_same_bytes(pack: Pack) -> None:
    for write in (modelpack, docker_v2):
        manifest, config = write(pack)
        found = read_artifact(fetch_of(manifest, config), of_bytes(manifest))
        assert write(found.pack) == (manifest, config)


def image(
    config_type: str, layers: list[tuple[str, str | None]], config: Any = None, **extra: Any
) -> tuple[bytes, bytes]:
    data = json.dumps(config or {}).encode()
    told = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": {"mediaType": config_type, "digest": of_bytes(data), "size": len(data)},
        "layers": [
            {"mediaType": kind, "digest": A, "size": 1, **({"annotations": {media.FILEPATH: path}} if path else {})}
            for kind, path in layers
        ],
        **extra,
    }
    return json.dumps(told).encode(), data


def read(manifest: bytes, *blobs: bytes) -> Any:
    return read_artifact(fetch_of(manifest, *blobs), of_bytes(manifest))


def test_a_real_model_runner_artifact_is_understood() -> None:
    config = {
        "config": {
            "format": "gguf",
            "quantization": "Q4_K_M",
            "parameters": "361.82M",
            "architecture": "llama",
            "size": "256.35MiB",
            "gguf": {"general.architecture": "llama", "llama.context_length": "8192"},
            "context_size": 4096,
        },
        "descriptor": {"created": "2025-03-19T10:21:35Z"},
        "rootfs": {"type": "rootfs", "diff_ids": [A]},
    }
    found = read(
        *image(
            media.DOCKER_V1_CONFIG,
            [
                (media.DOCKER_GGUF, None),
                (media.DOCKER_TEMPLATE, None),
                (media.DOCKER_LICENCE, None),
                (media.DOCKER_MMPROJ, None),
            ],
            config,
        )
    )
    assert found.packaging == "docker-v0.1"
    assert [(each.role, each.path) for each in found.layers] == [
        ("weight", "model.gguf"),
        ("template", "chat_template.jinja"),
        ("licence", "LICENSE"),
        ("projector", "mmproj.gguf"),
    ]
    assert found.context == 4096
    assert found.spec.quantization == "Q4_K_M"
    assert found.spec.headers["llama.context_length"] == "8192"
    assert found.about.created_at == "2025-03-19T10:21:35Z"


def test_nameless_shards_are_named_in_order() -> None:
    found = read(*image(media.DOCKER_V1_CONFIG, [(media.DOCKER_GGUF, None)] * 3))
    assert [each.path for each in found.layers] == [f"model-{n:05}-of-00003.gguf" for n in (1, 2, 3)]


@pytest.mark.parametrize("value", [-1, 0, "many", None, [1]])
def test_an_unlimited_or_odd_context_is_none(value: Any) -> None:
    found = read(*image(media.DOCKER_V1_CONFIG, [(media.DOCKER_GGUF, None)], {"config": {"context_size": value}}))
    assert found.context is None


@pytest.mark.parametrize(
    ("kind", "packed", "role"),
    [
        ("application/vnd.cncf.model.weight.v1.tar", "tar", "weight"),
        ("application/vnd.cncf.model.weight.v1.tar+gzip", "tar+gzip", "weight"),
        ("application/vnd.cncf.model.dataset.v1.tar+zstd", "tar+zstd", "dataset"),
        ("application/vnd.cncf.model.weight.v1.gguf", "", "weight"),
        ("application/vnd.kitops.modelkit.model.v1.tar+gzip", "tar+gzip", "weight"),
        ("application/vnd.kitops.modelkit.modelpart.v1.tar", "tar", "adapter"),
        ("application/vnd.docker.ai.vllm.config.tar", "tar", "config"),
        ("application/vnd.oci.image.layer.v1.tar+gzip", "tar+gzip", "config"),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", "tar+gzip", "config"),
    ],
)
def test_layers_of_other_packagings(kind: str, packed: str, role: str) -> None:
    found = read(*image(media.KITOPS_CONFIG, [(kind, None)])).layers[0]
    assert (found.packed, found.role) == (packed, role)


def test_a_kitfile_gives_paths_and_facts() -> None:
    config = {
        "package": {"name": "kit", "version": "1.0", "authors": ["me"], "license": "MIT"},
        "model": {"path": "weights/x.gguf", "framework": "gguf", "layerInfo": {"digest": A}},
    }
    found = read(*image(media.KITOPS_CONFIG, [("application/vnd.kitops.modelkit.model.v1.tar", None)], config))
    assert found.packaging == "kitops"
    assert found.layers[0].path == "weights/x.gguf"
    assert (found.about.name, found.about.licenses, found.spec.format) == ("kit", ("MIT",), "gguf")


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "C:\\x", "a\\b", "~/x", "a\x00b"])
def test_a_path_that_escapes_is_refused(path: str) -> None:
    with pytest.raises(UnsafeContent):
        read(*image(media.MODELPACK_CONFIG, [("application/vnd.cncf.model.weight.v1.raw", path)]))


def test_an_index_reads_as_its_first_model() -> None:
    manifest, config = modelpack(full_pack())
    other, other_config = image(media.OCI_CONFIG, [])
    index = Index(
        media_type=media.OCI_INDEX,
        manifests=(
            Descriptor(
                media_type=media.OCI_MANIFEST,
                digest=of_bytes(other),
                size=len(other),
                annotations={"vnd.docker.reference.type": "attestation-manifest"},
            ),
            Descriptor(media_type=media.OCI_MANIFEST, digest=of_bytes(manifest), size=len(manifest)),
        ),
    )
    data = encode(index)
    assert parse_manifest(data) == index
    found = read_artifact(fetch_of(data, manifest, config, other, other_config), of_bytes(data))
    assert found.digest == of_bytes(manifest)


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        ({"schemaVersion": 1}, UnsupportedFormat, "schemaVersion|not supported"),
        ({"mediaType": "application/vnd.oci.artifact.manifest.v1+json"}, UnsupportedFormat, "not supported"),
        ({"mediaType": 7}, ArtifactError, "mediaType"),
        ({"layers": 7}, ArtifactError, "not a list"),
        ({"layers": [7]}, ArtifactError, "entry 0"),
        ({"layers": [{"mediaType": "a/b", "digest": A, "size": -1}]}, UnsafeContent, "entry 0 .* size -1"),
        ({"layers": [{"mediaType": "a/b", "digest": A, "size": 1 << 64}]}, UnsafeContent, "size"),
        ({"layers": [{"mediaType": "a/b", "digest": A, "size": True}]}, ArtifactError, "no size"),
        ({"layers": [{"mediaType": "a/b", "digest": A}]}, ArtifactError, "no size"),
        ({"layers": [{"mediaType": "a/b", "digest": "sha256:x", "size": 1}]}, ArtifactError, "entry 0"),
        ({"layers": [{"mediaType": "a/b", "digest": "sha256:../../x", "size": 1}]}, ArtifactError, "entry 0"),
        ({"layers": [{"digest": A, "size": 1}]}, ArtifactError, "no mediaType"),
        ({"layers": [{"mediaType": "a/b", "digest": A, "size": 1}] * 20_001}, UnsafeContent, "20001 layers"),
        ({"config": None}, ArtifactError, "config"),
        ({"subject": "x"}, ArtifactError, "subject"),
        ({"annotations": {"a": 1}}, ArtifactError, "annotations"),
        ({"artifactType": 1}, ArtifactError, "artifactType"),
    ],
)
def test_a_malformed_manifest_is_refused_by_its_part(change: dict[str, Any], kind: type[Exception], says: str) -> None:
    manifest, _ = modelpack(full_pack())
    told = {**json.loads(manifest), **change}
    with pytest.raises(kind, match=says):
        parse_manifest(json.dumps(told).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 5000, b"null"])
def test_what_is_no_manifest_is_refused(data: bytes) -> None:
    with pytest.raises(ArtifactError):
        parse_manifest(data)


def test_a_manifest_over_the_limit_is_refused() -> None:
    with pytest.raises(UnsafeContent, match="bytes"):
        parse_manifest(b" " * (MAX_MANIFEST + 1))


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    ["schemaVersion", "mediaType", "config", "layers", "manifests", "digest", "size", "subject"]
                ),
                inner,
            )
        ),
        max_leaves=12,
    ).map(lambda value: json.dumps(value).encode())
)
def test_parsing_anything_gives_a_manifest_or_a_clear_error(data: bytes) -> None:
    try:
        found = parse_manifest(data)
    except ArtifactError:
        return
    assert isinstance(found, Manifest | Index)


def test_a_transport_that_says_otherwise_is_refused() -> None:
    manifest, _ = modelpack(full_pack())
    assert parse_manifest(manifest, "application/json")
    with pytest.raises(ArtifactError, match="came as"):
        parse_manifest(manifest, media.OCI_INDEX)


def test_content_that_is_not_its_digest_is_refused() -> None:
    manifest, config = modelpack(full_pack())
    told = {of_bytes(manifest): manifest, of_bytes(config): config + b" "}
    with pytest.raises(DigestMismatch):
        read_artifact(told.__getitem__, of_bytes(manifest))


def test_pickles_are_never_packaged() -> None:
    for name in ("model.pt", "model.ckpt", "x/model.pkl", "m.joblib", "m.PTH"):
        with pytest.raises(UnsafeContent, match="pickle"):
            modelpack(Pack(contents=(Content(digest=A, size=1, path=name, role="weight"),)))


def test_two_files_of_one_name_are_refused() -> None:
    both = (Content(digest=A, size=1, path="a", role="doc"), Content(digest=B, size=1, path="./a", role="doc"))
    with pytest.raises(ArtifactError, match="both called a"):
        modelpack(Pack(contents=both))
