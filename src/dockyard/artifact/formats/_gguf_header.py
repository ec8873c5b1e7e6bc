"""The header of a GGUF file: its key-value pairs and tensor table, without the weights.

Layout (ggml/docs/gguf.md, little endian): magic "GGUF", version u32, tensor count u64, pair count u64, the pairs, the
tensor table, padding to ``general.alignment``, the weights. The file is mapped, not read: long arrays such as a
vocabulary are stepped over, and every length is checked against what is left of the file.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

import msgspec

from dockyard.artifact.formats._gguf_types import ARRAY, SCALARS, STRING, TENSOR_TYPES
from dockyard.artifact.formats._tensors import Tensor, element_count
from dockyard.errors import TruncatedContent, UnsupportedFormat
from dockyard.types import Json

MAGIC = b"GGUF"
MAX_PAIRS = 1 << 16
MAX_TENSORS = 1 << 16
MAX_KEY = 1 << 16
MAX_TEXT = 1 << 20
MAX_ARRAY = 1 << 24
KEPT_NUMBERS = 1024
KEPT_STRINGS = 64
MAX_DEPTH = 4
MAX_DIMENSIONS = 4


class Header(msgspec.Struct, frozen=True):
    """``values`` holds scalars, text up to 1 MB and short arrays; ``lengths`` the length of every array; ``offsets``
    the byte of the file at which each tensor begins."""

    path: Path
    version: int
    values: dict[str, Json]
    lengths: dict[str, int]
    tensors: tuple[Tensor, ...]
    data_offset: int
    size: int
    offsets: dict[str, int] = {}


def read_header(path: Path) -> Header:
    """Parse the header of ``path``.

    Raises UnsupportedFormat (not GGUF, another version, malformed) or TruncatedContent (the file ends before the
    header or the weights it announces do); both say at which byte.
    """
    size = path.stat().st_size
    if size < 24:
        with path.open("rb") as file:
            known = MAGIC.startswith(file.read(4)) or size >= 4
        kind = TruncatedContent if known and size else UnsupportedFormat
        raise kind(f"{path}: {size} bytes are too few for a GGUF header", param=str(path))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _Reader(path, data, size).header()


class _Reader:
    """A cursor over a mapped file."""

    def __init__(self, path: Path, data: mmap.mmap, size: int) -> None:
        self.path, self.data, self.size, self.at = path, data, size, 0

    def bad(self, what: str, at: int | None = None) -> UnsupportedFormat:
        where = self.at if at is None else at
        return UnsupportedFormat(f"{self.path}: {what} at byte {where}", param=str(self.path))

    def need(self, count: int, what: str) -> None:
        if count > self.size - self.at:
            raise TruncatedContent(
                f"{self.path}: {what} at byte {self.at} needs {count} bytes, and the file ends at {self.size}",
                param=str(self.path),
                hint="the file was cut short: fetch it again",
            )

    def number(self, code: str, what: str) -> int:
        width = struct.calcsize(code)
        self.need(width, what)
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += width
        return int(value)

    def text(self, what: str, limit: int) -> str | None:
        """A string, or None for one longer than ``limit``, which is stepped over."""
        length = self.number("Q", f"length of {what}")
        self.need(length, what)
        start, self.at = self.at, self.at + length
        return self.data[start : self.at].decode("utf-8", "replace") if length <= limit else None

    def header(self) -> Header:
        if self.data[:4] != MAGIC:
            raise UnsupportedFormat(f"{self.path}: not a GGUF file: it begins with {self.data[:4]!r}")
        self.at = 4
        version = self.number("I", "version")
        if version not in (2, 3):
            why = "a big-endian file" if version in (2 << 24, 3 << 24) else f"GGUF version {version}"
            raise UnsupportedFormat(f"{self.path}: {why}; versions 2 and 3, little endian, can be read")
        tensor_count = self.number("Q", "number of tensors")
        pair_count = self.number("Q", "number of pairs")
        if pair_count > MAX_PAIRS:
            raise self.bad(f"{pair_count} key-value pairs", 16)
        if tensor_count > MAX_TENSORS:
            raise self.bad(f"{tensor_count} tensors", 8)
        values: dict[str, Json] = {}
        lengths: dict[str, int] = {}
        for index in range(pair_count):
            self.pair(index, values, lengths)
        alignment = values.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
            raise self.bad(f"general.alignment is {alignment!r}, not a power of two")
        table = [self.tensor() for _ in range(tensor_count)]
        data_offset = -(-self.at // alignment) * alignment
        for tensor, offset in table:
            if offset % alignment:
                raise self.bad(f"tensor {tensor.name!r} starts at {offset}, which is not aligned to {alignment}")
            if data_offset + offset + tensor.size > self.size:
                raise TruncatedContent(
                    f"{self.path}: tensor {tensor.name!r} spans bytes {data_offset + offset} to "
                    f"{data_offset + offset + tensor.size}, and the file ends at {self.size}",
                    param=str(self.path),
                    hint="the file was cut short: fetch it again",
                )
        tensors = tuple(tensor for tensor, _ in table)
        offsets = {tensor.name: data_offset + offset for tensor, offset in table}
        return Header(self.path, version, values, lengths, tensors, data_offset, self.size, offsets)

    def pair(self, index: int, values: dict[str, Json], lengths: dict[str, int]) -> None:
        start = self.at
        key = self.text(f"key {index}", MAX_KEY)
        if not key:
            raise self.bad(f"key {index} is empty or longer than {MAX_KEY} bytes", start)
        if key in values or key in lengths:
            raise self.bad(f"key {key!r} comes twice", start)
        kind = self.number("I", f"type of {key!r}")
        value: Json
        if kind == ARRAY:
            value = self.array(key, lengths, 0)
        elif kind == STRING:
            value = self.text(f"value of {key!r}", MAX_TEXT)
        else:
            value = self.scalar(kind, key)
        if value is not None:
            values[key] = value

    def scalar(self, kind: int, key: str) -> Json:
        code = SCALARS.get(kind)
        if code is None:
            raise self.bad(f"key {key!r} has the unknown type {kind}", self.at - 4)
        self.need(struct.calcsize(code), f"value of {key!r}")
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize(code)
        return value

    def array(self, key: str, lengths: dict[str, int], depth: int) -> list[Json] | None:
        """A short array's items, or None for a long one, which is stepped over."""
        kind = self.number("I", f"item type of {key!r}")
        count = self.number("Q", f"length of {key!r}")
        if depth == 0:
            lengths[key] = count
        if count > MAX_ARRAY or depth >= MAX_DEPTH:
            raise self.bad(f"array {key!r} of {count} items, {depth} deep", self.at - 8)
        if code := SCALARS.get(kind):
            width = struct.calcsize(code)
            self.need(count * width, f"array {key!r}")
            start, self.at = self.at, self.at + count * width
            return list(struct.unpack_from(f"<{count}{code}", self.data, start)) if count <= KEPT_NUMBERS else None
        if kind == STRING:
            return self.strings(key, count)
        if kind != ARRAY:
            raise self.bad(f"array {key!r} has the unknown item type {kind}", self.at - 12)
        self.need(count * 12, f"array {key!r}")
        for _ in range(count):
            self.array(key, lengths, depth + 1)
        return None

    def strings(self, key: str, count: int) -> list[Json] | None:
        self.need(count * 8, f"array {key!r}")
        if count <= KEPT_STRINGS:
            return [self.text(f"item {index} of {key!r}", MAX_KEY) for index in range(count)]
        at, data, last, length_at = self.at, self.data, self.size - 8, struct.Struct("<Q").unpack_from
        for _ in range(count):  # a vocabulary has 10⁵ items and more: no method calls here
            if at > last:
                break
            at += 8 + length_at(data, at)[0]
            if at > self.size:
                break
        else:
            self.at = at
            return None
        self.at = min(at, self.size)
        self.need(8, f"array {key!r}")
        raise self.bad(f"array {key!r} is malformed")

    def tensor(self) -> tuple[Tensor, int]:
        start = self.at
        name = self.text("tensor name", MAX_KEY)
        if not name:
            raise self.bad("a tensor without a name, or with one too long", start)
        dimensions = self.number("I", f"dimensions of {name!r}")
        if dimensions > MAX_DIMENSIONS:
            raise self.bad(f"tensor {name!r} has {dimensions} dimensions", self.at - 4)
        shape = tuple(self.number("Q", f"shape of {name!r}") for _ in range(dimensions))
        kind = self.number("I", f"type of {name!r}")
        offset = self.number("Q", f"offset of {name!r}")
        if kind not in TENSOR_TYPES:
            raise self.bad(f"tensor {name!r} has the unknown type {kind}", self.at - 12)
        dtype, block, width = TENSOR_TYPES[kind]
        elements = element_count(shape, f"{self.path}: {name!r}")
        if shape and shape[0] % block:
            raise self.bad(f"tensor {name!r} of {dtype} has rows of {shape[0]}, not a multiple of {block}", start)
        return Tensor(name, shape, dtype, elements, elements // block * width), offset
