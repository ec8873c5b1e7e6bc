"""Anthropic's messages: what goes to the engine, and what comes back, whole and as events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from litestar.testing import TestClient

from dockyard.api import create_app
from dockyard.api._anthropic_answer import MessageAsked
from dockyard.errors import EngineError, InsufficientMemory, ModelNotFound, RateLimited
from dockyard.settings import Settings
from dockyard.types import Call, Chunk, Request, Usage
from scripted import USAGE, ScriptedFleet, words

MESSAGES = "/v1/messages"
HELLO: dict[str, Any] = {"model": "m", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}
WEATHER = {"name": "weather", "description": "Tells it", "input_schema": {"type": "object"}}
PIXEL = "iVBORw0KGgo="


@contextmanager
def serving(home: Path, fleet: Any = None, **settings: Any) -> Iterator[TestClient[Any]]:
    app = create_app(Settings(home=str(home), **settings), fleet=fleet or ScriptedFleet(), trusted=True)
    with TestClient(app, base_url="http://127.0.0.1:12434") as found:
        yield found


def events(text: str) -> list[dict[str, Any]]:
    """The events of a stream; each names itself twice."""
    blocks = text.split("\n\n")
    assert blocks.pop() == ""
    found = []
    for block in blocks:
        name, data = block.split("\n")
        told = json.loads(data.removeprefix("data: "))
        assert name == f"event: {told['type']}"
        found.append(told)
    return found


def sent(home: Path, **fields: Any) -> Request:
    """What reaches the engine."""
    fleet = ScriptedFleet()
    with serving(home, fleet) as http:
        answer = http.post(MESSAGES, json={**HELLO, **fields})
    assert answer.status_code == 200, answer.text
    return fleet.requests[0]


def refused(home: Path, **fields: Any) -> str:
    fleet = ScriptedFleet()
    with serving(home, fleet) as http:
        answer = http.post(MESSAGES, json={**HELLO, **fields})
    assert answer.status_code == 400
    assert fleet.requests == []
    body = answer.json()
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    return str(body["error"]["message"])


@pytest.mark.parametrize("path", [MESSAGES, "/anthropic/v1/messages", "/engines/v1/messages"])
def test_an_answer_has_anthropics_shape(tmp_path: Path, path: str) -> None:
    with serving(tmp_path) as http:
        body = http.post(path, json=HELLO).json()
    assert body.pop("id").startswith("msg_")
    assert body == {
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "Hello world"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 5,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 2,
            "output_tokens": 3,
        },
    }


def test_a_streamed_text_is_told_event_by_event(tmp_path: Path) -> None:
    with serving(tmp_path) as http:
        answer = http.post(MESSAGES, json={**HELLO, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = events(answer.text)
    start = found[0]["message"]
    assert (start["content"], start["stop_reason"], start["usage"]["output_tokens"]) == ([], None, 0)
    assert found[1:] == [
        {"type": "ping"},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hello"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": " world"}},
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {
                "input_tokens": 5,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 2,
                "output_tokens": 3,
            },
        },
        {"type": "message_stop"},
    ]


def _call(index: int, name: str | None = None, arguments: str = "") -> dict[str, Any]:
    function = {"name": name, "arguments": arguments} if name else {"arguments": arguments}
    return {"index": index, **({"id": f"call_{index}", "type": "function"} if name else {}), "function": function}


CALLS = [
    [Chunk(reasoning="Hm.")],
    [Chunk("I look.")],
    [Chunk(tool_calls=[_call(0, "weather")])],
    [Chunk(tool_calls=[_call(0, arguments='{"city":')])],
    [Chunk(tool_calls=[_call(0, arguments='"Rome"}')])],
    [Chunk(tool_calls=[_call(1, "weather", "{}")])],
    [Chunk(finish="tool_calls", usage=USAGE)],
]


def test_thoughts_text_and_calls_are_blocks_of_their_own(tmp_path: Path) -> None:
    asked = {**HELLO, "tools": [WEATHER], "thinking": {"type": "enabled", "budget_tokens": 10}}
    with serving(tmp_path, ScriptedFleet(CALLS)) as http:
        whole = http.post(MESSAGES, json=asked).json()
        found = events(http.post(MESSAGES, json={**asked, "stream": True}).text)
    content = [
        {"type": "thinking", "thinking": "Hm.", "signature": ""},
        {"type": "text", "text": "I look."},
        {"type": "tool_use", "id": "call_0", "name": "weather", "input": {"city": "Rome"}},
        {"type": "tool_use", "id": "call_1", "name": "weather", "input": {}},
    ]
    assert (whole["content"], whole["stop_reason"]) == (content, "tool_use")
    assert rebuilt(found) == content
    assert found[-2]["delta"]["stop_reason"] == "tool_use"


def rebuilt(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The content that these events build; their order must be right."""
    content: list[dict[str, Any]] = []
    inside = False
    for event in found:
        match event["type"]:
            case "content_block_start":
                assert not inside
                assert event["index"] == len(content)
                content.append({**event["content_block"], "json": ""})
                inside = True
            case "content_block_delta":
                assert inside
                assert event["index"] == len(content) - 1
                delta, block = event["delta"], content[-1]
                name = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "json"}[delta["type"]]
                block[name] += delta.get("partial_json", delta.get(name))
            case "content_block_stop":
                assert inside
                inside = False
    assert not inside
    for block in content:
        text = block.pop("json")
        if block["type"] == "tool_use":
            block["input"] = json.loads(text or "{}")
    return content


