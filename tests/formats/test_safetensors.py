"""Safetensors folders and PEFT adapters, written by the reference library and by hand."""

from __future__ import annotations

import ctypes
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from header_writers import safetensors_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import TensorSpec, serialize_file

from dockyard.artifact.formats import detect, read_facts, weight_files
from dockyard.errors import ArtifactError, DockyardError, TruncatedContent, UnsafeContent, UnsupportedFormat

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 1,
    "max_position_embeddings": 64,
    "rope_theta": 10000.0,
    "vocab_size": 10,
}
GPTQ = {"quant_method": "gptq", "bits": 4}
NF4 = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
TENSORS = {
    "model.embed_tokens.weight": ("F16", (10, 8), 160),
    "model.layers.0.self_attn.q_proj.weight": ("F16", (8, 8), 128),
    "model.layers.0.self_attn.k_proj.weight": ("F16", (4, 8), 64),
    "model.layers.0.self_attn.v_proj.weight": ("F16", (4, 8), 64),
    "model.layers.0.self_attn.o_proj.weight": ("F16", (8, 8), 128),
    "model.layers.0.mlp.gate_proj.weight": ("F16", (16, 8), 256),
    "model.layers.0.mlp.up_proj.weight": ("F16", (16, 8), 256),
    "model.layers.0.mlp.down_proj.weight": ("F16", (8, 16), 256),
    "model.layers.0.input_layernorm.weight": ("F16", (8,), 16),
    "model.norm.weight": ("F16", (8,), 16),
    "lm_head.weight": ("F16", (10, 8), 160),
}


def _folder(path: Path, config: dict[str, Any] | None = None, tensors: Any = None, **files: str) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "model.safetensors").write_bytes(safetensors_bytes(TENSORS if tensors is None else tensors))
    (path / "config.json").write_text(json.dumps(LLAMA if config is None else config))
    for name, content in files.items():
        (path / name.replace("__", ".")).write_text(content)
    return path


def test_a_folder_as_transformers_saves_it(tmp_path: Path) -> None:
    template = json.dumps({"chat_template": "{% for m in messages %}{% endfor %}", "tokenizer_class": "LlamaTokenizer"})
    card = "---\nlanguage: en\nlicense: apache-2.0\n---\n# A model\n"
    facts = read_facts([_folder(tmp_path, tokenizer_config__json=template, README__md=card)])
    assert (facts.format, facts.architecture, facts.quantization) == ("safetensors", "llama", "FP16")
    assert (facts.layers, facts.heads, facts.kv_heads, facts.head_size, facts.context) == (1, 4, 2, 2, 64)
    assert (facts.attention, facts.positional, facts.rope_base) == ("grouped-query", "rope", 10000.0)
    assert (facts.licence, facts.tokenizer, facts.capabilities) == ("Apache-2.0", "SentencePiece", ("chat", "complete"))
    assert facts.weights == {"embedding": 80, "attention": 192, "feed-forward": 384, "norm": 16, "output": 80}
    assert facts.weight_bytes == 2 * (facts.parameters or 0) == sum(facts.tensors.values())
    assert facts.kv_elements == 2 * 1 * 2 * 2


def test_what_the_reference_library_writes_is_read(tmp_path: Path) -> None:
    buffer = ctypes.create_string_buffer(60)
    spec = TensorSpec(dtype="float32", shape=[3, 5], data_ptr=ctypes.addressof(buffer), data_len=60)
    serialize_file({"w": spec}, str(tmp_path / "model.safetensors"), {"note": "x"})
    facts = read_facts([tmp_path / "model.safetensors"])
    assert (facts.parameters, facts.weight_bytes, facts.quantization) == (15, 60, "FP32")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"architectures": ["BertModel"], "model_type": "bert"}, ("embed",)),
        ({"architectures": ["BertForSequenceClassification"], "num_labels": 1}, ("rerank",)),
        ({"architectures": ["BertForSequenceClassification"], "id2label": {"0": "LABEL_0"}}, ("rerank",)),
        ({"architectures": ["DistilBertForSequenceClassification"]}, ("classify",)),
        ({"architectures": ["WhisperForConditionalGeneration"], "model_type": "whisper"}, ("transcribe",)),
        (
            {"architectures": ["LlavaForConditionalGeneration"], "vision_config": {}, "text_config": LLAMA},
            ("complete", "vision"),
        ),
    ],
)
def test_what_a_model_can_do_is_guessed_by_its_class(
    tmp_path: Path, config: dict[str, Any], expected: tuple[str, ...]
) -> None:
    assert read_facts([_folder(tmp_path, config)]).capabilities == expected


