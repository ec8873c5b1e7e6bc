"""Small writers of model files, so that tests can say exactly what is in them."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

U32, I32, F32, BOOL, STRING, ARRAY, U64, F64 = 4, 5, 6, 7, 8, 9, 10, 12
_CODES = {0: "B", 1: "b", 2: "H", 3: "h", U32: "I", I32: "i", F32: "f", BOOL: "?", U64: "Q", 11: "q", F64: "d"}
_SIZES = {0: (1, 4), 1: (1, 2), 2: (32, 18), 8: (32, 34), 12: (256, 144)}


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def _value(kind: int, value: Any) -> bytes:
    if kind == STRING:
        return text(value)
    if kind == ARRAY:
        item, values = value
        return struct.pack("<IQ", item, len(values)) + b"".join(_value(item, each) for each in values)
    return struct.pack("<" + _CODES[kind], value)


def gguf_bytes(
    pairs: Mapping[str, tuple[int, Any]],
    tensors: Iterable[tuple[str, tuple[int, ...], int]] = (),
    *,
    version: int = 3,
    alignment: int = 32,
) -> bytes:
    """A whole GGUF file; weights are zeros. A pair is its type and value, an array's value (item type, items)."""
    tensors = list(tensors)
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs))
    for key, (kind, value) in pairs.items():
        head += text(key) + struct.pack("<I", kind) + _value(kind, value)
    offset = 0
    for name, shape, kind in tensors:
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        block, width = _SIZES[kind]
        elements = 1
        for side in shape:
            elements *= side
        offset += -(-(elements // block * width) // alignment) * alignment
    return head + bytes(-len(head) % alignment) + bytes(offset)


def llama_pairs(**changes: tuple[int, Any]) -> dict[str, tuple[int, Any]]:
    """The metadata of a small llama; ``changes`` name keys with ``__`` for the dot."""
    pairs: dict[str, tuple[int, Any]] = {
        "general.architecture": (STRING, "llama"),
        "general.name": (STRING, "Tiny"),
        "general.license": (STRING, "apache-2.0"),
        "general.file_type": (U32, 7),
        "llama.block_count": (U32, 2),
        "llama.context_length": (U32, 128),
        "llama.embedding_length": (U32, 64),
        "llama.feed_forward_length": (U32, 96),
        "llama.attention.head_count": (U32, 4),
        "llama.attention.head_count_kv": (U32, 2),
        "llama.rope.freq_base": (F32, 10000.0),
        "tokenizer.ggml.model": (STRING, "llama"),
        "tokenizer.ggml.tokens": (ARRAY, (STRING, [f"t{index}" for index in range(100)])),
    }
    return pairs | {name.replace("__", "."): value for name, value in changes.items()}


def llama_tensors() -> list[tuple[str, tuple[int, ...], int]]:
    """Tensors that fit ``llama_pairs``: Q8_0 matrices, F32 norms, no output head (tied)."""
    table: list[tuple[str, tuple[int, ...], int]] = [("token_embd.weight", (64, 100), 8)]
    for block in range(2):
        for name, shape in {
            "attn_q": (64, 64), "attn_k": (64, 32), "attn_v": (64, 32), "attn_output": (64, 64),
            "ffn_gate": (64, 96), "ffn_up": (64, 96), "ffn_down": (96, 64),
        }.items():  # fmt: skip
            table.append((f"blk.{block}.{name}.weight", shape, 8))
        table += [(f"blk.{block}.attn_norm.weight", (64,), 0), (f"blk.{block}.ffn_norm.weight", (64,), 0)]
    return [*table, ("output_norm.weight", (64,), 0)]


def tiny_gguf(path: Path, **changes: tuple[int, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gguf_bytes(llama_pairs(**changes), llama_tensors()))
    return path


def safetensors_bytes(tensors: Mapping[str, tuple[str, tuple[int, ...], int]]) -> bytes:
    """A safetensors file of zeros; a tensor is its dtype, shape and bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    data = json.dumps(header).encode()
    return struct.pack("<Q", len(data)) + data + bytes(at)


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | str | bytes) -> bytes:
    """One protobuf field: a varint, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def onnx_port(name: str, *shape: int | str, kind: int = 1) -> bytes:
    sides = b"".join(field(1, field(1, side) if isinstance(side, int) else field(2, side)) for side in shape)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, sides)))


def onnx_tensor(name: str, *shape: int, kind: int = 1, data: bytes | None = None, **external: str) -> bytes:
    """A TensorProto; four zero bytes an element unless ``data`` or ``external`` (location, offset, length) say else."""
    body = b"".join(field(1, side) for side in shape) + field(2, kind) + field(8, name)
    if external:
        return body + b"".join(field(13, field(1, key) + field(2, value)) for key, value in external.items())
    elements = 1
    for side in shape:
        elements *= side
    return body + field(9, bytes(4 * elements) if data is None else data)


def onnx_bytes(
    *,
    inputs: Iterable[bytes] = (),
    outputs: Iterable[bytes] = (),
    tensors: Iterable[bytes] = (),
    nodes: Iterable[bytes] = (),
) -> bytes:
    graph = b"".join(field(1, node) for node in nodes) + field(2, "main")
    graph += b"".join(field(5, tensor) for tensor in tensors)
    graph += b"".join(field(11, port) for port in inputs) + b"".join(field(12, port) for port in outputs)
    opset = field(8, field(1, "") + field(2, 17)) + field(8, field(1, "com.microsoft") + field(2, 1))
    return field(1, 8) + field(2, "pytorch") + field(3, "2.9") + opset + field(7, graph)


def ir_xml(constants: Iterable[tuple[str, str, tuple[int, ...], int, int]], rt_info: str = "", prolog: str = "") -> str:
    """An OpenVINO IR of ``Const`` layers: name, element type, shape, offset, size."""
    layers = "".join(
        f'<layer id="{index}" name="{name}" type="Const" version="opset1"><data element_type="{dtype}" '
        f'shape="{",".join(map(str, shape))}" offset="{offset}" size="{size}"/></layer>'
        for index, (name, dtype, shape, offset, size) in enumerate(constants)
    )
    return (
        f'<?xml version="1.0"?>{prolog}<net name="Model0" version="11"><layers>{layers}</layers>'
        f"<edges/><rt_info>{rt_info}</rt_info></net>"
    )
