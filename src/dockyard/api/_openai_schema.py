"""A first look at a JSON schema: whatever no engine could compile is told with the place where it goes wrong."""

from __future__ import annotations

import re
from typing import Any

from dockyard.errors import InvalidRequest
from dockyard.types import Json

DEEPEST = 64
TYPES = frozenset({"object", "array", "string", "integer", "number", "boolean", "null"})
_SCHEMAS = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_TABLES = ("properties", "patternProperties", "$defs", "definitions")
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_NUMBERS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")


def check(schema: Json, at: str) -> None:
    """Raises InvalidRequest whose ``param`` is the path of the wrong part, below ``at``."""
    _check(schema, at, schema, 0)


def _check(schema: Json, at: str, root: Json, depth: int) -> None:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise _wrong(at, f"is no JSON schema: {schema!r:.40}")
    if depth > DEEPEST:
        raise _wrong(at, f"is nested deeper than {DEEPEST}")
    _check_plain(schema, at)
    if (pointer := schema.get("$ref")) is not None:
        _resolve(pointer, f"{at}.$ref", root)
    for name in _SCHEMAS:
        if name in schema and not (name == "items" and isinstance(schema[name], list)):
            _check(schema[name], f"{at}.{name}", root, depth + 1)
    for name in _LISTS:
        if name in schema:
            if not isinstance(schema[name], list) or not schema[name]:
                raise _wrong(f"{at}.{name}", "must be a list of schemas, not empty")
            for number, one in enumerate(schema[name]):
                _check(one, f"{at}.{name}[{number}]", root, depth + 1)
    for name in _TABLES:
        if name in schema:
            if not isinstance(schema[name], dict):
                raise _wrong(f"{at}.{name}", "must map names to schemas")
            for key, one in schema[name].items():
                _check(one, f"{at}.{name}.{key}", root, depth + 1)


def _check_plain(schema: dict[str, Any], at: str) -> None:
    """The keywords that hold no schemas."""
    kinds = schema.get("type", [])
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if not isinstance(kind, str) or kind not in TYPES:
            raise _wrong(f"{at}.type", f"must be one of {', '.join(sorted(TYPES))}, not {kind!r:.40}")
    if "enum" in schema and not (isinstance(schema["enum"], list) and schema["enum"]):
        raise _wrong(f"{at}.enum", "must be a list of values, not empty")
    wanted = schema.get("required", [])
    if not isinstance(wanted, list) or not all(isinstance(one, str) for one in wanted):
        raise _wrong(f"{at}.required", "must be a list of names")
    for name in _COUNTS:
        value = schema.get(name, 0)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise _wrong(f"{at}.{name}", f"must be a whole number from 0, not {value!r:.40}")
    for name in _NUMBERS:
        value = schema.get(name, 1)
        if not isinstance(value, int | float) or isinstance(value, bool) or (name == "multipleOf" and value <= 0):
            raise _wrong(f"{at}.{name}", f"must be a number, not {value!r:.40}")
    pattern = schema.get("pattern", "")
    if not isinstance(pattern, str):
        raise _wrong(f"{at}.pattern", "must be text")
    try:
        re.compile(pattern)
    except re.error as error:
        # JSON schema means ECMAScript's expressions, of which Python misses a few; those are the engine's to judge.
        if not re.search(r"\\[pPcu]|\(\?<", pattern):
            raise _wrong(f"{at}.pattern", f"is no regular expression: {error}") from None


def _resolve(pointer: Json, at: str, root: Json) -> None:
    if not isinstance(pointer, str) or not pointer.startswith("#"):
        raise _wrong(at, f"must point into this schema (#/…), not to {pointer!r:.80}")
    found = root
    for step in pointer[1:].strip("/").split("/") if pointer != "#" else ():
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdigit() and int(name) < len(found):
            found = found[int(name)]
        elif isinstance(found, dict) and name in found:
            found = found[name]
        else:
            raise _wrong(at, f"points to nothing: {pointer!r:.80}")


def _wrong(at: str, text: str) -> InvalidRequest:
    return InvalidRequest(f"{at} {text}", param=at)
