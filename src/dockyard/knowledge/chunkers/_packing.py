"""Pieces put together to passages of about a size, with some of the last at the head of the next."""

from __future__ import annotations

from collections.abc import Sequence


def pack(pieces: Sequence[tuple[int, int]], size: int, overlap: int) -> list[tuple[int, int]]:
    """Neighbouring pieces in one span as long as it has at most ``size`` characters; longer pieces are cut up."""
    found: list[tuple[int, int]] = []
    first = last = None
    for begin, end in split_long(pieces, size):
        if first is not None and last is not None and end - first > size:
            found.append((first, last))
            first = _overlapping(pieces, last, overlap, begin, end, size)
        if first is None:
            first = begin
        last = end
    if first is not None and last is not None:
        found.append((first, last))
    return found


def split_long(pieces: Sequence[tuple[int, int]], size: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for begin, end in pieces:
        while end - begin > size:
            found.append((begin, begin + size))
            begin += size
        found.append((begin, end))
    return found


def _overlapping(pieces: Sequence[tuple[int, int]], last: int, overlap: int, begin: int, end: int, size: int) -> int:
    """Where the next span begins: at the first piece that ends by ``last`` and lies within the overlap."""
    if not overlap:
        return begin
    least = max(last - overlap, end - size)
    return next((start for start, stop in pieces if start >= least and stop <= last), begin)
