"""The chat dialect: what goes to the engine, and what comes back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from api_help import CHAT, HELLO, client, events

from dockyard.errors import ContextOverflow, EngineError, InsufficientMemory, ModelNotFound, WorkerCrashed
from dockyard.types import Chunk, TokenLogprob, Usage
from scripted import REFERENCE, USAGE, ScriptedFleet, words


def test_an_answer_has_openais_shape(tmp_path: Path) -> None:
    with client(tmp_path) as http:
        answer = http.post(CHAT, json=HELLO)
    body = answer.json()
    assert body.pop("id").startswith("chatcmpl-")
    assert isinstance(body.pop("created"), int)
    assert body == {
        "object": "chat.completion",
        "model": "scripted",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello world", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 3,
            "total_tokens": 10,
            "prompt_tokens_details": {"cached_tokens": 2},
        },
    }
    assert answer.headers["x-dockyard-model"] == REFERENCE
    assert answer.headers["x-request-id"] == answer.json()["id"]


def test_every_field_reaches_the_engine(tmp_path: Path) -> None:
    fleet = ScriptedFleet()
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    asked = {
        **HELLO,
        "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.1, "seed": 3, "stop": ["a", "b"],
        "max_completion_tokens": 9, "presence_penalty": 1, "frequency_penalty": -1, "repetition_penalty": 1.1,
        "logit_bias": {"5": -100}, "logprobs": True, "top_logprobs": 2, "n": 1, "ignore_eos": True,
        "tools": tools, "tool_choice": "auto", "response_format": {"type": "json_object"},
        "chat_template_kwargs": {"x": 1}, "reasoning_effort": "low", "parallel_tool_calls": True,
        "user": "u", "metadata": {"a": "b"}, "store": False, "service_tier": "auto", "modalities": ["text"],
        "unheard_of": {"y": 2}, "nothing": None,
    }  # fmt: skip
    with client(tmp_path, fleet) as http:
        assert http.post(CHAT, json=asked).status_code == 200
    (request,) = fleet.requests
    got = request.sampling
    assert (got.temperature, got.top_p, got.top_k, got.min_p, got.seed) == (0.5, 0.9, 40, 0.1, 3)
    assert (got.stop, got.max_tokens, got.presence_penalty, got.frequency_penalty) == (("a", "b"), 9, 1, -1)
    assert (got.repetition_penalty, got.logit_bias, got.logprobs, got.ignore_eos) == (1.1, {"5": -100}, 2, True)
    assert request.extra == {
        "tools": tools, "tool_choice": "auto", "response_format": {"type": "json_object"},
        "chat_template_kwargs": {"x": 1}, "reasoning_effort": "low", "parallel_tool_calls": True,
        "unheard_of": {"y": 2},
    }  # fmt: skip
    assert request.messages is not None
    assert request.messages[0].content == "Hi"


def test_stop_may_be_one_text_and_defaults_stay_the_engines(tmp_path: Path) -> None:
    fleet = ScriptedFleet()
    with client(tmp_path, fleet) as http:
        http.post(CHAT, json={**HELLO, "stop": "x", "temperature": None, "n": None})
    got = fleet.requests[0].sampling
    assert (got.stop, got.temperature, got.max_tokens, got.n, got.logprobs) == (("x",), None, None, 1, None)


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"temperature": "hot"}, "temperature", "invalid_request"),
    ({"temperature": 2.5}, "temperature", "invalid_request"),
    ({"temperature": True}, "temperature", "invalid_request"),
    ({"top_p": -1}, "top_p", "invalid_request"),
    ({"max_tokens": 0}, "max_tokens", "invalid_request"),
    ({"max_tokens": 1.5}, "max_tokens", "invalid_request"),
    ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens", "invalid_request"),
    ({"n": 0}, "n", "invalid_request"),
    ({"n": 10_000}, "n", "invalid_request"),
    ({"stop": ["x", 1]}, "stop[1]", "invalid_request"),
    ({"stop": ""}, "stop", "invalid_request"),
    ({"seed": 1 << 70}, "seed", "invalid_request"),
    ({"logit_bias": {"hello": 1}}, "logit_bias.hello", "invalid_request"),
    ({"top_logprobs": 3}, "top_logprobs", "invalid_request"),
    ({"top_logprobs": 30, "logprobs": True}, "top_logprobs", "invalid_request"),
    ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_request"),
    ({"stream": True, "stream_options": {"include": True}}, "stream_options.include", "unsupported_parameter"),
    ({"stream": True, "stream_options": {"continuous_usage_stats": True}}, "stream_options.continuous_usage_stats",
     "invalid_request"),
    ({"functions": [{}]}, "functions", "unsupported_parameter"),
    ({"audio": {"voice": "x"}}, "audio", "unsupported_parameter"),
    ({"modalities": ["audio"]}, "modalities", "unsupported_parameter"),
    ({"model": ""}, "model", "invalid_request"),
    ({"model": None}, "model", "invalid_request"),
    ({"model": "a\x00b"}, "model", "invalid_request"),
    ({"messages": []}, "messages", "invalid_request"),
    ({"messages": "hi"}, "messages", "invalid_request"),
    ({"messages": [{"content": "x"}]}, "messages[0].role", "invalid_request"),
    ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role", "invalid_request"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "invalid_request"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_request"),
    ({"messages": [{"role": "user", "content": "x", "mood": 1}]}, "messages[0].mood", "unsupported_parameter"),
    ({"messages": [{"role": "user", "content": [{"type": "smell"}]}]}, "messages[0].content[0].type",
     "invalid_request"),
    ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text",
     "invalid_request"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "invalid_request"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "param", "code"), WRONG, ids=[str(change) for change, _, _ in WRONG])
def test_a_wrong_field_is_named(tmp_path: Path, change: dict[str, Any], param: str, code: str) -> None:
    fleet = ScriptedFleet()
    with client(tmp_path, fleet) as http:
        answer = http.post(CHAT, json={**HELLO, **change})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)
    assert error["type"] == "invalid_request_error"
    assert error["message"]
    assert not fleet.requests


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "empty"),
        (b"{", "byte 1"),
        (b'{"model": nope}', "byte 14"),
        (b"[]", "object"),
        (b'"text"', "object"),
        (b"\xff\xfe", "byte 0"),
        (b'{"model": "\xff", "messages": []}', "UTF-8"),
        (b'{"x": ' + b"[" * 50_000, "deep"),
    ],
    ids=repr,
)
def test_what_is_no_json_is_refused_with_its_position(tmp_path: Path, body: bytes, says: str) -> None:
    with client(tmp_path) as http:
        answer = http.post(CHAT, content=body)
    assert answer.status_code == 400
    assert says in answer.json()["error"]["message"]


def test_parts_and_returned_answers_are_accepted(tmp_path: Path) -> None:
    fleet = ScriptedFleet()
    parts = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "data:,x"}}]
    calls = [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    messages = [
        {"role": "developer", "content": "be kind"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None, "tool_calls": calls, "refusal": None, "annotations": [], "audio": None},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
    ]
    with client(tmp_path, fleet) as http:
        assert http.post(CHAT, json={**HELLO, "messages": messages}).status_code == 200
    got = fleet.requests[0].messages
    assert got is not None
    assert [message.role for message in got] == ["developer", "user", "assistant", "tool"]
    assert got[1].content == parts
    assert got[2].tool_calls == calls
    assert got[3].tool_call_id == "c1"


def test_a_stream_has_openais_shape(tmp_path: Path) -> None:
    with client(tmp_path) as http:
        answer = http.post(CHAT, json={**HELLO, "stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("data: [DONE]\n\n")
    first, *middle = events(answer.text)
    assert first["object"] == "chat.completion.chunk"
    assert first["choices"][0]["delta"]["role"] == "assistant"
    assert [one["choices"][0]["delta"].get("content") for one in middle] == ["Hello", " world"]
    assert [one["choices"][0]["finish_reason"] for one in middle] == [None, "stop"]
    assert len({(one["id"], one["created"], one["model"]) for one in [first, *middle]}) == 1
    assert not any("usage" in one for one in [first, *middle])


def test_usage_comes_last_in_a_stream_that_asks_for_it(tmp_path: Path) -> None:
    with client(tmp_path) as http:
        text = http.post(CHAT, json={**HELLO, "stream": True, "stream_options": {"include_usage": True}}).text
    *others, last = events(text)
    assert all(one["usage"] is None for one in others)
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == 10
    assert last["usage"]["prompt_tokens_details"] == {"cached_tokens": 2}


def test_usage_so_far_is_in_every_event_where_it_is_asked_for_and_told(tmp_path: Path) -> None:
    so_far = [Usage(prompt_tokens=7, completion_tokens=count, cached_tokens=2) for count in (1, 2)]
    batches = [[Chunk("Hel", so_far=so_far[0])], [Chunk("lo", so_far=so_far[1]), Chunk("", 0, "stop", USAGE)]]
    fleet = ScriptedFleet(batches)
    asked = {**HELLO, "stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    with client(tmp_path, fleet) as http:
        told = events(http.post(CHAT, json=asked).text)
        usual = events(http.post(CHAT, json={**asked, "stream_options": {"include_usage": True}}).text)
    assert all(one["usage"] is None for one in usual[:-1])
    assert [request.counting for request in fleet.requests] == [True, False]
    first, *middle, last = told
    assert first["usage"] is None
    assert [one["usage"]["completion_tokens"] for one in middle] == [1, 2, USAGE.completion_tokens]
    assert {one["usage"]["prompt_tokens"] for one in middle} == {7}
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in middle) == "Hello"
    assert last["choices"] == []
    with client(tmp_path, ScriptedFleet(words("Hello"))) as http:  # an answer whose engine does not tell
        *others, last = events(http.post(CHAT, json=asked).text)
    assert [one["usage"] for one in others[:-1]] == [None] * (len(others) - 1)
    assert last["usage"]["total_tokens"] == 10


def test_text_arrives_whole_whatever_it_holds(tmp_path: Path) -> None:
    nasty = ["line\nbreak\r\n\r\n", "data: [DONE]", '"quotes"\\', "naïve – 東京 🚀", "\u2028\x00\x1f"]
    with client(tmp_path, ScriptedFleet(words(*nasty))) as http:
        whole = http.post(CHAT, json=HELLO).json()["choices"][0]["message"]["content"]
        found = events(http.post(CHAT, json={**HELLO, "stream": True}).text)
    assert whole == "".join(nasty)
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in found) == "".join(nasty)


def test_logprobs(tmp_path: Path) -> None:
    top = [TokenLogprob("Hello", -0.1, list(b"Hello")), TokenLogprob("Hé", -3.0)]
    batches = [[Chunk("Hello", logprobs=[TokenLogprob("Hello", -0.1, list(b"Hello"), top)])],
               [Chunk("", 0, "stop", USAGE)]]  # fmt: skip
    with client(tmp_path, ScriptedFleet(batches)) as http:
        asked = {**HELLO, "logprobs": True, "top_logprobs": 2}
        whole = http.post(CHAT, json=asked).json()["choices"][0]["logprobs"]
        streamed = events(http.post(CHAT, json={**asked, "stream": True}).text)[1]["choices"][0]["logprobs"]
    assert whole == streamed
    assert whole["content"] == [
        {
            "token": "Hello", "logprob": -0.1, "bytes": list(b"Hello"),
            "top_logprobs": [
                {"token": "Hello", "logprob": -0.1, "bytes": list(b"Hello")},
                {"token": "Hé", "logprob": -3.0, "bytes": list("Hé".encode())},
            ],
        }
    ]  # fmt: skip


def test_choices_tools_and_reasoning(tmp_path: Path) -> None:
    pieces = [
        {"index": 0, "id": "c1", "type": "function", "function": {"name": "get", "arguments": ""}},
        {"index": 0, "function": {"arguments": '{"a":'}},
        {"index": 0, "function": {"arguments": "1}"}},
        {"index": 1, "id": "c2", "type": "function", "function": {"name": "put", "arguments": "{}"}},
    ]
    batches = [
        [Chunk(reasoning="hm"), Chunk("B", 1)],
        *([Chunk(tool_calls=[piece])] for piece in pieces),
        [Chunk("", 0, "tool_calls"), Chunk("!", 1, "length", USAGE)],
    ]
    with client(tmp_path, ScriptedFleet(batches)) as http:
        one, two = http.post(CHAT, json={**HELLO, "n": 2}).json()["choices"]
        found = events(http.post(CHAT, json={**HELLO, "n": 2, "stream": True}).text)
    assert one["message"]["content"] is None
    assert one["message"]["reasoning_content"] == "hm"
    assert one["finish_reason"] == "tool_calls"
    assert [call["function"] for call in one["message"]["tool_calls"]] == [
        {"name": "get", "arguments": '{"a":1}'},
        {"name": "put", "arguments": "{}"},
    ]
    assert (two["index"], two["message"]["content"], two["finish_reason"]) == (1, "B!", "length")
    deltas = [one["choices"][0] for one in found]
    assert [each["index"] for each in deltas[:2]] == [0, 1]
    assert [piece for each in deltas for piece in each["delta"].get("tool_calls", [])] == pieces


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (ModelNotFound("no model 'x'", param="model", hint="pull it"), 404, "invalid_request_error"),
        (InsufficientMemory("too large", retry_after=2.2), 503, "server_error"),
        (ContextOverflow("too long"), 400, "invalid_request_error"),
        (WorkerCrashed("killed"), 503, "server_error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_fails_before_the_first_chunk_has_its_own_status(
    tmp_path: Path, error: Any, status: int, kind: str, stream: bool
) -> None:
    for fleet in (ScriptedFleet(refuses=error), Failing(error)):
        with client(tmp_path, fleet) as http:
            answer = http.post(CHAT, json={**HELLO, "stream": stream})
        told = answer.json()["error"]
        assert (answer.status_code, told["type"], told["code"]) == (status, kind, error.code)
        assert (told["message"], told["param"], told.get("hint")) == (error.message, error.param, error.hint)
        assert answer.headers.get("retry-after") == ("3" if error.retry_after else None)
        assert fleet.held == 0


class Failing(ScriptedFleet):
    """Fails as the engine begins."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error=error)
        self.batches = []