PIECES = st.one_of(
    st.text(min_size=1, max_size=5).map(lambda text: Chunk(text)),
    st.text(min_size=1, max_size=5).map(lambda text: Chunk(reasoning=text)),
)


@given(st.lists(PIECES, max_size=12), st.integers(0, 3), st.integers(1, 4))
def test_any_chunks_make_blocks_that_follow_each_other(pieces: list[Chunk], calls: int, cut: int) -> None:
    made = [Chunk(tool_calls=[_call(index, "f", "{}")]) for index in range(calls)]
    chunks = [*pieces, *made, Chunk(finish="stop")]
    asked = MessageAsked(Call(request=Request(id="x"), model="m", dialect="anthropic"), thinking=True, hidden=False)
    data = asked.begin()
    for place in range(0, len(chunks), cut):
        data += asked.events(chunks[place : place + cut])
    content = rebuilt(events((data + asked.end(Usage(), None)).decode()))
    assert "".join(one.get("text", "") for one in content) == "".join(one.text for one in pieces)
    assert "".join(one.get("thinking", "") for one in content) == "".join(one.reasoning for one in pieces)
    assert sum(one["type"] == "tool_use" for one in content) == calls


@pytest.mark.parametrize("thinking", [None, {"type": "disabled"}])
def test_nobody_sees_thoughts_who_did_not_ask(tmp_path: Path, thinking: Any) -> None:
    with serving(tmp_path, ScriptedFleet(CALLS)) as http:
        body = http.post(MESSAGES, json={**HELLO, **({"thinking": thinking} if thinking else {})}).json()
    assert [block["type"] for block in body["content"]] == ["text", "tool_use", "tool_use"]


def test_thoughts_can_be_left_out_of_their_blocks(tmp_path: Path) -> None:
    thinking = {"type": "adaptive", "display": "omitted"}
    with serving(tmp_path, ScriptedFleet(CALLS)) as http:
        body = http.post(MESSAGES, json={**HELLO, "thinking": thinking}).json()
        found = events(http.post(MESSAGES, json={**HELLO, "thinking": thinking, "stream": True}).text)
    assert body["content"][0] == {"type": "thinking", "thinking": "", "signature": ""}
    assert rebuilt(found) == body["content"]


@pytest.mark.parametrize(
    ("finish", "stop", "told"),
    [
        ("stop", None, ("end_turn", None)),
        ("stop", "END", ("stop_sequence", "END")),
        ("length", None, ("max_tokens", None)),
        ("content_filter", None, ("refusal", None)),
    ],
)
def test_why_it_ended(tmp_path: Path, finish: str, stop: str | None, told: tuple[str, str | None]) -> None:
    fleet = ScriptedFleet([[Chunk("a", finish=finish, usage=USAGE, stop=stop)]])
    with serving(tmp_path, fleet) as http:
        body = http.post(MESSAGES, json={**HELLO, "stop_sequences": ["END"]}).json()
        last = events(http.post(MESSAGES, json={**HELLO, "stream": True}).text)[-2]["delta"]
    assert (body["stop_reason"], body["stop_sequence"]) == told
    assert (last["stop_reason"], last["stop_sequence"]) == told
    assert fleet.requests[0].sampling.stop == ("END",)


def test_sampling_reaches_the_engine(tmp_path: Path) -> None:
    got = sent(tmp_path, temperature=0.5, top_p=0.9, top_k=7, metadata={"user_id": "u"}, service_tier="auto").sampling
    assert (got.max_tokens, got.temperature, got.top_p, got.top_k) == (50, 0.5, 0.9, 7)


