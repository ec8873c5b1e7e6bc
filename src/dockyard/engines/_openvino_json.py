"""JSON schemas as grammars with little white space, in the EBNF that GenAI's structured output takes.

GenAI's own conversion lets white space between two words of JSON go on for ever, and a small model that is kept from
what it would write does that until its limit. Here it is a space, or a line with its indentation. A schema that says
something which is not converted here is left to GenAI.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from dockyard.types import Json

_NOTES = frozenset(
    {"title", "description", "default", "examples", "deprecated", "$schema", "$id", "$comment", "$defs", "definitions"}
)
"""What says nothing about which values are allowed."""
_OF = {
    "object": frozenset({"properties", "required", "additionalProperties"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength"}),
    "integer": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}),
    "number": frozenset[str](),
    "boolean": frozenset[str](),
    "null": frozenset[str](),
}
"""The words of each type that are converted."""
_LONGEST = 18
"""Digits of an integer that has no bound."""
_COMMON = r"""space ::= "" | " " | "\n" [ \t]{0,20}
char ::= [^\"\\\0-\x1f] | "\\" ([\"\\/bfnrt] | "u" [0-9a-ce-fA-CE-F] [0-9a-fA-F]{3})
string ::= "\"" char* "\""
number ::= "-"? ("0" | [1-9] [0-9]{0,17}) ("." [0-9]{1,17})? ([eE] [+-]? [0-9]{1,2})?
boolean ::= "true" | "false"
null ::= "null"
value ::= object | array | string | number | boolean | null
member ::= string space ":" space value space
object ::= "{" space (member ("," space member)*)? "}"
array ::= "[" space (value space ("," space value space)*)? "]"
"""


class _Unknown(Exception):
    """The schema says something that is not converted here."""


def grammar(schema: Json) -> str | None:
    """The grammar of a schema's values, from the rule ``root``; None where it is not converted here.

    As OpenAI has it, an object that lists properties has no others unless it says so, and they come in that order;
    ``oneOf`` is read as ``anyOf``.
    """
    writer = _Writer(schema)
    try:
        whole = writer.rule(schema, "#")
        _end(writer.rules)
    except _Unknown:
        return None
    return f"root ::= {whole}\n" + "".join(f"{name} ::= {body}\n" for name, body in writer.rules.items()) + _COMMON


class _Writer:
    """Makes a rule of every part of a schema, once for those that references point to."""

    def __init__(self, root: Json) -> None:
        self._root = root
        self._named: dict[str, str] = {}
        self.rules: dict[str, str] = {}

    def rule(self, schema: Json, where: str = "") -> str:
        """The name of a rule for a schema; ``where`` is the pointer by which references may reach it."""
        if where in self._named:
            return self._named[where]
        name = self._add("")
        if where:
            self._named[where] = name
        self.rules[name] = self._body(schema)
        return name

    def _body(self, schema: Json) -> str:
        if schema is True or schema == {}:
            return "value"
        if not isinstance(schema, dict):
            raise _Unknown
        words = schema.keys() - _NOTES
        if words == {"$ref"}:
            return self._reference(schema["$ref"])
        if "const" in words or "enum" in words:
            return self._listed(schema, words)
        for union in ("anyOf", "oneOf", "allOf"):
            if words == {union} and schema[union] and (union != "allOf" or len(schema[union]) == 1):
                return " | ".join(self.rule(each) for each in schema[union])
        kinds = schema.get("type")
        if isinstance(kinds, list) and kinds:
            return " | ".join(self.rule(self._only(schema, kind)) for kind in kinds)
        if not isinstance(kinds, str) or kinds not in _OF or not words <= {"type", *_OF[kinds]}:
            raise _Unknown
        if kinds == "object":
            return self._object(schema)
        if kinds == "array":
            return self._array(schema)
        if kinds == "string":
            return f'"\\"" char{_times(*_sizes(schema, "minLength", "maxLength"))} "\\""'
        return integers(*_bounds(schema)) if kinds == "integer" else str(kinds)

    def _only(self, schema: dict[str, Json], kind: str) -> Json:
        """A schema of several types as it is for one of them."""
        own = _OF.get(kind, frozenset())
        others = {word for words in _OF.values() for word in words} - own
        return {**{name: value for name, value in schema.items() if name not in others}, "type": kind}

    def _reference(self, target: Json) -> str:
        found = self._root
        for part in str(target)[1:].split("/")[1:]:
            found = found[part.replace("~1", "/").replace("~0", "~")]
        return self.rule(found, str(target))

    def _listed(self, schema: dict[str, Json], words: set[str]) -> str:
        if not words <= {"const", "enum", "type"} or {"const", "enum"} <= words:
            raise _Unknown
        values = [schema["const"]] if "const" in schema else schema["enum"]
        return " | ".join(_json(value) for value in values)

    def _object(self, schema: dict[str, Json]) -> str:
        inner, required = schema.get("properties", {}), schema.get("required", [])
        more = schema.get("additionalProperties", not inner)
        if not isinstance(required, list) or any(not isinstance(each, str) or each not in inner for each in required):
            raise _Unknown
        members = [
            (f'{_json(name)} space ":" space {self.rule(each)} space', name in required) for name, each in inner.items()
        ]
        other = "" if more is False else f'string space ":" space {self.rule(more)} space'
        tail = self._add(f'("," space {other})*' if other else '""')
        tails = []
        for member, needed in reversed(members):
            tails.append(tail)
            again = f'"," space {member}'
            tail = self._add(f"{again} {tail}" if needed else f"({again})? {tail}")
        ways = []
        for (member, needed), rest in zip(members, reversed(tails), strict=True):
            ways.append(f"{member} {rest}")
            if needed:
                break
        else:
            ways += [f'{other} ("," space {other})*', '""'] if other else ['""']
        return f'"{{" space {self._add(" | ".join(ways))} "}}"'

    def _array(self, schema: dict[str, Json]) -> str:
        least, most = _sizes(schema, "minItems", "maxItems")
        if most == 0:
            return '"[" space "]"'
        item = f"{self.rule(schema.get('items', True))} space"
        some = f'{item} ("," space {item}){_times(max(0, least - 1), None if most is None else most - 1)}'
        return f'"[" space {some} "]"' if least else f'"[" space ({some})? "]"'

    def _add(self, body: str) -> str:
        name = f"r{len(self.rules)}"
        self.rules[name] = body
        return name


def _end(rules: dict[str, str]) -> None:
    """Raises _Unknown where a rule is nothing but itself, by way of others: nothing would ever be said by it."""
    ways = {name: [each for each in body.split(" | ") if each in rules] for name, body in rules.items()}
    for name in rules:
        reached, left = set[str](), list(ways[name])
        while left:
            each = left.pop()
            if each == name:
                raise _Unknown
            if each not in reached:
                reached.add(each)
                left += ways[each]


def integers(least: int | None, most: int | None) -> str:
    """The integers from ``least`` to ``most``, both among them; None: no bound."""
    found: list[str] = []
    if least is None or least < 0:
        low = 1 if most is None or most >= 0 else -most
        found += [f'"-" {each}' for each in _ascending(low, None if least is None else -least)]
    if most is None or most >= 0:
        found += _ascending(max(0, least or 0), most)
    if not found:
        raise _Unknown
    return " | ".join(found)


def _ascending(least: int, most: int | None) -> Iterator[str]:
    """The integers of a range that begins at 0 or above, as alternatives, those of one length together."""
    size = len(str(least))
    if most is None:
        yield from _alike(str(least), "9" * size)
        yield f"[1-9] [0-9]{{{size},{max(size, _LONGEST - 1)}}}"
        return
    while least <= most:
        end = min(most, 10**size - 1)
        yield from _alike(str(least), str(end))
        least, size = end + 1, size + 1


def _alike(low: str, high: str) -> Iterator[str]:
    """Numbers of as many digits from ``low`` to ``high``."""
    if not low:
        yield ""
    elif set(low) <= {"0"} and set(high) <= {"9"}:
        yield f"[0-9]{{{len(low)}}}"
    elif low[0] == high[0]:
        yield from (f"[{low[0]}] {rest}".rstrip() for rest in _alike(low[1:], high[1:]))
    else:
        inner = len(low) - 1
        first, last = int(low[0]), int(high[0])
        if set(low[1:]) - {"0"}:
            yield from (f"[{low[0]}] {rest}".rstrip() for rest in _alike(low[1:], "9" * inner))
            first += 1
        if set(high[1:]) - {"9"}:
            yield from (f"[{high[0]}] {rest}".rstrip() for rest in _alike("0" * inner, high[1:]))
            last -= 1
        if first <= last:
            yield f"[{first}-{last}] [0-9]{{{inner}}}" if inner else f"[{first}-{last}]"


def _bounds(schema: dict[str, Json]) -> tuple[int | None, int | None]:
    """Of an integer; both among the allowed."""
    if any(type(schema.get(name, 0)) is not int for name in _OF["integer"]):
        raise _Unknown
    lows = [schema[name] + more for name, more in (("minimum", 0), ("exclusiveMinimum", 1)) if name in schema]
    highs = [schema[name] - less for name, less in (("maximum", 0), ("exclusiveMaximum", 1)) if name in schema]
    return max(lows, default=None), min(highs, default=None)


def _sizes(schema: dict[str, Json], least: str, most: str) -> tuple[int, int | None]:
    low, high = schema.get(least, 0), schema.get(most)
    if type(low) is not int or low < 0 or not (high is None or (type(high) is int and high >= low)):
        raise _Unknown
    return low, high


def _times(least: int, most: int | None) -> str:
    if most is None:
        return f"{{{least},}}" if least else "*"
    return f"{{{least},{most}}}"


def _json(value: Json) -> str:
    """The rule's word for exactly this."""
    escaped = json.dumps(value, ensure_ascii=False).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
