"""The least value that a JSON schema allows, filled from a text: numbers in order, quoted strings, else its words."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

from dockyard.errors import InvalidRequest
from dockyard.types import Json

T = TypeVar("T")

DEEPEST = 40
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w])")
_QUOTED = re.compile(r"\"([^\"]*)\"|'([^']*)'(?!\w)|“([^”]*)”|`([^`]*)`")
FORMATS = {
    "date": "2024-01-01",
    "date-time": "2024-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "P1D",
    "email": "someone@example.com",
    "hostname": "example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


class Source:
    """What a text has to fill a schema with; each number and quoted string is given once, the last one for ever."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._numbers = [float(one) for one in _NUMBER.findall(text)]
        self._quoted = ["".join(groups) for groups in _QUOTED.findall(text)]

    def number(self) -> float:
        return _next(self._numbers, 0.0)

    def string(self) -> str:
        return _next(self._quoted, self.text)

    def strings(self) -> list[str]:
        """All that a string could be, the likeliest first."""
        return [*self._quoted, *self.text.split(), self.text]


def _next(found: list[T], default: T) -> T:
    return found.pop(0) if len(found) > 1 else found[0] if found else default


def fill(schema: Json, source: Source, *, at: str) -> Json:
    """A value of this schema. Raises InvalidRequest about field ``at`` where the schema allows none that is found."""
    return _Filler(schema, source, at).value(schema, 0)


