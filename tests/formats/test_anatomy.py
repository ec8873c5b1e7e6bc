"""Facts shown as the parts of a transformer, and the KV cache that follows from them."""

from __future__ import annotations

from pathlib import Path

import pytest
from header_writers import tiny_gguf

from dockyard.artifact.anatomy import Part, count, describe, kv_bytes, lines, size
from dockyard.artifact.formats import read_facts
from dockyard.types import ModelFacts


def _by_name(parts: tuple[Part, ...]) -> dict[str, Part]:
    found = {}
    for part in parts:
        found[part.name] = part
        found.update(_by_name(part.parts))
    return found


def test_the_starter_model_as_a_transformer(starter_gguf: Path) -> None:
    anatomy = describe(read_facts([starter_gguf]))
    parts = _by_name(anatomy.parts)
    assert parts["transformer block"].times == 30
    attention = parts["self-attention (grouped-query)"]
    assert attention.shapes == {"query": (576, 576), "key": (576, 192), "value": (576, 192), "output": (576, 576)}
    assert attention.weights == 30 * (2 * 576 * 576 + 2 * 576 * 192)
    assert parts["feed-forward"].shapes == {"gate": (576, 1536), "up": (576, 1536), "down": (1536, 576)}
    assert parts["feed-forward"].weights == 30 * 3 * 576 * 1536
    assert parts["token embedding"].shapes == {"table": (49152, 576)}
    assert parts["normalisation"].weights == 61 * 576
    assert anatomy.tied
    assert "second time" in parts["output head"].does
    assert anatomy.kv_bytes_per_token == 2 * 30 * 3 * 64 * 2


def test_parts_account_for_every_weight_and_byte(starter_gguf: Path) -> None:
    anatomy = describe(read_facts([starter_gguf]))
    assert sum(part.weights or 0 for part in anatomy.parts) == anatomy.weights
    assert sum(part.bytes or 0 for part in anatomy.parts) == anatomy.bytes


def test_the_tree_is_drawn(starter_gguf: Path) -> None:
    drawn = lines(describe(read_facts([starter_gguf])))
    assert drawn[0] == "llama · 134.5M weights · Q4_1 · 96.6 MB · context 8192 · Apache-2.0"
    text = "\n".join(drawn)
    for expected in (
        "30 x transformer block",
        "├─ self-attention (grouped-query)",
        "576 x 192",
        "rotary",
        "KV cache: 23.0 kB",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("tokens", "width", "expected"), [(0, 2.0, 0), (1, 2.0, 23_040), (8192, 2.0, 188_743_680), (3, 0.5, 17_280)]
)
def test_kv_cache_follows_the_formula(starter_gguf: Path, tokens: int, width: float, expected: int) -> None:
    facts = read_facts([starter_gguf])
    assert kv_bytes(facts, tokens, width) == expected


def test_without_kv_elements_the_cache_follows_from_the_dimensions() -> None:
    facts = ModelFacts(format="onnx", layers=2, kv_heads=3, head_size=4)
    assert kv_bytes(facts, 10) == 2 * 2 * 3 * 4 * 10 * 2
    assert kv_bytes(ModelFacts(format="unknown"), 10) == 0


def test_layers_without_attention_take_no_cache(tmp_path: Path) -> None:
    path = tiny_gguf(tmp_path / "m.gguf", llama__attention__head_count_kv=(9, (4, [2, 0])))
    assert kv_bytes(read_facts([path]), 1) == 2 * 2 * 16 * 2


def test_an_adapter_is_not_drawn_as_a_model() -> None:
    facts = ModelFacts(
        format="peft", architecture="lora", parameters=256, weight_bytes=1024, adapter_rank=8, adapter_alpha=16.0,
        adapter_targets=("q_proj", "v_proj"), base="org/base",
    )  # fmt: skip
    (part,) = describe(facts).parts
    assert part.name == "lora, rank 8, alpha 16"
    assert "q_proj, v_proj of org/base" in part.does


def test_little_known_is_little_said() -> None:
    assert lines(describe(ModelFacts(format="onnx")))[0] == "unknown architecture"


def test_numbers_are_short() -> None:
    assert [count(number) for number in (0, 999, 1000, 134_515_008, 7_000_000_000)] == [
        "0",
        "999",
        "1.0K",
        "134.5M",
        "7.0B",
    ]
    assert [size(number) for number in (12, 96_576_768, None)] == ["12 B", "96.6 MB", "0 B"]
