"""Which documents a search may see: filters over attributes, in OpenAI's shape, and who may read what.

Both are decided here, from the ledger, and reach the vector store as document numbers: what somebody may not read is
not searched, whatever the store.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from dockyard.errors import InvalidRequest
from dockyard.knowledge.ledger import attributes_of
from dockyard.knowledge.model import EVERYONE, Document, Only
from dockyard.types import Json

MOST_DEPTH = 8
_ORDER: dict[str, Callable[[Json, Json], bool]] = {
    "gt": lambda a, b: a > b,
    "gte": lambda a, b: a >= b,
    "lt": lambda a, b: a < b,
    "lte": lambda a, b: a <= b,
}
Test = Callable[[dict[str, Json]], bool]


def visible(documents: Sequence[Document], reader: str | None, filters: dict[str, Json] | None) -> Only | None:
    """The documents of these that the reader may see and the filter lets through; None: all. Raises InvalidRequest."""
    test = compiled(filters) if filters else None
    if test is None and (reader is None or all(EVERYONE in one.readers for one in documents)):
        return None
    kept: list[int] = []
    dropped: list[int] = []
    for one in documents:
        fits = readable(one, reader) and (test is None or test(attributes_of(one)))
        (kept if fits else dropped).append(one.number)
    if not dropped:
        return None
    return Only(numbers=tuple(dropped), apart=True) if len(dropped) < len(kept) else Only(numbers=tuple(kept))


def readable(document: Document, reader: str | None) -> bool:
    """Whether somebody of this name may read it; readers are names, or patterns of names."""
    return reader is None or any(one == EVERYONE or fnmatchcase(reader, one) for one in document.readers)


def compiled(filters: dict[str, Json], depth: int = 0) -> Test:
    """A filter as a test: ``{"type": "eq", "key": …, "value": …}`` with eq, ne, gt, gte, lt, lte, in, nin, or
    ``{"type": "and" | "or", "filters": […]}``; ``glob`` matches text with a pattern. Raises InvalidRequest."""
    kind = filters.get("type")
    if kind in ("and", "or"):
        parts = filters.get("filters")
        if not isinstance(parts, list) or not parts or depth >= MOST_DEPTH:
            raise _wrong(f"{kind} has `filters`, a list of some, at most {MOST_DEPTH} deep")
        tests = [compiled(part, depth + 1) if isinstance(part, dict) else _no() for part in parts]
        return _all(tests) if kind == "and" else _any(tests)
    key, value = filters.get("key"), filters.get("value")
    if not isinstance(key, str) or "value" not in filters:
        raise _wrong("a comparison has `type`, `key` and `value`")
    return _comparison(kind, key, value)


def _comparison(kind: Json, key: str, value: Json) -> Test:
    if kind in ("in", "nin"):
        if not isinstance(value, list):
            raise _wrong(f"{kind} takes a list")
        return (lambda found: found.get(key) in value) if kind == "in" else (lambda found: found.get(key) not in value)
    if kind == "eq":
        return lambda found: key in found and found[key] == value
    if kind == "ne":
        return lambda found: found.get(key) != value
    if kind == "glob" and isinstance(value, str):
        return lambda found: isinstance(found.get(key), str) and fnmatchcase(found[key], value)
    if kind in _ORDER:
        compare = _ORDER[kind]
        return lambda found: _comparable(found.get(key), value) and compare(found[key], value)
    raise _wrong(f"{kind!r:.40} is none of eq, ne, gt, gte, lt, lte, in, nin, glob, and, or")


def _comparable(one: Json, other: Json) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return isinstance(one, str) and isinstance(other, str)
    return isinstance(one, int | float) and isinstance(other, int | float)


def _all(tests: Sequence[Test]) -> Test:
    return lambda found: all(test(found) for test in tests)


def _any(tests: Sequence[Test]) -> Test:
    return lambda found: any(test(found) for test in tests)


def _no() -> Test:
    raise _wrong("each of `filters` is an object")


def _wrong(what: str) -> InvalidRequest:
    return InvalidRequest(f"filters: {what}", param="filters")
