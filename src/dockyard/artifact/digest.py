"""Content digests: ``sha256:<64 hex>`` and ``sha512:<128 hex>``, as OCI writes them."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from dockyard.errors import InvalidReference

if TYPE_CHECKING:
    from collections.abc import Callable

LENGTHS = {"sha256": 64, "sha512": 128}
BLOCK = 256 << 10
"""Bytes read at a time: stays in the processor's cache between hashing and writing."""
_HEX = re.compile(r"[0-9a-f]+")


class Hasher(Protocol):
    """The part of a ``hashlib`` object that we use."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...
    def copy(self) -> Hasher: ...


def split(digest: str) -> tuple[str, str]:
    """``("sha256", hex)``. Raises InvalidReference that says which part is wrong."""
    algorithm, colon, text = digest.partition(":")
    if not colon or not text:
        raise InvalidReference(f"{digest!r} is not a digest", hint="a digest reads sha256:<64 hex digits>")
    length = LENGTHS.get(algorithm)
    if length is None:
        raise InvalidReference(f"digest {digest!r}: {algorithm!r} is not supported", hint="use sha256 or sha512")
    if len(text) != length:
        raise InvalidReference(
            f"digest {digest!r} has {len(text)} hex digits", hint=f"{algorithm} has {length} lower-case hex digits"
        )
    if not _HEX.fullmatch(text):
        raise InvalidReference(
            f"digest {digest!r} has characters that are not lower-case hex digits",
            hint="write it in lower case" if _HEX.fullmatch(text.lower()) else None,
        )
    return algorithm, text


def valid(digest: str) -> bool:
    try:
        split(digest)
    except InvalidReference:
        return False
    return True


def hasher(digest_or_algorithm: str = "sha256") -> Hasher:
    """A fresh hash object for a digest or an algorithm's name."""
    return hashlib.new(digest_or_algorithm.partition(":")[0])


def of_bytes(data: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"


def of_file(path: Path, algorithm: str = "sha256", seen: Callable[[int], None] | None = None) -> str:
    """Digest of a file's content; ``seen`` gets the bytes read so far."""
    with path.open("rb", buffering=0) as file:
        if seen is None:
            return f"{algorithm}:{hashlib.file_digest(file, algorithm).hexdigest()}"
        state, view, total = hashlib.new(algorithm), memoryview(bytearray(BLOCK)), 0
        while count := file.readinto(view):
            state.update(view[:count])
            total += count
            seen(total)
    return f"{algorithm}:{state.hexdigest()}"