def test_what_fails_later_is_an_event_and_the_end(tmp_path: Path) -> None:
    fleet = ScriptedFleet([[Chunk("Hel")], [Chunk("lo")]], error=WorkerCrashed("the worker was killed"))
    with client(tmp_path, fleet) as http:
        answer = http.post(CHAT, json={**HELLO, "stream": True})
    assert answer.status_code == 200
    assert "[DONE]" not in answer.text
    last = events(answer.text)[-1]
    assert (last["error"]["code"], last["error"]["message"]) == ("worker_crashed", "the worker was killed")
    assert fleet.held == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_bug_is_an_error_of_ours_and_tells_no_details(tmp_path: Path, stream: bool) -> None:
    fleet = Failing(RuntimeError("secret detail"))
    with client(tmp_path, fleet) as http:
        answer = http.post(CHAT, json={**HELLO, "stream": stream})
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"
    assert "secret" not in answer.text
    assert fleet.held == 0


def test_a_cut_prompt_is_always_told(tmp_path: Path) -> None:
    fleet = ScriptedFleet([[Chunk("x", truncated=12)], [Chunk("", 0, "stop", USAGE)]])
    with client(tmp_path, fleet) as http:
        whole = http.post(CHAT, json=HELLO).json()
        last = events(http.post(CHAT, json={**HELLO, "stream": True}).text)[-1]
    assert whole["dockyard"] == last["dockyard"] == {"truncated_prompt_tokens": 12}


