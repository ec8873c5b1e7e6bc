"""A GGUF file opened whole: metadata with its long arrays, and tensors as numbers.

The header is checked by ``artifact.formats`` first, so that lengths can be trusted here. The ``gguf`` package reads the
same in ten seconds and more for a vocabulary of 50,000 words, which this does in a tenth of one.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Any

import msgspec

from dockyard.artifact.formats._gguf_header import read_header
from dockyard.artifact.formats._gguf_types import ARRAY, SCALARS, STRING
from dockyard.artifact.formats._tensors import Tensor
from dockyard.types import Json


class GgufFile(msgspec.Struct, frozen=True):
    """``values`` are the pairs of the header; ``kinds`` their types as (type, item type of an array)."""

    path: Path
    values: dict[str, Json]
    kinds: dict[str, tuple[int, int | None]]
    tensors: dict[str, Tensor]
    offsets: dict[str, int]

    def raw(self, name: str) -> Any:
        """A tensor's bytes as they lie in the file: uint8, shape [rows, bytes of a row]."""
        import numpy as np

        tensor = self.tensors[name]
        rows = 1
        for size in tensor.shape[1:]:
            rows *= size
        return np.memmap(self.path, np.uint8, "r", self.offsets[name], (tensor.size,)).reshape(rows, -1)

    def floats(self, name: str) -> Any:
        """A tensor dequantised: float32, in the order of axes that numpy and torch use."""
        import gguf
        import numpy as np

        tensor = self.tensors[name]
        kind = gguf.GGMLQuantizationType[tensor.dtype]
        shape = tuple(reversed(tensor.shape))
        if kind == gguf.GGMLQuantizationType.F32:
            return np.array(self.raw(name)).view(np.float32).reshape(shape)
        if kind == gguf.GGMLQuantizationType.F16:
            return np.array(self.raw(name)).view(np.float16).astype(np.float32).reshape(shape)
        return gguf.quants.dequantize(np.array(self.raw(name)), kind).reshape(shape)


def read_gguf(path: Path) -> GgufFile:
    """Open a file of one shard. Raises what reading its header raises."""
    header = read_header(path)
    values: dict[str, Json] = {}
    kinds: dict[str, tuple[int, int | None]] = {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = 24
        (pairs,) = struct.unpack_from("<Q", data, 16)
        for _ in range(pairs):
            key, at = _text(data, at)
            (kind,) = struct.unpack_from("<I", data, at)
            inner = struct.unpack_from("<I", data, at + 4)[0] if kind == ARRAY else None
            values[key], at = _value(data, at + 4, kind)
            kinds[key] = (kind, inner)
    tensors = {tensor.name: tensor for tensor in header.tensors}
    return GgufFile(path, values, kinds, tensors, dict(header.offsets))


def _text(data: mmap.mmap, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", data, at)
    return data[at + 8 : at + 8 + length].decode("utf-8", "surrogateescape"), at + 8 + length


def _value(data: mmap.mmap, at: int, kind: int) -> tuple[Json, int]:
    if kind == STRING:
        return _text(data, at)
    if kind != ARRAY:
        code = "<" + SCALARS[kind]
        return struct.unpack_from(code, data, at)[0], at + struct.calcsize(code)
    inner, count = struct.unpack_from("<IQ", data, at)
    at += 12
    if each := SCALARS.get(inner):
        return list(struct.unpack_from(f"<{count}{each}", data, at)), at + count * struct.calcsize("<" + each)
    items: list[Json] = []
    item: Json
    for _ in range(count):
        item, at = _value(data, at, inner)
        items.append(item)
    return items, at
