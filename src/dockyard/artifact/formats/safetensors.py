"""Safetensors: a folder as transformers or diffusers saves it, or a single file.

A file is a length (u64, little endian), that many bytes of JSON (tensor name → dtype, shape, data_offsets), the data.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import msgspec

from dockyard.artifact.formats import _beside, _configuration
from dockyard.artifact.formats._tensors import Tensor, add_up, element_count
from dockyard.errors import ArtifactError, TruncatedContent, UnsupportedFormat
from dockyard.types import Format, ModelFacts

MAX_HEADER = 100_000_000
"""The format's own limit, from its reference implementation."""

_BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


class _Entry(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class Safetensors:
    """Reader of safetensors headers and of the configuration beside them."""

    name: Format = "safetensors"

    def weights(self, files: Sequence[Path]) -> list[Path]:
        """All ``*.safetensors`` but those of a PEFT adapter; the ones of a shard index where there is one."""
        return [
            path
            for path in files
            if path.suffix.lower() == ".safetensors" and not path.name.startswith("adapter_model")
        ]

    def read(self, weights: Sequence[Path], files: Sequence[Path]) -> ModelFacts:
        weights = complete(weights, files)
        config = _beside.read_object(_beside.find("config.json", weights, files))
        bits = _configuration.packed_bits(config)
        tensors = [tensor for path in weights for tensor in read_tensors(path)]
        totals = add_up([_unpack(tensor, bits) for tensor in tensors])
        return _configuration.facts("safetensors", totals, weights, files)


PLUGIN = Safetensors()


def complete(weights: Sequence[Path], files: Sequence[Path]) -> list[Path]:
    """The weights and every shard that an index beside them names. Raises ArtifactError for a missing shard."""
    found = dict.fromkeys(weights)
    folders = dict.fromkeys(path.parent for path in weights)
    indices = [path for folder in folders for path in sorted(folder.glob("*.safetensors.index.json"))]
    for index in dict.fromkeys([*indices, *(path for path in files if path.name.endswith(".safetensors.index.json"))]):
        shards = _beside.read_object(index).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
            raise UnsupportedFormat(f"{index}: no weight_map of tensor to file", param=str(index))
        for name in sorted(set(shards.values())):
            path = _beside.contained(index.parent, name, index)
            same = [given for given in weights if given.name == path.name]
            found[same[0] if same and not path.is_file() else _beside.require(path, index)] = None
    return list(found)


def read_tensors(path: Path) -> list[Tensor]:
    """The tensors of one file. Raises UnsupportedFormat or TruncatedContent, naming the file and the tensor."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise TruncatedContent(f"{path}: {size} bytes are too few for a safetensors header", param=str(path))
        (length,) = struct.unpack("<Q", prefix)
        if length > MAX_HEADER:
            raise UnsupportedFormat(f"{path}: states a header of {length} bytes; at most {MAX_HEADER} are allowed")
        if length > size - 8:
            raise TruncatedContent(
                f"{path}: a header of {length} bytes at byte 8, and the file ends at {size}", param=str(path)
            )
        data = file.read(length)
    entries = _entries(path, data)
    tensors, spans = [], []
    for name, entry in entries.items():
        start, end = entry.data_offsets
        bits = _BITS.get(entry.dtype)
        if bits is None:
            raise UnsupportedFormat(f"{path}: tensor {name!r} has the unknown dtype {entry.dtype!r}")
        if any(side < 0 for side in entry.shape):
            raise UnsupportedFormat(f"{path}: tensor {name!r} has the shape {list(entry.shape)}")
        elements = element_count(entry.shape, f"{path}: {name!r}")
        if not 0 <= start <= end or (elements * bits + 7) // 8 != end - start:
            raise UnsupportedFormat(
                f"{path}: tensor {name!r} of {elements} x {entry.dtype} spans bytes {start} to {end} of the data"
            )
        spans.append((start, end))
        tensors.append(Tensor(name, entry.shape, entry.dtype, elements, end - start))
    _check_spans(path, sorted(spans), size - 8 - length)
    return tensors


def _entries(path: Path, data: bytes) -> dict[str, _Entry]:
    try:
        raw = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        raw.pop("__metadata__", None)
        return {name: msgspec.json.decode(value, type=_Entry) for name, value in raw.items()}
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise UnsupportedFormat(f"{path}: malformed safetensors header: {error}", param=str(path)) from error


def _check_spans(path: Path, spans: list[tuple[int, int]], available: int) -> None:
    for (_, end), (start, _) in pairwise(spans):
        if start < end:
            raise ArtifactError(f"{path}: tensors overlap at byte {start} of the data", param=str(path))
    if spans and spans[-1][1] > available:
        raise TruncatedContent(
            f"{path}: tensors need {spans[-1][1]} bytes of data, and {available} are there",
            param=str(path),
            hint="the file was cut short: fetch it again",
        )


def _unpack(tensor: Tensor, bits: int | None) -> Tensor:
    """The tensor with the count of the weights packed in it, by the conventions of GPTQ, AWQ and bitsandbytes."""
    if bits and tensor.dtype == "I32" and tensor.name.endswith("qweight"):
        return Tensor(tensor.name, tensor.shape, f"INT{bits}", tensor.elements * 32 // bits, tensor.size)
    if bits == 4 and tensor.dtype == "U8" and tensor.name.endswith(".weight"):
        return Tensor(tensor.name, tensor.shape, "INT4", tensor.elements * 2, tensor.size)
    return tensor
