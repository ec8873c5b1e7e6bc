"""Protocol buffers' wire format, read field by field from a mapped file: no schema, no copies of what is skipped."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dockyard.errors import TruncatedContent, UnsupportedFormat

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_TEXT = 1 << 16


class Field(NamedTuple):
    """``value`` is the number of a VARINT field; ``start`` and ``end`` bound the payload of any other."""

    number: int
    wire: int
    value: int
    start: int
    end: int


class Message:
    """The bytes ``start`` to ``end`` of a file, taken as a message."""

    def __init__(self, path: Path, data: mmap.mmap, start: int, end: int) -> None:
        self.path, self.data, self.start, self.end = path, data, start, end

    def fields(self) -> Iterator[Field]:
        """Each field in turn. Raises UnsupportedFormat or TruncatedContent with the byte."""
        at = self.start
        while at < self.end:
            begin = at
            key, at = self._varint(at)
            number, wire = key >> 3, key & 7
            if number == 0 or number >= 1 << 29:
                raise UnsupportedFormat(f"{self.path}: malformed protobuf at byte {begin}", param=str(self.path))
            if wire == VARINT:
                value, at = self._varint(at)
                yield Field(number, wire, value, at, at)
                continue
            if wire == BYTES:
                length, at = self._varint(at)
            elif wire in (FIXED64, FIXED32):
                length = 8 if wire == FIXED64 else 4
            else:
                raise UnsupportedFormat(f"{self.path}: wire type {wire} at byte {begin}", param=str(self.path))
            if length > self.end - at:
                raise TruncatedContent(
                    f"{self.path}: field {number} at byte {begin} needs {length} bytes, and {self.end - at} are left",
                    param=str(self.path),
                    hint="the file was cut short: fetch it again",
                )
            yield Field(number, wire, 0, at, at + length)
            at += length

    def inside(self, field: Field) -> Message:
        """The message in a BYTES field; an empty one for a field of another wire type."""
        return Message(self.path, self.data, field.start, field.end if field.wire == BYTES else field.start)

    def text(self, field: Field) -> str:
        """The text in a BYTES field, at most 64 KB of it."""
        return self.data[field.start : min(field.end, field.start + MAX_TEXT)].decode("utf-8", "replace")

    def numbers(self, field: Field, limit: int) -> list[int]:
        """The values of a repeated integer field, packed or not; an error for more than ``limit``."""
        if field.wire == VARINT:
            return [field.value]
        found, at = [], field.start
        while at < field.end:
            value, at = self._varint(at)
            found.append(value)
            if len(found) > limit:
                raise UnsupportedFormat(f"{self.path}: more than {limit} numbers at byte {field.start}")
        return found

    def _varint(self, at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            if at >= self.end:
                raise TruncatedContent(f"{self.path}: a number at byte {at} is cut short", param=str(self.path))
            byte = self.data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & 0xFFFFFFFFFFFFFFFF, at
            shift += 7
            if shift > 63:
                raise UnsupportedFormat(f"{self.path}: a number at byte {at} is too long", param=str(self.path))