def test_a_conversation_becomes_the_canonical_one(tmp_path: Path) -> None:
    cached = {"cache_control": {"type": "ephemeral"}}
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    request = sent(
        tmp_path,
        system=[{"type": "text", "text": "Be", **cached}, {"type": "text", "text": "brief."}],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "Look", **cached}, image]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "x"},
                    {"type": "text", "text": "I call."},
                    {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Rome"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "is_error": True,
                     "content": [{"type": "text", "text": "no sun"}, image]},
                    {"type": "text", "text": "Well?"},
                ],
            },
        ],
    )  # fmt: skip
    assert request.messages is not None
    system, first, called, result, second = request.messages
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
    assert (system.role, system.content) == ("system", "Be\nbrief.")
    assert first.content == [{"type": "text", "text": "Look"}, url]
    assert (called.content, called.reasoning_content) == ("I call.", "Hm.")
    assert called.tool_calls == [
        {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}
    ]
    assert (result.role, result.tool_call_id, result.content) == ("tool", "t1", "Error: no sun")
    assert second.content == [url, {"type": "text", "text": "Well?"}]


def test_documents_are_read_as_text(tmp_path: Path) -> None:
    document = {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "D"}}
    request = sent(tmp_path, messages=[{"role": "user", "content": [document, {"type": "text", "text": "?"}]}])
    assert request.messages is not None
    assert request.messages[0].content == "T\nD\n?"


def _said(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def test_an_agent_is_answered_as_it_asks(tmp_path: Path) -> None:
    cached = {"cache_control": {"type": "ephemeral"}}
    request = sent(
        tmp_path,
        system=[{"type": "text", "text": "You are an agent.", **cached}],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b", **cached}]}
        ],
        tools=[{**WEATHER, "eager_input_streaming": True, "strict": True}],
        thinking={"type": "adaptive"},
        output_config={"effort": "low"},
        context_management={"edits": [{"type": "clear_thinking_20251015"}]},
        metadata={"user_id": "u"},
        stream=True,
    )
    assert request.messages is not None
    assert [message.content for message in request.messages] == ["You are an agent.", "a\nb"]
    assert request.extra["reasoning_effort"] == "low"
    assert request.extra["tools"][0]["function"]["strict"] is True


FUNCTION = {"name": "weather", "parameters": {"type": "object"}, "description": "Tells it"}


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "any", "disable_parallel_tool_use": True},
         {"tool_choice": "required", "parallel_tool_calls": False}),
        ({"type": "none"}, {"tool_choice": "none"}),
        ({"type": "tool", "name": "weather"},
         {"tool_choice": {"type": "function", "function": {"name": "weather"}}}),
    ],
)  # fmt: skip
def test_tools_reach_the_engine_in_openais_shape(tmp_path: Path, choice: Any, wanted: dict[str, Any]) -> None:
    tool = {**WEATHER, "cache_control": {"type": "ephemeral"}}
    extra = sent(tmp_path, tools=[tool], tool_choice=choice).extra
    assert extra == {"tools": [{"type": "function", "function": FUNCTION}], **wanted}


@pytest.mark.parametrize(
    ("fields", "effort"),
    [
        ({"thinking": {"type": "enabled", "budget_tokens": 20}}, "low"),
        ({"thinking": {"type": "enabled", "budget_tokens": 5000}, "max_tokens": 6000}, "medium"),
        ({"thinking": {"type": "enabled", "budget_tokens": 9000}, "max_tokens": 10000}, "high"),
        ({"thinking": {"type": "disabled"}}, "none"),
        ({"thinking": {"type": "adaptive"}}, "medium"),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}}, "high"),
        ({}, None),
    ],
)
def test_thinking_becomes_an_effort(tmp_path: Path, fields: dict[str, Any], effort: str | None) -> None:
    assert sent(tmp_path, **fields).extra.get("reasoning_effort") == effort


def test_a_schema_becomes_a_response_format(tmp_path: Path) -> None:
    schema = {"type": "object"}
    extra = sent(tmp_path, output_config={"format": {"type": "json_schema", "schema": schema}}).extra
    assert extra["response_format"]["json_schema"]["schema"] == schema


