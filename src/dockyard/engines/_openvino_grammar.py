"""What an answer must look like: a schema, a grammar, or the call of a tool, as GenAI's structured output has it.

GenAI compiles a grammar inside of a scheduler step, and one that it can't compile costs everybody that step and a new
pipeline. So whatever can be seen to be wrong with a schema is said before.
"""

from __future__ import annotations

import json
import re
from typing import Any

from dockyard.engines._openvino_json import grammar
from dockyard.engines._tool_calls import CALL, CALLED, names
from dockyard.errors import InvalidRequest
from dockyard.types import Json

_TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})
_SCHEMAS = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_ONE = ("items", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames")
MAX_DEPTH = 128


def structure(extra: dict[str, Json], template: str) -> Any:
    """GenAI's configuration, or None where any text will do. Raises InvalidRequest naming the field."""
    import openvino_genai

    config = openvino_genai.StructuredOutputConfig
    if (called := _called(extra)) is not None:
        if CALL not in template:
            raise InvalidRequest("this model has no form of its own for calling tools", param="tool_choice")
        tags = [config.Tag(begin=f"{CALL}\n", content=_content(each), end=f"\n{CALLED}") for each in called]
        several = bool(extra.get("parallel_tool_calls", True)) and len(called) == len(names(extra.get("tools")))
        return config(
            structural_tags_config=config.TriggeredTags(
                triggers=[CALL], tags=tags, at_least_one=True, stop_after_first=not several
            )
        )
    asked = extra.get("response_format")
    if isinstance(asked, dict) and asked.get("type") not in (None, "text"):
        return _shaped(_schema_of(asked))
    if (schema := extra.get("json_schema")) is not None:
        return _shaped(_checked(schema, "json_schema"))
    for name in ("regex", "grammar"):
        value = extra.get(name)
        if value is None:
            continue
        if not isinstance(value, str) or not value:
            raise InvalidRequest(f"{name} must be text", param=name)
        if name == "regex":
            _pattern(value, name)
        elif not re.search(r"^\s*root\s*::=", value, re.MULTILINE):
            raise InvalidRequest("the grammar has no rule for `root`", param=name)
        return config(**{name: value})
    return None


def _shaped(schema: Json) -> Any:
    import openvino_genai

    own = grammar(schema)
    config = openvino_genai.StructuredOutputConfig
    return config(json_schema=json.dumps(schema)) if own is None else config(grammar=own)


def _content(schema: Json) -> Any:
    """As ``_shaped``, for a part of what is said."""
    import openvino_genai

    own = grammar(schema)
    config = openvino_genai.StructuredOutputConfig
    return config.JSONSchema(json.dumps(schema)) if own is None else config.EBNF(own)


def _schema_of(asked: dict[str, Json]) -> Json:
    if asked["type"] == "json_object":
        return _checked(asked.get("schema") or {"type": "object"}, "response_format")
    if asked["type"] != "json_schema":
        raise InvalidRequest(
            f"response_format.type is {asked['type']!r}; text, json_object or json_schema", param="response_format"
        )
    inner = asked.get("json_schema")
    schema = inner.get("schema") if isinstance(inner, dict) else asked.get("schema")
    return _checked({} if schema is None else schema, "response_format")


def _called(extra: dict[str, Json]) -> list[Json] | None:
    """A schema of the whole call for each tool of which one must be called; None where none must."""
    choice = extra.get("tool_choice", "auto")
    if choice in ("auto", "none", None):
        return None
    listed = [tool["function"] for tool in extra.get("tools") or () if isinstance(tool, dict) and "function" in tool]
    if isinstance(choice, dict):
        name = (choice.get("function") or {}).get("name")
        listed = [function for function in listed if function.get("name") == name]
        if not listed:
            raise InvalidRequest(f"tool_choice names {name!r}, which is not among the tools", param="tool_choice")
    elif choice != "required" or not listed:
        raise InvalidRequest(f"tool_choice is {choice!r}; none, auto, required or a tool's name", param="tool_choice")
    return [_call_of(function) for function in listed]


def _call_of(function: dict[str, Json]) -> Json:
    """The schema of a whole call; what the arguments' references point to is where they look for it."""
    arguments = _checked(function.get("parameters") or {"type": "object"}, "tools")
    shared = {name: arguments[name] for name in ("$defs", "definitions") if name in arguments}
    return {
        "type": "object",
        "properties": {"name": {"const": function["name"]}, "arguments": arguments},
        "required": ["name", "arguments"],
        "additionalProperties": False,
        **shared,
    }


def _checked(schema: Json, param: str) -> Json:
    """The schema, if it is one as far as can be seen."""
    _walk(schema, schema, param, "#", 0)
    return schema


def _walk(schema: Json, root: Json, param: str, where: str, depth: int) -> None:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, dict):
        raise InvalidRequest(f"{where} of the schema is not a schema", param=param)
    if depth > MAX_DEPTH:
        raise InvalidRequest(f"the schema is nested more than {MAX_DEPTH} deep", param=param)
    kinds = schema.get("type")
    for kind in kinds if isinstance(kinds, list) else [] if kinds is None else [kinds]:
        if kind not in _TYPES:
            raise InvalidRequest(f"{where} of the schema has the unknown type {kind!r}", param=param)
    if isinstance(schema.get("pattern"), str):
        _pattern(schema["pattern"], param)
    if "enum" in schema and not (isinstance(schema["enum"], list) and schema["enum"]):
        raise InvalidRequest(f"{where}/enum of the schema is not a list of values", param=param)
    if (target := schema.get("$ref")) is not None and not _resolves(target, root):
        raise InvalidRequest(f"{where}/$ref of the schema points to {target!r}, which is not there", param=param)
    for key in _SCHEMAS:
        inner = schema.get(key, {})
        if not isinstance(inner, dict):
            raise InvalidRequest(f"{where}/{key} of the schema is not an object", param=param)
        for name, value in inner.items():
            _walk(value, root, param, f"{where}/{key}/{name}", depth + 1)
    for key in _LISTS:
        inner = schema.get(key, [])
        if not isinstance(inner, list):
            raise InvalidRequest(f"{where}/{key} of the schema is not a list", param=param)
        for index, value in enumerate(inner):
            _walk(value, root, param, f"{where}/{key}/{index}", depth + 1)
    for key in _ONE:
        if key in schema and not isinstance(schema[key], list):
            _walk(schema[key], root, param, f"{where}/{key}", depth + 1)


def _resolves(target: Json, root: Json) -> bool:
    if not isinstance(target, str) or not target.startswith("#"):
        return False
    found = root
    for part in target[1:].split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or part not in found:
            return False
        found = found[part]
    return True


def _pattern(pattern: str, param: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise InvalidRequest(f"{pattern!r} is not a regular expression: {error}", param=param) from error