@pytest.mark.parametrize(
    ("quantization", "tensors", "name", "parameters"),
    [
        (GPTQ, {"a.qweight": ("I32", (8, 8), 256), "a.scales": ("F16", (1, 8), 16)}, "GPTQ INT4", 512),
        ({**GPTQ, "quant_method": "awq"}, {"a.qweight": ("I32", (8, 8), 256)}, "AWQ INT4", 512),
        (NF4, {"a.weight": ("U8", (32, 1), 32)}, "BITSANDBYTES NF4", 64),
        ({"quant_method": "fp8"}, {"a.weight": ("F8_E4M3", (4, 4), 16)}, "FP8", 16),
    ],
)
def test_packed_weights_are_counted_as_weights(
    tmp_path: Path, quantization: dict[str, Any], tensors: Any, name: str, parameters: int
) -> None:
    facts = read_facts([_folder(tmp_path, {**LLAMA, "quantization_config": quantization}, tensors)])
    assert (facts.quantization, facts.parameters) == (name, parameters)


def _sharded(folder: Path) -> Path:
    _folder(folder)
    (folder / "model.safetensors").unlink()
    names, shards = list(TENSORS), {}
    for number in (1, 2):
        name = f"model-{number:05}-of-00002.safetensors"
        mine = names[number - 1 :: 2]
        (folder / name).write_bytes(safetensors_bytes({each: TENSORS[each] for each in mine}))
        shards.update(dict.fromkeys(mine, name))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    return folder


def test_shards_of_an_index_are_one_model(tmp_path: Path) -> None:
    whole = read_facts([_folder(tmp_path / "whole")])
    assert read_facts([_sharded(tmp_path / "parts")]) == whole
    assert read_facts([tmp_path / "parts" / "model-00002-of-00002.safetensors"]) == whole


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    (_sharded(tmp_path) / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ArtifactError, match="model-00002-of-00002"):
        read_facts([tmp_path])


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", "a/../../x.safetensors", "..\\x"])
def test_an_index_cannot_name_files_outside_its_folder(tmp_path: Path, name: str) -> None:
    _folder(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}))
    with pytest.raises(UnsafeContent):
        read_facts([tmp_path])


def _header(entries: Any) -> bytes:
    data = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(data)) + data


