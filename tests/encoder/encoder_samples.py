"""Encoders to test with: the real ones, and tiny ones whose every number is known."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from dockyard.artifact.formats import read_facts
from dockyard.engines import LoadPlan, choose
from dockyard.fleet.runner import Runner, create
from dockyard.hardware import detect
from dockyard.settings import Settings
from dockyard.types import Chunk, LoadOptions, ModelFiles, Request

WORDS = ("[PAD]", "[CLS]", "[SEP]", "one", "two", "three", "four")
VECTORS = tuple((float(n), float(n * n), 1.0) for n in range(len(WORDS)))
"""The vector of each token of the tiny model."""


def files(folder: Path, name: str = "") -> ModelFiles:
    """What the data plane says of a model in a folder."""
    weights = sorted(path for path in folder.rglob("*") if path.suffix in (".onnx", ".xml"))
    facts = read_facts(weights + [path.with_suffix(".bin") for path in weights if path.suffix == ".xml"])
    return ModelFiles(
        reference=name or f"docker.io/ai/{folder.name}:latest", digest=f"sha256:{folder.name}", directory=str(folder),
        format=facts.format, weights=tuple(map(str, weights)), facts=facts,
    )  # fmt: skip


def prepare(model: ModelFiles, log: Path, **options: Any) -> tuple[Runner, LoadPlan]:
    """A runner, not started, as the fleet would make it."""
    chosen = choose(model, LoadOptions(**options), Settings(), detect()).engine
    plan = chosen.plan(model, LoadOptions(**options), Settings(), detect())
    return create(chosen, model, plan, Settings(), log), plan


async def ask(runner: Runner, **fields: Any) -> Chunk:
    """The one chunk that such requests are answered with."""
    fields.setdefault("id", f"r{id(fields)}")
    (chunk,) = [chunk async for chunks in runner.generate(Request(**fields)) for chunk in chunks]
    return chunk


def floats(vector: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(vector) // 4}f", vector))


def cosine(one: bytes, other: bytes) -> float:
    left, right = floats(one), floats(other)
    dot = sum(a * b for a, b in zip(left, right, strict=True))
    return dot / (sum(a * a for a in left) * sum(b * b for b in right)) ** 0.5


def tiny(folder: Path, *, output: str = "last_hidden_state", inputs: tuple[str, ...] = (), **beside: Any) -> Path:
    """A model that looks each token up in ``VECTORS``, with a tokenizer of ``WORDS``; ``beside`` are JSON files."""
    folder.mkdir(parents=True, exist_ok=True)
    table = b"".join(struct.pack("<3f", *vector) for vector in VECTORS)
    rows = _field(1, len(VECTORS)) + _field(1, 3) + _field(2, 1) + _field(8, "table") + _field(9, table)
    gather = _field(1, "table") + _field(1, "input_ids") + _field(2, output) + _field(4, "Gather")
    graph = _field(1, gather) + _field(2, "main") + _field(5, rows)
    for name in ("input_ids", "attention_mask", *inputs):
        graph += _field(11, _port(name, 7, "batch", "sequence"))
    graph += _field(12, _port(output, 1, "batch", "sequence", 3))
    opset = _field(8, _field(1, "") + _field(2, 17))
    (folder / "model.onnx").write_bytes(_field(1, 8) + _field(2, "by hand") + opset + _field(7, graph))
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer()))
    for name, content in {"tokenizer_config": {"model_max_length": 8}, **beside}.items():
        path = folder / f"{name}.json".replace("__", "/")
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return folder


def _tokenizer() -> dict[str, Any]:
    special = {"[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]},
               "[SEP]": {"id": "[SEP]", "ids": [2], "tokens": ["[SEP]"]}}  # fmt: skip

    def piece(name: str, number: int, *, sequence: bool = False) -> dict[str, Any]:
        return {"Sequence" if sequence else "SpecialToken": {"id": name, "type_id": number}}

    one = [piece("[CLS]", 0), piece("A", 0, sequence=True), piece("[SEP]", 0)]
    return {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "decoder": None,
        "added_tokens": [{"id": n, "content": WORDS[n], "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True} for n in range(3)],
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {"type": "TemplateProcessing", "single": one, "special_tokens": special,
                           "pair": [*one, piece("B", 1, sequence=True), piece("[SEP]", 1)]},
        "model": {"type": "WordLevel", "vocab": {word: n for n, word in enumerate(WORDS)}, "unk_token": "[PAD]"},
    }  # fmt: skip


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _port(name: str, kind: int, *shape: int | str) -> bytes:
    sides = b"".join(_field(1, _field(1, side) if isinstance(side, int) else _field(2, side)) for side in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, sides)))
