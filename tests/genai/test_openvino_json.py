"""Schemas as grammars: read here as regular expressions, which they are as long as nothing refers to itself."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockyard.engines._openvino_json import grammar, integers

TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|(\[(?:[^\]\\]|\\.)*\])|([a-z]\w*)|(\{[0-9,]+\}|[()|*?+])|\s+')
NUMBERS = st.integers(-3000, 3000)
NAMES = st.lists(st.sampled_from(["a", "b", 'c"d', "é", "f\n", "g\\"]), max_size=4, unique=True)


def expression(written: str) -> str:
    """The regular expression of a grammar's root. Fails for one that refers to itself."""
    rules = dict(line.split(" ::= ", 1) for line in written.strip().split("\n"))

    def of(body: str) -> str:
        found = ""
        at = 0
        while at < len(body):
            match = TOKEN.match(body, at)
            assert match, body[at:]
            literal, kind, rule, sign = match.groups()
            if literal is not None:
                found += f"(?:{re.escape(literal.encode().decode('unicode_escape').encode('latin-1').decode())})"
            elif rule is not None:
                found += f"(?:{of(rules[rule])})"
            else:
                found += (kind or sign or "").replace(r"\0", r"\x00")
            at = match.end()
        return found

    return of(rules["root"])


def test_an_integer_may_be_long() -> None:
    pattern = re.compile(re.sub('[ "]', "", integers(10**18, None)))
    assert pattern.fullmatch(str(10**18))
    assert pattern.fullmatch(str(10**19))
    assert not pattern.fullmatch(str(10**18 - 1))


@given(st.none() | NUMBERS, st.none() | NUMBERS, st.integers(-100_000, 100_000))
def test_integers_are_those_of_the_range(least: int | None, most: int | None, number: int) -> None:
    if least is not None and most is not None and least > most:
        least, most = most, least
    pattern = re.compile(re.sub('[ "]', "", integers(least, most)))
    for each in {number, least, most, *(edge + step for edge in (least, most) if edge is not None for step in (-1, 1))}:
        if each is not None:
            inside = (least is None or least <= each) and (most is None or each <= most)
            assert bool(pattern.fullmatch(str(each))) is inside, (least, most, each)


@st.composite
def schemas(draw: st.DrawFn, depth: int = 2) -> dict[str, Any]:
    kind = draw(
        st.sampled_from(["string", "integer", "boolean", "null", "enum", "either", "array", "object"][: 5 + depth * 2])
    )
    if kind == "string":
        least = draw(st.integers(0, 3))
        return {"type": "string", "minLength": least, "maxLength": least + draw(st.integers(0, 3))}
    if kind == "integer":
        return {"type": "integer", "minimum": draw(st.integers(-20, 5)), "maximum": draw(st.integers(5, 120))}
    if kind == "enum":
        return {"enum": draw(st.lists(st.sampled_from(["red", 'a "b"', 3, None, True, "é\n"]), min_size=1, max_size=3))}
    if kind == "either":
        return {"anyOf": [draw(schemas(depth - 1)), {"type": "null"}]}
    if kind == "array":
        least = draw(st.integers(0, 2))
        return {"type": "array", "items": draw(schemas(depth - 1)), "minItems": least, "maxItems": least + 2}
    if kind == "object":
        names = draw(NAMES)
        inner = {name: draw(schemas(depth - 1)) for name in names}
        needed = draw(st.lists(st.sampled_from(names), unique=True)) if names else []
        return {"type": "object", "properties": inner, "required": needed, "additionalProperties": False}
    return {"type": kind}


def values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """What such a schema allows, and things that are nearly so."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if "anyOf" in schema:
        return st.one_of(*(values(each) for each in schema["anyOf"]))
    kind = schema["type"]
    if kind == "object":
        return st.fixed_dictionaries({}, optional={name: values(each) for name, each in schema["properties"].items()})
    if kind == "array":
        return st.lists(values(schema["items"]), max_size=schema["maxItems"] + 1)
    return {
        "string": st.text(st.sampled_from('ab"\\\né'), max_size=7),
        "integer": st.integers(-25, 125),
        "boolean": st.booleans(),
        "null": st.none(),
    }[kind]


@given(st.data())
def test_what_a_grammar_takes_is_what_its_schema_allows(data: st.DataObject) -> None:
    schema = data.draw(schemas())
    other = data.draw(st.just(schema) | schemas())
    value = data.draw(values(other))
    if isinstance(value, dict):
        value = {name: value[name] for name in (*schema.get("properties", ()), *value) if name in value}
    written = grammar(schema)
    assert written is not None
    said = json.dumps(value, ensure_ascii=False, indent=data.draw(st.sampled_from([None, None, 2])))
    allowed = jsonschema.Draft202012Validator(schema).is_valid(value) and _ordered(schema, value)
    assert bool(re.fullmatch(expression(written), said)) is allowed, (schema, said)


def _ordered(schema: Any, value: Any) -> bool:
    """Whether every object has its members in the schema's order, as far as a value fits the schema."""
    if "anyOf" in schema:
        fits = [each for each in schema["anyOf"] if jsonschema.Draft202012Validator(each).is_valid(value)]
        return any(_ordered(each, value) for each in fits)
    if isinstance(value, dict) and "properties" in schema:
        inner = schema["properties"]
        return list(value) == [name for name in inner if name in value] and all(
            _ordered(inner[name], each) for name, each in value.items()
        )
    if isinstance(value, list) and "items" in schema:
        return all(_ordered(schema["items"], each) for each in value)
    return True


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "a+"},
        {"type": "number", "minimum": 0},
        {"type": "object", "properties": {"a": {"type": "string", "format": "date"}}},
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"type": "string", "minLength": "2"},
        {"type": "object", "required": ["a"]},
        {"type": "object", "required": 5},
        {"type": "object", "required": [{}]},
        {"type": []},
        {"anyOf": []},
        {"$ref": "#"},
        {
            "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}, {"type": "null"}]}, "b": {"$ref": "#/$defs/a"}},
            "$ref": "#/$defs/a",
        },
        {"allOf": [{"type": "string"}, {"maxLength": 3}]},
        False,
    ],
)
def test_what_is_not_converted_is_left_to_the_engine(schema: Any) -> None:
    assert grammar(schema) is None


def test_references_are_rules_also_to_themselves() -> None:
    following = {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}
    tree = {"$defs": {"node": {"type": "object", "properties": {"next": following}}}, "$ref": "#/$defs/node"}
    written = grammar(tree)
    assert written is not None
    rules = dict(line.split(" ::= ", 1) for line in written.strip().split("\n"))
    whole = rules[rules["root"]]
    assert any(whole in body.split(" | ") for body in rules.values()), "the node's rule is reached from itself"
