"""What follows from a transformer's dimensions, whichever format states them."""

from __future__ import annotations

import math

from dockyard.types import Json

_MAX_INT = 1 << 62


def integer(value: Json) -> int | None:
    """A count out of a header: a whole number that is not negative, or None."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MAX_INT:
        return None
    return value


def real(value: Json) -> float | None:
    """A finite number, or None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _MAX_INT:
        return None
    return float(value) if math.isfinite(value) else None


def string(value: Json) -> str | None:
    return value if isinstance(value, str) and value else None


def attention_kind(heads: int | None, kv_heads: int | None) -> str | None:
    """How many query heads share a key and value head: the name that this has in the literature."""
    if not heads:
        return None
    if kv_heads is None or kv_heads == heads:
        return "multi-head"
    return "multi-query" if kv_heads == 1 else "grouped-query"


def kv_elements(layers: int | None, kv_heads: int | None, head_size: int | None) -> int | None:
    """Keys and values that one token adds to the cache where every layer is alike."""
    if layers is None or kv_heads is None or head_size is None:
        return None
    return 2 * layers * kv_heads * head_size