class _Filler:
    def __init__(self, root: Json, source: Source, at: str) -> None:
        self._root = root
        self._source = source
        self._at = at

    def value(self, schema: Json, depth: int) -> Json:
        if schema is True or schema == {}:
            return self._source.string()
        if not isinstance(schema, dict):
            raise self._wrong("it allows nothing" if schema is False else f"{schema!r:.40} is no schema")
        if depth > DEEPEST:
            raise self._wrong(f"it needs values nested deeper than {DEEPEST}")
        schema = self._flat(schema, depth)
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return self._one_of(schema["enum"])
        for several in ("anyOf", "oneOf"):
            if several in schema:
                return self._first(schema, several, depth)
        makers: dict[str, Callable[[dict[str, Any], int], Json]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "integer": self._integer,
            "number": self._number,
            "boolean": self._boolean,
            "null": lambda _schema, _depth: None,
        }
        kind = _kind(schema)
        if kind not in makers:
            raise self._wrong(f"{kind!r:.40} is no type")
        return makers[kind](schema, depth)

    def _flat(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        """The schema with what it refers to, and all of ``allOf``, put into one."""
        for _ in range(DEEPEST):
            if "$ref" in schema:
                rest = {name: value for name, value in schema.items() if name != "$ref"}
                schema = _merged(self._referred(schema["$ref"]), rest)
            elif "allOf" in schema:
                parts = schema["allOf"]
                schema = {name: value for name, value in schema.items() if name != "allOf"}
                for part in parts:
                    schema = _merged(schema, self._flat(part, depth + 1))
            else:
                return schema
        raise self._wrong("its references lead in a circle")

    def _referred(self, pointer: str) -> dict[str, Any]:
        found = self._root
        for step in pointer.removeprefix("#").strip("/").split("/") if pointer != "#" else ():
            name = step.replace("~1", "/").replace("~0", "~")
            if not pointer.startswith("#") or not isinstance(found, dict) or name not in found:
                raise self._wrong(f"there is nothing at {pointer!r:.80}")
            found = found[name]
        if not isinstance(found, dict):
            raise self._wrong(f"there is no schema at {pointer!r:.80}")
        return found

    def _one_of(self, values: list[Json]) -> Json:
        text = self._source.text.lower()
        return next((one for one in values if isinstance(one, str) and one and one.lower() in text), values[0])

    def _first(self, schema: dict[str, Any], several: str, depth: int) -> Json:
        """Of alternatives the first that is not null and can be filled."""
        rest = {name: value for name, value in schema.items() if name != several}
        found = [_merged(rest, self._flat(one, depth)) for one in schema[several] if isinstance(one, dict)]
        found.sort(key=lambda one: one.get("type") == "null")
        problem = self._wrong(f"{several!r} holds no schema")
        for one in found:
            try:
                return self.value(one, depth + 1)
            except InvalidRequest as error:
                problem = error
        raise problem

    def _object(self, schema: dict[str, Any], depth: int) -> Json:
        properties = schema.get("properties") or {}
        names = list(schema.get("required") or ())
        optional = [name for name in properties if name not in names]
        names += optional[: max(0, schema.get("minProperties", 0) - len(names))]
        names.sort(key=lambda name: list(properties).index(name) if name in properties else len(properties))
        other = schema.get("additionalProperties", True)
        return {name: self.value(properties.get(name, other), depth + 1) for name in names}

    def _array(self, schema: dict[str, Any], depth: int) -> Json:
        found = [self.value(one, depth + 1) for one in schema.get("prefixItems") or ()]
        items, least = schema.get("items", True), schema.get("minItems", 0)
        wanted = max(least, 0 if items is True or schema.get("maxItems") == 0 or depth > 8 else 1)
        while len(found) < wanted:
            found.append(self.value(items, depth + 1))
        if schema.get("uniqueItems"):
            found = [one for place, one in enumerate(found) if one not in found[:place]]
        if len(found) < least:
            raise self._wrong("the text has too little for its unique items")
        return found

    def _string(self, schema: dict[str, Any], _depth: int) -> Json:
        least, most = schema.get("minLength", 0), schema.get("maxLength", math.inf)
        if "pattern" in schema:
            return self._matching(schema["pattern"], least, most)
        if schema.get("format") in FORMATS:
            return FORMATS[schema["format"]]
        text = self._source.string()
        return (text if most == math.inf else text[: int(most)]).ljust(least, ".")

    def _matching(self, pattern: str, least: int, most: float) -> str:
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise self._wrong(f"{pattern!r:.80} is no regular expression: {error}") from None
        for text in [*self._source.strings(), *FORMATS.values(), "a", "A", "0", ""]:
            if compiled.search(text) and least <= len(text) <= most:
                return text
        raise self._wrong(f"nothing in the text matches {pattern!r:.80}")

    def _integer(self, schema: dict[str, Any], depth: int) -> Json:
        return int(self._number({**schema, "multipleOf": schema.get("multipleOf", 1)}, depth))

    def _number(self, schema: dict[str, Any], _depth: int) -> Json:
        value, step = self._source.number(), schema.get("multipleOf")
        low = max(schema.get("minimum", -math.inf), _beyond(schema.get("exclusiveMinimum"), step))
        high = min(schema.get("maximum", math.inf), -_beyond(_minus(schema.get("exclusiveMaximum")), step))
        value = min(max(value, low), high)
        if step:
            value = math.floor(value / step) * step
            value = value if value >= low else value + step
        if not low <= value <= high:
            raise self._wrong(f"there is no number from {low} to {high}")
        return int(value) if float(value).is_integer() else value

    def _boolean(self, _schema: dict[str, Any], _depth: int) -> Json:
        return re.search(r"\b(false|no|not|never)\b", self._source.text.lower()) is None

    def _wrong(self, text: str) -> InvalidRequest:
        return InvalidRequest(f"the schema can't be followed: {text}", param=self._at)


def _kind(schema: dict[str, Any]) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):
        return next((one for one in kind if one != "null"), "null")
    if kind is None:
        for name, implied in (("properties", "object"), ("required", "object"), ("items", "array")):
            if name in schema:
                return implied
        return "string"
    return kind


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Both schemas at once: properties and required names add up, anything else is the second's."""
    found = {**one, **other}
    if "properties" in one and "properties" in other:
        found["properties"] = {**one["properties"], **other["properties"]}
    if "required" in one and "required" in other:
        found["required"] = list(dict.fromkeys([*one["required"], *other["required"]]))
    return found


def _beyond(limit: float | None, step: float | None) -> float:
    """The least value above an exclusive limit."""
    if limit is None:
        return -math.inf
    return limit + (step or max(1e-9, abs(limit) * 1e-9))


def _minus(limit: float | None) -> float | None:
    return None if limit is None else -limit
