"""Records that say the same: exactly, or nearly, by MinHash (Broder, 1997) over word 5-grams with banded look-up."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from dockyard.errors import EngineUnavailable
from dockyard.ops.dataset.records import INSTALL, Record, kind_of, text_of

if TYPE_CHECKING:
    import numpy

HASHES = 128
SHINGLE = 5
"""Words of a shingle; a text with fewer is one shingle."""
_WORD = re.compile(r"\w+")


def plain(text: str) -> str:
    """A text without what does not count: case, punctuation, spaces."""
    return " ".join(_WORD.findall(text.lower()))


def exact(records: Sequence[Record]) -> list[int]:
    """The positions of records whose words occurred before; of a table's rows, those whose every value did."""
    seen: set[bytes] = set()
    repeated = []
    for place, record in enumerate(records):
        table = kind_of(record) == "table"
        told = msgspec.json.encode(record, order="sorted") if table else plain(text_of(record)).encode()
        key = hashlib.blake2b(told, digest_size=16).digest()
        if key in seen:
            repeated.append(place)
        seen.add(key)
    return repeated


def near(records: Sequence[Record], least: float) -> list[tuple[int, int, float]]:
    """Records that resemble an earlier one that stays: (place, place of the other, estimated Jaccard similarity).

    ``least`` is the similarity from which on two count as the same, 0 to 1. The estimate's standard error is at most
    0.045. Raises EngineUnavailable without numpy.
    """
    signatures = [signature(text_of(record)) for record in records]
    bands = _bands(least)
    rows = HASHES // bands
    tables: list[dict[bytes, list[int]]] = [defaultdict(list) for _ in range(bands)]
    found = []
    for place, mine in enumerate(signatures):
        keys = [mine[band * rows : (band + 1) * rows].tobytes() for band in range(bands)]
        others = {other for table, key in zip(tables, keys, strict=True) for other in table.get(key, ())}
        best = max(((float((mine == signatures[other]).mean()), -other) for other in others), default=(0.0, 0))
        if others and best[0] >= least:
            found.append((place, -best[1], best[0]))
            continue
        for table, key in zip(tables, keys, strict=True):
            table[key].append(place)
    return found


def signature(text: str) -> numpy.ndarray[Any, Any]:
    """The MinHash of a text: 128 least hash values of its shingles, each under a permutation of its own."""
    try:
        import numpy
    except ImportError as error:
        raise EngineUnavailable("finding near duplicates needs numpy", hint=INSTALL) from error
    words = plain(text).split()
    shingles = {" ".join(words[at : at + SHINGLE]) for at in range(max(1, len(words) - SHINGLE + 1))}
    hashes = [
        int.from_bytes(hashlib.blake2b(each.encode(), digest_size=4).digest(), "big") for each in sorted(shingles)
    ]
    draw = numpy.random.Generator(numpy.random.PCG64(1997))
    # 32-bit multiply-shift: (a·x + b) mod 2^64, its upper 32 bits; a odd. Universal enough, and one numpy operation.
    factor = draw.integers(1, 1 << 63, HASHES, dtype=numpy.uint64) | numpy.uint64(1)
    shift = draw.integers(0, 1 << 63, HASHES, dtype=numpy.uint64)
    values = numpy.array(hashes, dtype=numpy.uint64)[:, None] * factor[None, :] + shift[None, :]
    found: numpy.ndarray[Any, Any] = (values >> numpy.uint64(32)).min(axis=0)
    return found


def _bands(least: float) -> int:
    """How many bands make a pair of similarity ``least`` - 0.1 be looked at with a chance over 95 %: the fewest."""
    similar = max(0.05, least - 0.1)
    for bands in (4, 8, 16, 32, 64):
        if 1 - (1 - similar ** (HASHES // bands)) ** bands > 0.95:
            return bands
    return HASHES