def _user(block: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [block]}]}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"temperature": "hot"}, "temperature"),
        ({"unheard_of": 1}, "'unheard_of'"),
        ({"messages": [{"role": "user", "content": "x", "name": "y"}]}, "messages[0].name"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        (_user({"type": "audio"}), "messages[0].content[0].type"),
        (_user({"type": "text"}), "messages[0].content[0].text"),
        (_user({"type": "image", "source": {"type": "url", "url": "http://x"}}), "not fetched"),
        (_user({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "?"}}), "base64"),
        (_user({"type": "image", "source": {"type": "base64", "media_type": "text/css", "data": ""}}), "media_type"),
        (_user({"type": "document", "source": {"type": "base64", "data": ""}}), "document"),
        (_user({"type": "tool_result", "content": "x"}), "tool_use_id"),
        ({"tools": [{"name": "x"}]}, "tools[0].input_schema"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "run by Anthropic"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "wether"}}, "there is no tool 'wether'"),
        ({"tool_choice": {"type": "auto"}}, "tool_choice"),
        ({"thinking": {"type": "enabled"}}, "budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 50}}, "not below max_tokens"),
        ({"output_config": {"format": {"type": "xml"}}}, "output_config.format"),
        ({"container": "c"}, "'container'"),
        ({"mcp_servers": [{}]}, "'mcp_servers'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    assert said in refused(tmp_path, **fields)


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (ModelNotFound("no m"), 404, "not_found_error"),
        (RateLimited("slow", retry_after=3), 429, "rate_limit_error"),
        (InsufficientMemory("full"), 529, "overloaded_error"),
        (EngineError("broken"), 500, "api_error"),
    ],
)
def test_failures_have_anthropics_words(tmp_path: Path, error: Any, status: int, kind: str) -> None:
    with serving(tmp_path, ScriptedFleet(refuses=error)) as http:
        answer = http.post(MESSAGES, json=HELLO)
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)
    assert (answer.headers.get("retry-after") == "3") == (status == 429)


def test_a_failure_in_the_middle_is_an_event(tmp_path: Path) -> None:
    with serving(tmp_path, ScriptedFleet(words("a", "b")[:1], error=EngineError("lost"))) as http:
        found = events(http.post(MESSAGES, json={**HELLO, "stream": True}).text)
    assert found[-1] == {"type": "error", "error": {"type": "api_error", "message": "lost"}}


@pytest.mark.parametrize(("method", "path"), [("GET", MESSAGES), ("GET", "/anthropic/v1/nothing")])
def test_unknown_paths_and_methods_are_told_alike(tmp_path: Path, method: str, path: str) -> None:
    with serving(tmp_path) as http:
        answer = http.request(method, path)
    assert answer.status_code in (404, 405)
    assert answer.json()["type"] == "error"


def test_too_large_a_body(tmp_path: Path) -> None:
    with serving(tmp_path, max_body=1024) as http:
        answer = http.post(MESSAGES, json={**HELLO, "system": "x" * 2000})
    assert (answer.status_code, answer.json()["error"]["type"]) == (413, "request_too_large")


def test_tokens_of_a_prompt_are_counted(tmp_path: Path) -> None:
    app = create_app(Settings(home=str(tmp_path)), trusted=True)
    asked = {"model": "echo", "messages": [{"role": "user", "content": "one two three"}], "tools": [WEATHER]}
    with TestClient(app, base_url="http://127.0.0.1:12434") as http:
        short = http.post(f"{MESSAGES}/count_tokens", json=asked).json()
        longer = http.post(f"{MESSAGES}/count_tokens", json={**asked, "system": "four five"}).json()
        wrong = http.post(f"{MESSAGES}/count_tokens", json={**asked, "max_tokens": 3})
    assert set(short) == {"input_tokens"}
    assert longer["input_tokens"] == short["input_tokens"] + 2
    assert wrong.status_code == 400


def test_models_are_listed_page_by_page(tmp_path: Path) -> None:
    with serving(tmp_path) as http:
        listed = http.get("/anthropic/v1/models?limit=1").json()
        one = http.get("/anthropic/v1/models/echo").json()
        after = http.get("/anthropic/v1/models?after_id=echo").json()
        wrong = http.get("/anthropic/v1/models?after_id=nothing")
        missing = http.get("/anthropic/v1/models/nothing")
    assert listed == {"data": [one], "has_more": False, "first_id": "echo", "last_id": "echo"}
    assert (one["type"], one["id"], one["created_at"]) == ("model", "echo", "1970-01-01T00:00:00Z")
    assert (after["data"], after["last_id"]) == ([], None)
    assert wrong.status_code == 400
    assert (missing.status_code, missing.json()["error"]["type"]) == (404, "not_found_error")