def test_an_answer_can_explain_itself(tmp_path: Path) -> None:
    usage = Usage(prompt_tokens=1, completion_tokens=1, prefill_seconds=0.5)
    with client(tmp_path, ScriptedFleet(words("x", usage=usage))) as http:
        answer = http.post(CHAT, json={**HELLO, "top_k": -1}, headers={"x-dockyard-explain": "1"})
        assert "dockyard" not in http.post(CHAT, json=HELLO).json()
    told = answer.json()["dockyard"]
    assert [step["name"] for step in told["steps"]] == [
        "identify",
        "reserve",
        "backend",
        "screen",
        "prompt",
        "ground",
        "cache",
        "route",
    ]
    assert (told["model"], told["cache"], told["prefill_seconds"]) == (REFERENCE, "off", 0.5)
    assert told["parameters"] == {"top_k": 0}
    assert answer.headers["x-dockyard-steps"].startswith("identify;dur=")


def test_blocked_prompts_and_answers(tmp_path: Path) -> None:
    with client(tmp_path, deny_patterns=("world",)) as http:
        blocked = http.post(CHAT, json={**HELLO, "messages": [{"role": "user", "content": "the world"}]})
        answer = http.post(CHAT, json=HELLO).json()["choices"][0]
    assert (blocked.status_code, blocked.json()["error"]["code"]) == (403, "content_blocked")
    assert answer["finish_reason"] == "content_filter"
    assert "world" not in answer["message"]["content"]


