"""GGUF headers: the real starter model, small files that say exactly one thing, and hostile ones."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path

import pytest
from header_writers import (
    ARRAY,
    BOOL,
    F32,
    STRING,
    U32,
    gguf_bytes,
    llama_pairs,
    llama_tensors,
    text,
    tiny_gguf,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from dockyard.artifact.formats import detect, read_facts, weight_files
from dockyard.errors import ArtifactError, DockyardError, TruncatedContent, UnsupportedFormat


def test_the_starter_model_says_what_it_is(starter_gguf: Path) -> None:
    facts = read_facts([starter_gguf])
    assert (facts.format, facts.architecture, facts.quantization, facts.licence) == (
        "gguf",
        "llama",
        "Q4_1",
        "Apache-2.0",
    )
    assert (facts.layers, facts.embedding, facts.heads, facts.kv_heads, facts.head_size) == (30, 576, 9, 3, 64)
    assert (facts.context, facts.vocabulary, facts.feed_forward) == (8192, 49152, 1536)
    assert (facts.attention, facts.positional, facts.rope_base) == ("grouped-query", "rope", 100000.0)
    assert facts.tokenizer == "BPE (smollm)"
    assert facts.parameters == 134_515_008
    assert facts.capabilities == ("chat", "complete")
    assert facts.chat_template is not None
    assert "<|im_start|>" in facts.chat_template
    assert facts.kv_elements == 2 * 30 * 3 * 64


def test_bytes_of_the_parts_add_up_to_the_file_less_its_header(starter_gguf: Path) -> None:
    facts = read_facts([starter_gguf])
    assert sum(facts.tensors.values()) == facts.weight_bytes
    assert sum(facts.weights.values()) == facts.parameters
    header = 1_785_664  # the vocabulary lies in the header
    assert facts.weight_bytes == starter_gguf.stat().st_size - header
    assert set(facts.tensors) == {"embedding", "attention", "feed-forward", "norm"}


def test_reading_the_starter_model_holds_little_memory(starter_gguf: Path) -> None:
    tracemalloc.start()
    read_facts([starter_gguf])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("version", [2, 3])
def test_both_current_versions_are_read(tmp_path: Path, version: int) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf_bytes(llama_pairs(), llama_tensors(), version=version))
    facts = read_facts([path])
    assert facts.parameters == 100 * 64 + 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96 + 2 * 64) + 64
    assert facts.quantization == "Q8_0"


def test_a_gguf_without_a_suffix_is_known_by_its_magic(tmp_path: Path) -> None:
    assert detect(tiny_gguf(tmp_path / "blob")) == "gguf"
    assert detect(tmp_path) == "gguf"


@pytest.mark.parametrize(
    ("pairs", "positional"),
    [
        ({"general__architecture": (STRING, "bloom")}, "alibi"),
        ({"general__architecture": (STRING, "mpt"), "mpt__attention__max_alibi_bias": (F32, 8.0)}, "alibi"),
        ({"llama__rope__dimension_sections": (ARRAY, (U32, [8, 12, 12]))}, "m-rope"),
        ({"general__architecture": (STRING, "t5")}, "relative"),
        ({"general__architecture": (STRING, "mamba")}, "none"),
        ({}, "rope"),
    ],
)
def test_positional_encodings_are_named(tmp_path: Path, pairs: dict[str, tuple[int, object]], positional: str) -> None:
    assert read_facts([tiny_gguf(tmp_path / "m.gguf", **pairs)]).positional == positional


@pytest.mark.parametrize(("kv_heads", "kind"), [(4, "multi-head"), (2, "grouped-query"), (1, "multi-query")])
def test_attention_is_named_by_how_heads_are_shared(tmp_path: Path, kv_heads: int, kind: str) -> None:
    path = tiny_gguf(tmp_path / "m.gguf", llama__attention__head_count_kv=(U32, kv_heads))
    facts = read_facts([path])
    assert facts.attention == kind
    assert facts.kv_elements == 2 * 2 * kv_heads * 16


def test_heads_that_differ_between_layers_are_summed_for_the_cache(tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path / "m.gguf", llama__attention__head_count_kv=(ARRAY, (U32, [2, 0])))
    facts = read_facts([path])
    assert facts.kv_heads == 2
    assert facts.kv_elements == 2 * 2 * 16


def test_what_a_model_can_do_is_guessed(tmp_path: Path) -> None:
    chat = tiny_gguf(tmp_path / "a.gguf", tokenizer__chat_template=(STRING, "{% if tools %}{% endif %}"))
    assert read_facts([chat]).capabilities == ("chat", "complete", "tools")
    embed = tiny_gguf(tmp_path / "b.gguf", llama__pooling_type=(U32, 1))
    assert read_facts([embed]).capabilities == ("embed",)
    rerank = tiny_gguf(tmp_path / "c.gguf", llama__pooling_type=(U32, 4))
    assert read_facts([rerank]).capabilities == ("rerank",)
    infill = tiny_gguf(tmp_path / "d.gguf", tokenizer__ggml__fim_pre_token_id=(U32, 4))
    assert read_facts([infill]).capabilities == ("complete", "infill")


def test_a_template_licence_and_projector_beside_the_model_count(tmp_path: Path) -> None:
    pairs = {key: value for key, value in llama_pairs().items() if key != "general.license"}
    (tmp_path / "model.gguf").write_bytes(gguf_bytes(pairs, llama_tensors()))
    (tmp_path / "mmproj-f16.gguf").write_bytes(gguf_bytes({"general.architecture": (STRING, "clip")}))
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    (tmp_path / "LICENSE").write_text("MIT License\n\nPermission is hereby granted, free of charge, to any person")
    facts = read_facts([tmp_path])
    assert facts.architecture == "llama"
    assert facts.capabilities == ("chat", "complete", "vision")
    assert (facts.chat_template, facts.licence) == ("{{ messages }}", "MIT")


def _shards(folder: Path, count: int = 2) -> list[Path]:
    tensors, paths = llama_tensors(), []
    for number in range(count):
        split = {
            "split.no": (2, number),
            "split.count": (2, count),
            "split.tensors.count": (5, len(tensors)),
        }
        pairs = {**(llama_pairs() if number == 0 else {"general.architecture": (STRING, "llama")}), **split}
        path = folder / f"tiny-{number + 1:05}-of-{count:05}.gguf"
        path.write_bytes(gguf_bytes(pairs, tensors[number::count]))
        paths.append(path)
    return paths


def test_shards_are_read_as_one_model_from_any_of_them(tmp_path: Path) -> None:
    paths = _shards(tmp_path)
    whole = read_facts([tiny_gguf(tmp_path / "whole" / "m.gguf")])
    assert read_facts([tmp_path / paths[1].name]) == whole
    assert read_facts(paths) == whole
    assert weight_files(paths) == ("gguf", paths)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    paths = _shards(tmp_path, 3)
    paths[1].unlink()
    with pytest.raises(ArtifactError, match="tiny-00002-of-00003"):
        read_facts([paths[0]])


def test_two_models_are_not_shards(tmp_path: Path) -> None:
    tiny_gguf(tmp_path / "a.gguf")
    tiny_gguf(tmp_path / "b.gguf")
    with pytest.raises(ArtifactError, match=r"a\.gguf, b\.gguf: several models"):
        read_facts([tmp_path])


def test_a_lora_adapter_says_rank_alpha_and_base(tmp_path: Path) -> None:
    pairs = {
        "general.architecture": (STRING, "llama"),
        "general.type": (STRING, "adapter"),
        "adapter.type": (STRING, "lora"),
        "adapter.lora.alpha": (F32, 16.0),
        "general.base_model.0.name": (STRING, "Tiny"),
    }
    tensors = [("blk.0.attn_q.weight.lora_a", (64, 8), 0), ("blk.0.attn_q.weight.lora_b", (8, 64), 0)]
    (tmp_path / "a.gguf").write_bytes(gguf_bytes(pairs, tensors))
    facts = read_facts([tmp_path])
    assert (facts.adapter_rank, facts.adapter_alpha, facts.base) == (8, 16.0, "Tiny")
    assert facts.adapter_targets == ("attn_q",)
    assert facts.capabilities == ()


WHOLE = gguf_bytes(llama_pairs(odd__flag=(BOOL, True)), llama_tensors())


@pytest.mark.parametrize(
    ("data", "kind", "where"),
    [
        (b"", UnsupportedFormat, "0 bytes"),
        (b"GGUF", TruncatedContent, "4 bytes"),
        (b"GGML" + bytes(40), UnsupportedFormat, "not a GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), UnsupportedFormat, "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), UnsupportedFormat, "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60), UnsupportedFormat, "byte 16"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0), UnsupportedFormat, "byte 8"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 62), TruncatedContent, "byte 32"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<I", 99), UnsupportedFormat, "type 99"),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", ARRAY, STRING, 1 << 23),
            TruncatedContent,
            "array 'k'",
        ),
        (
            b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<IIQ", ARRAY, U32, 1 << 62),
            UnsupportedFormat,
            "items",
        ),
        (gguf_bytes({"general.name": (STRING, "x")}), UnsupportedFormat, "general.architecture"),
        (gguf_bytes(llama_pairs(general__alignment=(U32, 48))), UnsupportedFormat, "alignment is 48"),
        (WHOLE[:-1], TruncatedContent, "output_norm.weight"),
    ],
)
def test_malformed_headers_are_refused_with_the_place(
    tmp_path: Path, data: bytes, kind: type[DockyardError], where: str
) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(kind) as caught:
        read_facts([path])
    assert "bad.gguf" in caught.value.message
    assert where in caught.value.message


def test_arrays_nested_in_arrays_are_bounded(tmp_path: Path) -> None:
    deep = struct.pack("<IQ", ARRAY, 1) * 50
    path = tmp_path / "deep.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + text("k") + struct.pack("<I", ARRAY) + deep)
    with pytest.raises(UnsupportedFormat, match="deep"):
        read_facts([path])


def _never_worse_than_refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    tracemalloc.start()
    try:
        read_facts([path])
    except DockyardError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 16 << 20


@settings(max_examples=150, deadline=None)
@given(cut=st.integers(0, len(WHOLE)))
def test_a_file_cut_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("cut", numbered=True) / "m.gguf"
    path.write_bytes(WHOLE[:cut])
    if cut == len(WHOLE):
        read_facts([path])
    else:
        with pytest.raises(ArtifactError):
            read_facts([path])


@settings(max_examples=250, deadline=None)
@given(at=st.integers(0, 2000), change=st.binary(min_size=1, max_size=12))
def test_changed_bytes_never_break_the_reader(tmp_path_factory: pytest.TempPathFactory, at: int, change: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.gguf"
    _never_worse_than_refused(path, WHOLE[:at] + change + WHOLE[at + len(change) :])


@settings(max_examples=150, deadline=None)
@given(noise=st.binary(max_size=400))
def test_noise_never_breaks_the_reader(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.gguf"
    _never_worse_than_refused(path, b"GGUF\x03\x00\x00\x00" + noise)
