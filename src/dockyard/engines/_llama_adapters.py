"""Low-rank adapters for llama.cpp: GGUF as they are, PEFT written anew as GGUF, once, under the adapter's digest.

Layout and names follow llama.cpp's convert_lora_to_gguf.py. Its ``llama`` architecture keeps the rows of query and key
heads in another order than transformers does, so that the rows of their B matrices move along.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import msgspec

from dockyard.errors import LoadFailed, UnsupportedFormat
from dockyard.types import Adapter, Json, ModelFacts, ModelFiles

ALIGNMENT = 32
ARCHITECTURES = frozenset({"llama", "qwen2", "qwen3"})
"""Those whose PEFT adapters can be converted; others have tensors that are fused or ordered otherwise."""

_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip
_TENSOR = re.compile(r"(?:base_model\.model\.)?model\.layers\.(\d+)\.([\w.]+)\.lora_([AB])(?:\.default)?\.weight")
_F32, _F16 = 0, 1
_WIDTH = {_F32: 4, _F16: 2}


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


class _Config(msgspec.Struct, frozen=True):
    """What of adapter_config.json decides how an adapter computes."""

    peft_type: str = "LORA"
    r: int = 8
    lora_alpha: float = 8
    use_rslora: bool = False
    use_dora: bool = False
    fan_in_fan_out: bool = False
    alpha_pattern: dict[str, float] = {}
    modules_to_save: list[str] | None = None


class _Piece(msgspec.Struct, frozen=True):
    name: str
    shape: tuple[int, int]
    kind: int
    data: bytes


def as_gguf(adapter: Adapter, files: ModelFiles, cache: Path) -> str:
    """The path of an adapter's GGUF. Raises UnsupportedFormat for what llama.cpp has no place for."""
    path = Path(adapter.path)
    if path.is_file():
        if path.suffix != ".safetensors":
            return str(path)
        path = path.parent
    elif found := sorted(path.glob("*.gguf")):
        return str(found[0])
    target = cache / f"{adapter.digest.rpartition(':')[2] or 'unnamed'}-{files.facts.architecture}.gguf"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_suffix(f".{os.getpid()}.part")
        try:
            with aside.open("wb") as out:
                _convert(path, adapter.name, files.facts, out)
            aside.replace(target)
        finally:
            aside.unlink(missing_ok=True)
    return str(target)


def size(files: ModelFiles) -> int:
    """Bytes that the adapters on offer take in memory, as large as their files."""
    total = 0
    for each in files.offers:
        path = Path(each.path)
        inside = [path] if path.is_file() else [*path.glob("*.safetensors"), *path.glob("*.gguf")]
        total += sum(file.stat().st_size for file in inside)
    return total


def _convert(folder: Path, name: str, facts: ModelFacts, out: BinaryIO) -> None:
    if facts.architecture not in ARCHITECTURES:
        raise UnsupportedFormat(
            f"adapter {name}: PEFT adapters of {facts.architecture} models can't be converted here",
            hint="convert it with llama.cpp's convert_lora_to_gguf.py",
        )
    try:
        config = msgspec.json.decode((folder / "adapter_config.json").read_bytes(), type=_Config)
        pieces = _pieces(folder / "adapter_model.safetensors", name, facts)
    except (OSError, msgspec.DecodeError, struct.error) as error:
        raise LoadFailed(f"adapter {name} can't be read: {error}") from error
    if config.peft_type != "LORA" or config.use_dora or config.fan_in_fan_out or config.alpha_pattern:
        raise UnsupportedFormat(f"adapter {name}: llama.cpp takes plain LoRA only")
    if config.modules_to_save:
        raise UnsupportedFormat(f"adapter {name} replaces whole modules, which llama.cpp's adapters can't")
    alpha = config.lora_alpha * (config.r**0.5 if config.use_rslora else 1.0)
    _write(out, str(facts.architecture), alpha, pieces)


def _pieces(path: Path, name: str, facts: ModelFacts) -> list[_Piece]:
    pieces: list[_Piece] = []
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > path.stat().st_size:
            raise LoadFailed(f"adapter {name}: {path.name} is cut short")
        header: Mapping[str, Json] = msgspec.json.decode(file.read(length))
        for key, value in header.items():
            if key == "__metadata__":
                continue
            entry = msgspec.convert(value, _Entry)
            file.seek(8 + length + entry.data_offsets[0])
            data = file.read(entry.data_offsets[1] - entry.data_offsets[0])
            pieces.append(_piece(key, entry, data, name, facts))
    return pieces


def _piece(key: str, entry: _Entry, data: bytes, name: str, facts: ModelFacts) -> _Piece:
    match = _TENSOR.fullmatch(key)
    module = _NAMES.get(match[2]) if match else None
    if match is None or module is None or len(entry.shape) != 2:
        raise UnsupportedFormat(f"adapter {name}: llama.cpp has no place for the tensor {key}")
    kind, data = _numbers(entry.dtype, data, f"adapter {name}: {key}")
    rows, columns = entry.shape
    if len(data) != rows * columns * _WIDTH[kind]:
        raise LoadFailed(f"adapter {name}: {key} is cut short")
    if match[3] == "B" and facts.architecture == "llama" and module in ("attn_q", "attn_k"):
        heads = facts.heads if module == "attn_q" else facts.kv_heads or facts.heads
        data = _reordered(data, rows, heads or 1)
    return _Piece(f"blk.{match[1]}.{module}.weight.lora_{match[3].lower()}", (columns, rows), kind, data)


def _numbers(dtype: str, data: bytes, what: str) -> tuple[int, bytes]:
    if dtype == "F32":
        return _F32, data
    if dtype == "F16":
        return _F16, data
    if dtype != "BF16":
        raise UnsupportedFormat(f"{what} holds {dtype}")
    wide = bytearray(2 * len(data))
    wide[2::4], wide[3::4] = data[0::2], data[1::2]
    return _F32, bytes(wide)


def _reordered(data: bytes, rows: int, heads: int) -> bytes:
    """Each head's first and second half, taken in turns."""
    width, size = len(data) // rows, rows // heads
    half = size // 2
    order = (head * size + side * half + row for head in range(heads) for row in range(half) for side in (0, 1))
    return b"".join(data[row * width : (row + 1) * width] for row in order)


def _write(out: BinaryIO, architecture: str, alpha: float, pieces: list[_Piece]) -> None:
    pairs = {"general.architecture": architecture, "general.type": "adapter", "adapter.type": "lora"}
    out.write(b"GGUF" + struct.pack("<IQQ", 3, len(pieces), len(pairs) + 1))
    for key, value in pairs.items():
        out.write(_text(key) + struct.pack("<I", 8) + _text(value))
    out.write(_text("adapter.lora.alpha") + struct.pack("<If", 6, alpha))
    offset = 0
    for piece in pieces:
        out.write(_text(piece.name) + struct.pack("<IQQIQ", 2, *piece.shape, piece.kind, offset))
        offset += -(-len(piece.data) // ALIGNMENT) * ALIGNMENT
    out.write(bytes(-out.tell() % ALIGNMENT))
    for piece in pieces:
        out.write(piece.data + bytes(-len(piece.data) % ALIGNMENT))


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data