def test_the_cache_says_so_and_obeys_no_store(tmp_path: Path) -> None:
    fleet = ScriptedFleet()
    asked = {**HELLO, "model": "echo", "temperature": 0}
    with client(tmp_path, fleet, cache_bytes=10_000) as http:
        seen = [http.post(CHAT, json=asked).headers["x-dockyard-cache"] for _ in range(2)]
        bypass = http.post(CHAT, json=asked, headers={"cache-control": "no-store"}).headers["x-dockyard-cache"]
        streamed = http.post(CHAT, json={**asked, "stream": True})
    assert (seen, bypass) == (["miss", "hit"], "bypass")
    assert streamed.headers["x-dockyard-cache"] == "hit"
    assert len(fleet.requests) == 2


def test_an_engine_error_in_the_middle_of_a_whole_answer_is_a_status(tmp_path: Path) -> None:
    fleet = ScriptedFleet([[Chunk("Hel")]], error=EngineError("broke"))
    with client(tmp_path, fleet) as http:
        assert http.post(CHAT, json=HELLO).status_code == 500
    assert fleet.held == 0


@pytest.mark.anyio
async def test_hanging_up_cancels_at_once(tmp_path: Path) -> None:
    """Through the project's own in-process client, which hangs up as a socket does."""
    from dockyard.api import create_app
    from dockyard.client import AsyncClient
    from dockyard.settings import Settings

    fleet = ScriptedFleet(words(*["x"] * 1000), gap=0.02)
    app = create_app(Settings(home=str(tmp_path)), fleet=fleet, trusted=True)
    async with AsyncClient(app=app) as http:
        answer = http.chat("scripted", "Hi")
        assert (await anext(answer)).text in ("", "x")
        await asyncio.sleep(0.1)
        assert fleet.generating == 1
        await answer.aclose()
        assert (fleet.generating, fleet.held) == (0, 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"messages": [{"role": "wizard", "content": "Hi"}]},
            "one of assistant, developer, function, system, tool, user",
        ),
        ({"messages": "Hi"}, None),
    ],
)
def test_a_wrong_word_is_answered_with_the_right_ones(
    change: dict[str, Any], words: str | None, tmp_path: Path
) -> None:
    with client(tmp_path) as http:
        answer = http.post(CHAT, json={**HELLO, **change})
    assert answer.status_code == 400
    assert answer.json()["error"].get("hint") == words