@pytest.mark.parametrize(
    ("data", "kind", "where"),
    [
        (b"abc", TruncatedContent, "3 bytes"),
        (struct.pack("<Q", 1 << 40) + b"{}", UnsupportedFormat, "1099511627776"),
        (struct.pack("<Q", 50_000_000) + b"{}", TruncatedContent, "header of 50000000"),
        (_header(b"{"), UnsupportedFormat, "malformed"),
        (_header(b"[]"), UnsupportedFormat, "malformed"),
        (_header(b'{"a":' * 3000), UnsupportedFormat, "malformed"),
        (_header({"w": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}), UnsupportedFormat, "F99"),
        (_header({"w": {"dtype": "F32", "shape": [-1, -4], "data_offsets": [0, 16]}}), UnsupportedFormat, "-1"),
        (_header({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}), UnsupportedFormat, "'w'"),
        (_header({"w": {"dtype": "F32", "shape": [1 << 40] * 2, "data_offsets": [0, 4]}}), UnsupportedFormat, "'w'"),
        (_header({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}), TruncatedContent, "cut short"),
        (
            _header({n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}) + bytes(4),
            ArtifactError,
            "overlap",
        ),
    ],
)  # fmt: skip
def test_malformed_headers_are_refused(tmp_path: Path, data: bytes, kind: type[DockyardError], where: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(kind) as caught:
        read_facts([path])
    assert where in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", ["{", "[" * 100_000, "\x00", '{"model_type": "llama"'])
def test_broken_settings_are_named(tmp_path: Path, name: str, content: str) -> None:
    _folder(tmp_path)
    (tmp_path / name).write_text(content)
    with pytest.raises(UnsupportedFormat, match=name):
        read_facts([tmp_path])


def test_settings_of_the_wrong_type_are_taken_as_absent(tmp_path: Path) -> None:
    config = {"model_type": 3, "hidden_size": "8", "num_attention_heads": -4, "rope_theta": "x", "architectures": 5}
    facts = read_facts([_folder(tmp_path, config)])
    assert (facts.architecture, facts.embedding, facts.heads, facts.rope_base) == (None, None, None, None)


WHOLE = safetensors_bytes(TENSORS)


@settings(max_examples=150, deadline=None)
@given(data=st.one_of(st.binary(max_size=200), st.integers(0, len(WHOLE) - 1).map(lambda cut: WHOLE[:cut])))
def test_noise_and_cuts_never_break_the_reader(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.safetensors"
    path.write_bytes(data)
    with pytest.raises(DockyardError):
        read_facts([path])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
KEYS = (*LLAMA, "quantization_config", "rope_scaling", "rope_parameters", "text_config", "id2label", "head_dim")


@settings(max_examples=150, deadline=None)
@given(changes=st.dictionaries(st.sampled_from(KEYS), JSON, max_size=6))
def test_any_configuration_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]
) -> None:
    folder = tmp_path_factory.getbasetemp() / "configured"
    try:
        read_facts([_folder(folder, {**LLAMA, **changes})])
    except DockyardError:
        pass


def _adapter(folder: Path, config: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    name = "base_model.model.model.layers.0.self_attn.{}.lora_{}.weight"
    tensors = {
        name.format(module, side): ("F32", shape, 4 * 64)
        for module in ("q_proj", "v_proj")
        for side, shape in (("A", (8, 8)), ("B", (8, 8)))
    }
    (folder / "adapter_model.safetensors").write_bytes(safetensors_bytes(tensors))
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def test_an_adapter_says_rank_alpha_targets_and_base(tmp_path: Path) -> None:
    config = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "base_model_name_or_path": "org/base"}
    facts = read_facts([_adapter(tmp_path, {**config, "target_modules": ["v_proj", "q_proj"]})])
    assert (facts.format, facts.architecture, facts.base) == ("peft", "lora", "org/base")
    assert (facts.adapter_rank, facts.adapter_alpha, facts.adapter_targets) == (8, 16.0, ("q_proj", "v_proj"))
    assert facts.parameters == 256
    pattern = read_facts([_adapter(tmp_path, {**config, "target_modules": ".*_proj"})])
    assert pattern.adapter_targets == ("q_proj", "v_proj")


def test_an_adapter_needs_its_configuration(tmp_path: Path) -> None:
    _adapter(tmp_path, {})
    with pytest.raises(UnsupportedFormat, match="peft_type"):
        read_facts([tmp_path])
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(UnsupportedFormat, match=r"adapter_config\.json"):
        read_facts([tmp_path])


def test_the_larger_of_model_and_adapter_counts(tmp_path: Path) -> None:
    _adapter(tmp_path / "adapter", {"peft_type": "LORA"})
    _folder(tmp_path, tensors={"w": ("F32", (64, 64), 16384)})
    assert weight_files([tmp_path]) == ("safetensors", [tmp_path / "model.safetensors"])
    assert detect(tmp_path / "adapter") == "peft"
