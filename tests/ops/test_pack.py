"""Packaging: what ends up in the artifact, that it is reproducible, and what is refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import pytest
from header_writers import STRING, gguf_bytes, safetensors_bytes, tiny_gguf

from dockyard.artifact.document import Manifest, encode
from dockyard.artifact.lineage import history
from dockyard.artifact.manifest import Artifact, read_artifact
from dockyard.artifact.materialize import model_files
from dockyard.artifact.media import KITOPS_CONFIG, OCI_MANIFEST
from dockyard.artifact.store import Store
from dockyard.errors import (
    ArtifactError,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    TruncatedContent,
    UnsafeContent,
    UnsupportedFormat,
)
from dockyard.ops.pack import PackParams, Sources, package


def _blobs(store: Store) -> set[str]:
    return {path.name for path in (store.root / "blobs" / "sha256").iterdir()}


def _read(store: Store, done: Any) -> Artifact:
    return read_artifact(store, done.entry.descriptor.digest)


def _paths(artifact: Artifact) -> dict[str, str]:
    return {layer.path: layer.role for layer in artifact.layers}


def test_one_file_becomes_a_modelpack_with_its_facts(tmp_path: Path, store: Store) -> None:
    path = tiny_gguf(tmp_path / "tiny.gguf")
    done = package(store, Sources(weights=(path,)), reference=store.named("tiny"))
    artifact = _read(store, done)
    assert artifact.packaging == "modelpack"
    assert _paths(artifact) == {"tiny.gguf": "weight"}
    assert (artifact.spec.architecture, artifact.spec.quantization, artifact.spec.format) == ("llama", "Q8_0", "gguf")
    assert (artifact.about.name, artifact.about.licenses) == ("Tiny", ("Apache-2.0",))
    assert artifact.context is None, "the trained window is not advice for serving"
    files = model_files(store, "tiny")
    assert files.facts.parameters
    assert Path(files.weights[0]).read_bytes() == path.read_bytes()


def test_a_refusal_names_the_file_that_the_caller_gave(tmp_path: Path, store: Store) -> None:
    path = tmp_path / "folder" / "broken.gguf"
    path.parent.mkdir()
    path.write_bytes(bytes(100))
    for source in (path, path.parent):
        with pytest.raises(UnsupportedFormat) as refused:
            package(store, Sources(weights=(source,)))
        assert refused.value.message.startswith(f"{path}: not a GGUF file")


def test_the_real_model_is_packaged_and_found_again(store: Store, starter_gguf: Path, tmp_path: Path) -> None:
    done = package(store, Sources(weights=(starter_gguf,)), reference=store.named("smol"))
    again = package(store, Sources(weights=(starter_gguf,)), reference=store.named("smol:other"))
    assert (done.reused, again.reused) == (False, True)
    assert done.entry.descriptor.digest == again.entry.descriptor.digest
    assert model_files(store, "smol:other").facts.parameters == 134_515_008


def _sources(folder: Path) -> Sources:
    folder.mkdir(parents=True)
    (folder / "terms.txt").write_text("MIT License")
    (folder / "template.txt").write_text("{{ messages }}")
    (folder / "vision.gguf").write_bytes(gguf_bytes({"general.architecture": (STRING, "clip")}))
    adapter = folder / "style"
    adapter.mkdir()
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    tensors = {name.format(side): ("F32", (8, 8), 256) for side in "AB"}
    (adapter / "adapter_model.safetensors").write_bytes(safetensors_bytes(tensors))
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 8, "lora_alpha": 16}))
    (adapter / "training_args.bin").write_bytes(pickle.dumps({}))
    return Sources(
        weights=(tiny_gguf(folder / "tiny.gguf"),),
        licences=(folder / "terms.txt",),
        chat_template=folder / "template.txt",
        projector=folder / "vision.gguf",
        adapters=(adapter,),
    )


def test_everything_that_goes_with_a_model_has_its_role(tmp_path: Path, store: Store) -> None:
    done = package(store, _sources(tmp_path / "in"), PackParams(context=64, name="Mine", description="A toy."))
    artifact = _read(store, done)
    assert _paths(artifact) == {
        "LICENSE": "licence",
        "adapters/style/adapter_config.json": "config",
        "adapters/style/adapter_model.safetensors": "adapter",
        "chat_template.jinja": "template",
        "mmproj-vision.gguf": "projector",
        "tiny.gguf": "weight",
    }
    assert (artifact.context, artifact.about.name, artifact.about.description) == (64, "Mine", "A toy.")
    files = model_files(store, done.entry.descriptor.digest)
    assert files.facts.capabilities == ("chat", "complete")
    assert files.projector is not None
    assert files.projector.endswith("mmproj-vision.gguf")
    assert [Path(path).name for path in files.adapters] == ["adapter_model.safetensors"]
    assert (files.chat_template, files.context) == ("{{ messages }}", 64)


@pytest.mark.parametrize("packaging", ["modelpack", "docker-v0.2"])
def test_the_same_inputs_give_the_same_manifest_anywhere_and_any_time(tmp_path: Path, packaging: Any) -> None:
    digests = []
    for turn in range(2):
        home = tmp_path / f"turn-{turn}"
        sources = _sources(home / f"in-{turn}")
        for path in home.rglob("*"):
            os.utime(path, (turn * 10_000, turn * 10_000))
        done = package(Store(home / "store"), sources, PackParams(format=packaging, context=64))
        digests.append(done.entry.descriptor.digest)
    assert digests[0] == digests[1]


def test_other_params_give_another_artifact_that_shares_the_layers(tmp_path: Path, store: Store) -> None:
    path = tiny_gguf(tmp_path / "tiny.gguf")
    first = package(store, Sources(weights=(path,)), reference=store.named("tiny"))
    before = _blobs(store)
    second = package(store, Sources(), PackParams(context=32), base="tiny", reference=store.named("tiny:small"))
    assert not second.reused
    added = _blobs(store) - before
    assert sum((store.root / "blobs" / "sha256" / name).stat().st_size for name in added) < 4096
    old, new = _read(store, first), _read(store, second)
    assert [layer.descriptor.digest for layer in old.layers] == [layer.descriptor.digest for layer in new.layers]
    assert (old.context, new.context) == (None, 32)
    assert [(each.depth, each.operation) for each in history(store, "tiny:small")] == [(0, "package"), (1, "package")]


def test_a_change_keeps_what_it_does_not_change(tmp_path: Path, store: Store) -> None:
    package(store, _sources(tmp_path / "in"), PackParams(context=64), reference=store.named("full"))
    (tmp_path / "new.jinja").write_text("{{ other }}")
    done = package(store, Sources(chat_template=tmp_path / "new.jinja"), base="full", reference=store.named("full:new"))
    assert _paths(_read(store, done)).keys() == _paths(read_artifact(store, store.resolve("full").digest)).keys()
    files = model_files(store, "full:new")
    assert (files.chat_template, files.context) == ("{{ other }}", 64)


@pytest.mark.parametrize("packaging", ["docker-v0.1", "docker-v0.2"])
def test_dockers_formats_carry_the_header(tmp_path: Path, store: Store, packaging: Any) -> None:
    path = tiny_gguf(tmp_path / "tiny.gguf")
    done = package(store, Sources(weights=(path,)), PackParams(format=packaging, context=32))
    artifact = _read(store, done)
    assert artifact.packaging == packaging
    assert artifact.context == 32
    assert artifact.config["config"]["gguf"]["llama.context_length"] == "128"
    assert "tokenizer.ggml.tokens" not in artifact.config["config"]["gguf"]
    again = package(store, Sources(), PackParams(format="modelpack"), base=done.entry.descriptor.digest)
    assert _read(store, again).packaging == "modelpack"


def test_a_safetensors_folder_keeps_its_paths(tmp_path: Path, store: Store) -> None:
    folder = tmp_path / "model"
    (folder / "unet").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(safetensors_bytes({"model.embed_tokens.weight": ("F16", (4, 4), 32)}))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    (folder / "unet" / "config.json").write_text("{}")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "secret").write_text("x")
    artifact = _read(store, package(store, Sources(weights=(folder,))))
    assert _paths(artifact) == {"config.json": "config", "model.safetensors": "weight", "unet/config.json": "config"}
    assert (artifact.spec.format, artifact.spec.quantization) == ("safetensors", "FP16")
    with pytest.raises(UnsupportedFormat, match=r"v0\.1"):
        package(store, Sources(weights=(folder,)), PackParams(format="docker-v0.1"))


def test_layers_that_are_archives_are_packaged_as_the_files_in_them(tmp_path: Path, store: Store) -> None:
    path = tiny_gguf(tmp_path / "tiny.gguf")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.add(path, "weights/tiny.gguf")
    layer = store.add_bytes(packed.getvalue(), media_type="application/vnd.kitops.modelkit.model.v1.tar+gzip")
    config = store.add_bytes(b"{}", media_type=KITOPS_CONFIG)
    kit = store.put_manifest(
        encode(Manifest(media_type=OCI_MANIFEST, config=config, layers=(layer,))), reference=store.named("kit")
    )
    done = package(store, Sources(), base="kit", reference=store.named("raw"))
    assert _paths(_read(store, done)) == {"weights/tiny.gguf": "weight"}
    assert Path(model_files(store, "raw").weights[0]).read_bytes() == path.read_bytes()
    assert history(store, "raw")[1].digest == kit.digest


def test_an_adapter_alone_is_an_artifact(tmp_path: Path, store: Store) -> None:
    adapter = _sources(tmp_path / "in").adapters[0]
    (adapter / "training_args.bin").unlink()
    artifact = _read(store, package(store, Sources(weights=(adapter,))))
    assert _paths(artifact)["adapter_model.safetensors"] == "adapter"
    assert artifact.spec.format == "peft"


def test_naming_one_shard_packages_all(tmp_path: Path, store: Store) -> None:
    split = {"general.architecture": (STRING, "llama"), "split.count": (2, 2)}
    for number in (1, 2):
        pairs = {**split, "split.no": (2, number - 1)}
        tensors = [(f"blk.{number}.attn_q.weight", (32, 4), 8)]
        (tmp_path / f"m-{number:05}-of-00002.gguf").write_bytes(gguf_bytes(pairs, tensors))
    artifact = _read(store, package(store, Sources(weights=(tmp_path / "m-00001-of-00002.gguf",))))
    assert list(_paths(artifact)) == ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]


def test_what_is_refused_leaves_the_store_as_it_was(tmp_path: Path, store: Store) -> None:
    folder = tmp_path / "in"
    tiny_gguf(folder / "tiny.gguf")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    (tmp_path / "notes.txt").write_text("x")
    whole = tiny_gguf(tmp_path / "cut.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[:-100])
    (tmp_path / "empty").mkdir()
    two = tmp_path / "two"
    tiny_gguf(two / "a.gguf")
    tiny_gguf(two / "b.gguf", general__name=(STRING, "Other"))
    before = _blobs(store)
    cases: list[tuple[Sources, str | None, type[Exception], str]] = [
        (Sources(weights=(folder,)), None, UnsafeContent, "pytorch_model.bin"),
        (Sources(weights=(tmp_path / "absent.gguf",)), None, NotFound, "absent.gguf"),
        (Sources(weights=(tmp_path / "notes.txt",)), None, UnsupportedFormat, "notes.txt"),
        (Sources(weights=(tmp_path / "cut.gguf",)), None, TruncatedContent, "cut.gguf"),
        (Sources(weights=(tmp_path / "empty",)), None, NotFound, "empty"),
        (Sources(weights=(two,)), None, ArtifactError, "several models"),
        (Sources(weights=(folder / "tiny.gguf", two)), None, ArtifactError, "several models"),
        (Sources(weights=(folder / "tiny.gguf",), licences=(tmp_path / "no",)), None, NotFound, "no"),
        (Sources(weights=(folder / "tiny.gguf",), adapters=(two,)), None, NotFound, "adapter_model"),
        (Sources(), None, InvalidRequest, "nothing to package"),
        (Sources(), "unknown", ModelNotFound, "unknown"),
    ]
    for sources, base, kind, told in cases:
        with pytest.raises(kind) as caught:
            package(store, sources, base=base)
        assert told in str(caught.value)
    assert _blobs(store) == before
    assert store.entries() == []


def test_two_files_of_one_name_are_told_apart(tmp_path: Path, store: Store) -> None:
    first = tiny_gguf(tmp_path / "a" / "m.gguf")
    second = tiny_gguf(tmp_path / "b" / "m.gguf")
    with pytest.raises(InvalidRequest, match="would both be"):
        package(store, Sources(weights=(first, second)))
