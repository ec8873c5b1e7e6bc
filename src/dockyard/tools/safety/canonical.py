"""One form of a JSON value, whatever the order of its keys, and digests of that form."""

from __future__ import annotations

import hashlib
import json

from dockyard.types import Json


def canonical(value: Json) -> bytes:
    """Keys in order, no spaces, ASCII only, so that any string has a form, even one that is not Unicode."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def digest(value: Json) -> str:
    """``sha256:`` and the hexadecimal digest of the canonical form."""
    return f"sha256:{hashlib.sha256(canonical(value)).hexdigest()}"
