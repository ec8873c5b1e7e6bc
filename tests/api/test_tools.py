"""Tools, formats and content parts: what is wrong with them is told by field before any engine is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from api_help import CHAT, HELLO, client, events
from litestar.testing import TestClient

from dockyard.api import create_app
from dockyard.settings import Settings
from scripted import ScriptedFleet


def tool(name: Any = "f", **parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", **parameters}}}


def shaped(schema: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}}


def part(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [fields]}]}


def history(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", **fields}]}


CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
NAMED = {"type": "function", "function": {"name": "g"}}
SCHEMA = "response_format.json_schema.schema"
PARAMETERS = "tools[0].function.parameters"

WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"tools": "f"}, "tools", "invalid_request"),
    ({"tools": [{}]}, "tools[0].type", "invalid_request"),
    ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type", "unsupported_parameter"),
    ({"tools": [{"type": "function"}]}, "tools[0].function", "invalid_request"),
    ({"tools": [tool("")]}, "tools[0].function.name", "invalid_request"),
    ({"tools": [tool("a b")]}, "tools[0].function.name", "invalid_request"),
    ({"tools": [tool(3)]}, "tools[0].function.name", "invalid_request"),
    ({"tools": [tool(), tool()]}, "tools[1].function.name", "invalid_request"),
    ({"tools": [tool(type="array")]}, f"{PARAMETERS}.type", "invalid_request"),
    ({"tools": [tool(properties={"a": {"type": "spice"}})]}, f"{PARAMETERS}.properties.a.type", "invalid_request"),
    ({"tools": [tool()], "tool_choice": "perhaps"}, "tool_choice", "invalid_request"),
    ({"tools": [tool()], "tool_choice": NAMED}, "tool_choice", "invalid_request"),
    ({"tools": [tool()], "tool_choice": {"type": "function"}}, "tool_choice.function.name", "invalid_request"),
    ({"tools": [tool()], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED]}}},
     "tool_choice.allowed_tools.tools[0]", "invalid_request"),
    ({"tool_choice": "required"}, "tool_choice", "invalid_request"),
    ({"response_format": {"type": "yaml"}}, "response_format.type", "invalid_request"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "invalid_request"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}}, SCHEMA, "invalid_request"),
    (shaped([]), SCHEMA, "invalid_request"),
    (shaped({"type": ["string", "text"]}), f"{SCHEMA}.type", "invalid_request"),
    (shaped({"properties": {"a": {"$ref": "#/$defs/none"}}}), f"{SCHEMA}.properties.a.$ref", "invalid_request"),
    (shaped({"$ref": "https://example.com/x.json"}), f"{SCHEMA}.$ref", "invalid_request"),
    (shaped({"anyOf": []}), f"{SCHEMA}.anyOf", "invalid_request"),
    (shaped({"items": 3}), f"{SCHEMA}.items", "invalid_request"),
    (shaped({"enum": []}), f"{SCHEMA}.enum", "invalid_request"),
    (shaped({"required": "a"}), f"{SCHEMA}.required", "invalid_request"),
    (shaped({"minLength": -1}), f"{SCHEMA}.minLength", "invalid_request"),
    (shaped({"multipleOf": 0}), f"{SCHEMA}.multipleOf", "invalid_request"),
    (shaped({"pattern": "("}), f"{SCHEMA}.pattern", "invalid_request"),
    ({"reasoning_effort": "heroic"}, "reasoning_effort", "invalid_request"),
    ({"moderation": {"model": "x"}}, "moderation", "unsupported_parameter"),
    ({"web_search_options": {}, "functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
    ({"prediction": {"type": "content"}}, "prediction.content", "invalid_request"),
    (part(type="image_url", image_url={"url": "https://example.com/a.png"}), "messages[0].content[0].image_url.url",
     "invalid_request"),
    (part(type="image_url", image_url="data:,x"), "messages[0].content[0].image_url.url", "invalid_request"),
    (part(type="input_audio", input_audio={"data": "AA=="}), "messages[0].content[0].input_audio.format",
     "invalid_request"),
    (part(type="file", file={"file_id": "x"}), "messages[0].content[0].file", "unsupported_parameter"),
    (part(type="text", text="x", mood=1), "messages[0].content[0].mood", "unsupported_parameter"),
    (history(content="x", function_call={"name": "f"}), "messages[1].function_call", "unsupported_parameter"),
    (history(content="x", audio={"id": "x"}), "messages[1].audio", "unsupported_parameter"),
    (history(tool_calls=[{**CALL, "type": "custom"}]), "messages[1].tool_calls[0].type", "unsupported_parameter"),
    (history(tool_calls=[{**CALL, "id": ""}]), "messages[1].tool_calls[0].id", "invalid_request"),
    (history(tool_calls=[{"id": "a"}]), "messages[1].tool_calls[0].function", "invalid_request"),
    (history(tool_calls=[{"id": "a", "function": {"name": "f"}}]), "messages[1].tool_calls[0].function.arguments",
     "invalid_request"),
    ({"messages": [{"role": "user", "content": "x", "tool_calls": [CALL]}]}, "messages[0].tool_calls",
     "invalid_request"),
    ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "c9"}]}, "messages[0].tool_call_id",
     "invalid_request"),
    ({"messages": [{"role": "function", "name": "f", "content": "x"}]}, "messages[0].role", "unsupported_parameter"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "param", "code"), WRONG, ids=[str(change)[:70] for change, _, _ in WRONG])
def test_a_wrong_field_is_named(tmp_path: Path, change: dict[str, Any], param: str, code: str) -> None:
    fleet = ScriptedFleet()
    with client(tmp_path, fleet) as http:
        answer = http.post(CHAT, json={**HELLO, **change})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)
    assert not fleet.requests


def test_what_reaches_the_engine_has_one_form(tmp_path: Path) -> None:
    fleet = ScriptedFleet()
    tools = [tool("f"), tool("g")]
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}
    asked: list[dict[str, Any]] = [
        {"tools": tools, "tool_choice": allowed, "parallel_tool_calls": False},
        {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True, "response_format": {"type": "text"}},
        {"prediction": {"type": "content", "content": "x"}, "prompt_cache_options": {"mode": "explicit"}},
        part(type="image_url", image_url={"url": "data:,x"}, prompt_cache_breakpoint={"mode": "explicit"}),
    ]
    with client(tmp_path, fleet) as http:
        for change in asked:
            assert http.post(CHAT, json={**HELLO, **change}).status_code == 200
    assert [request.extra for request in fleet.requests] == [
        {"tools": tools[1:], "tool_choice": "required", "parallel_tool_calls": False},
        {},
        {},
        {},
    ]
    assert fleet.requests[3].messages is not None
    assert fleet.requests[3].messages[0].content == [{"type": "image_url", "image_url": {"url": "data:,x"}}]


GOOD = {
    "type": "object",
    "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}, "a/b": {}},
    "properties": {
        "tree": {"$ref": "#/$defs/node"},
        "slash": {"$ref": "#/$defs/a~1b"},
        "pick": {"anyOf": [{"type": ["string", "null"], "pattern": "^\\p{L}+$"}, True]},
        "pair": {"type": "array", "prefixItems": [{"const": 1}], "items": False},
        "other": {"type": "object", "additionalProperties": {"type": "number", "exclusiveMinimum": 0}},
    },
    "required": ["tree"],
}


def test_a_good_schema_passes_unchanged(tmp_path: Path) -> None:
    fleet = ScriptedFleet()
    with client(tmp_path, fleet) as http:
        assert http.post(CHAT, json={**HELLO, **shaped(GOOD)}).status_code == 200
    assert fleet.requests[0].extra == shaped(GOOD)


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[TestClient[Any]]:
    """The whole application with its built-in scripted model."""
    app = create_app(Settings(home=str(tmp_path)), trusted=True)
    with TestClient(app, base_url="http://127.0.0.1:12434") as http:
        yield http


def test_a_call_and_its_result(echo: TestClient[Any]) -> None:
    tools = [tool("get_weather", properties={"city": {"type": "string"}}, required=["city"])]
    asked = {"model": "echo", "tools": tools, "messages": [{"role": "user", "content": "get_weather in 'Oslo'"}]}
    whole = echo.post(CHAT, json=asked).json()["choices"][0]
    (call,) = whole["message"]["tool_calls"]
    assert (whole["finish_reason"], whole["message"]["content"]) == ("tool_calls", None)
    assert (call["type"], call["function"]["name"]) == ("function", "get_weather")
    assert json.loads(call["function"]["arguments"]) == {"city": "Oslo"}
    streamed = events(echo.post(CHAT, json={**asked, "stream": True}).text)
    pieces = [piece for one in streamed for piece in one["choices"][0]["delta"].get("tool_calls", ())]
    assert pieces[0]["id"] == call["id"]
    assert len(pieces) > 2
    assert "".join(piece["function"]["arguments"] for piece in pieces) == call["function"]["arguments"]
    result = {"role": "tool", "tool_call_id": call["id"], "content": "4 degrees"}
    again = {**asked, "messages": [*asked["messages"], whole["message"], result]}
    assert echo.post(CHAT, json=again).json()["choices"][0]["message"]["content"] == "4 degrees"


def test_a_schema_that_nothing_satisfies_is_the_engines_to_refuse(echo: TestClient[Any]) -> None:
    asked = {"model": "echo", "messages": HELLO["messages"], **shaped({"type": "integer", "minimum": 3, "maximum": 2})}
    answer = echo.post(CHAT, json=asked)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "response_format")


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"model": "eco"}, 404, "model_not_found"),
        ({"messages": [{"role": "user", "content": "w " * 9000}]}, 400, "context_length_exceeded"),
        ({"mood": "good"}, 400, "unsupported_parameter"),
    ],
)
def test_errors_of_the_engine_in_openais_shape(
    echo: TestClient[Any], change: dict[str, Any], status: int, code: str
) -> None:
    answer = echo.post(CHAT, json={"model": "echo", "messages": HELLO["messages"], **change})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["type"]) == (status, code, "invalid_request_error")
    assert error["message"]
