"""Ollama's chat, generate and embed: what goes to the engine, and the lines that come back."""

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
from dockyard.api._ollama_wire import seconds
from dockyard.errors import EngineError, InvalidRequest, ModelNotFound, RateLimited
from dockyard.settings import Settings
from dockyard.types import Chunk, Request, TokenLogprob, Usage
from scripted import USAGE, ScriptedFleet, words

CHAT, GENERATE = "/api/chat", "/api/generate"
HELLO: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
PROMPT: dict[str, Any] = {"model": "m", "prompt": "Hi"}
TIMES = ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration")
PNG = "iVBORw0KGgo="


@contextmanager
def serving(home: Path, fleet: Any = None, **settings: Any) -> Iterator[TestClient[Any]]:
    """The application over a scripted fleet; ``fleet`` "echo": over the echo engine."""
    scripted = None if fleet == "echo" else fleet or ScriptedFleet()
    app = create_app(Settings(home=str(home), **settings), fleet=scripted, trusted=True)
    with TestClient(app, base_url="http://127.0.0.1:12434") as found:
        yield found


def lines(text: str) -> list[dict[str, Any]]:
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def sent(home: Path, path: str = CHAT, **fields: Any) -> Request:
    """What reaches the engine."""
    fleet = ScriptedFleet()
    with serving(home, fleet) as http:
        answer = http.post(path, json={**(HELLO if path == CHAT else PROMPT), **fields})
    assert answer.status_code == 200, answer.text
    return fleet.requests[0]


def untimed(line: dict[str, Any]) -> dict[str, Any]:
    """A line without what differs each time; those times must make sense."""
    assert line.pop("created_at").endswith("Z")
    for name in TIMES:
        if name in line:
            value = line.pop(name)
            assert isinstance(value, int)
            assert 0 <= value < 60e9
    return line


LAST = {"done": True, "done_reason": "stop", "prompt_eval_count": 7, "eval_count": 3}


def test_a_chat_is_streamed_by_default_a_line_a_step(tmp_path: Path) -> None:
    with serving(tmp_path) as http:
        answer = http.post(CHAT, json=HELLO)
    assert answer.headers["content-type"].startswith("application/x-ndjson")

    def line(text: str) -> dict[str, Any]:
        return {"model": "m", "message": {"role": "assistant", "content": text}}

    assert [untimed(one) for one in lines(answer.text)] == [
        {**line("Hello"), "done": False},
        {**line(" world"), "done": False},
        {**line(""), **LAST},
    ]


def test_a_chat_may_come_whole(tmp_path: Path) -> None:
    with serving(tmp_path) as http:
        body = http.post(CHAT, json={**HELLO, "stream": False}).json()
    assert untimed(body) == {"model": "m", "message": {"role": "assistant", "content": "Hello world"}, **LAST}


def test_generate_answers_with_a_response(tmp_path: Path) -> None:
    with serving(tmp_path) as http:
        streamed = [untimed(one) for one in lines(http.post(GENERATE, json=PROMPT).text)]
        whole = untimed(http.post(GENERATE, json={**PROMPT, "stream": False}).json())
    assert [one["response"] for one in streamed] == ["Hello", " world", ""]
    assert streamed[-1] == {"model": "m", "response": "", **LAST}
    assert whole == {"model": "m", "response": "Hello world", **LAST}


def test_the_engines_own_times_are_told(tmp_path: Path) -> None:
    usage = Usage(prompt_tokens=4, completion_tokens=2, prefill_seconds=0.25, decode_seconds=1.5)
    fleet = ScriptedFleet(words("a", finish="length", usage=usage))
    with serving(tmp_path, fleet) as http:
        body = http.post(CHAT, json={**HELLO, "stream": False}).json()
    assert (body["prompt_eval_duration"], body["eval_duration"]) == (250_000_000, 1_500_000_000)
    assert (body["prompt_eval_count"], body["eval_count"], body["done_reason"]) == (4, 2, "length")


def _call(index: int, **function: Any) -> dict[str, Any]:
    return {"index": index, "id": f"c{index}" if "name" in function else None, "function": function}


CALLS = [
    [Chunk(reasoning="Hm.")],
    [Chunk(tool_calls=[_call(0, name="weather", arguments='{"city":')])],
    [Chunk(tool_calls=[_call(0, arguments='"Rome"}')])],
    [Chunk(tool_calls=[_call(1, name="time")], finish="tool_calls", usage=USAGE)],
]
MADE = [
    {"id": "c0", "function": {"name": "weather", "arguments": {"city": "Rome"}}},
    {"id": "c1", "function": {"name": "time", "arguments": {}}},
]


def test_calls_come_whole_and_thoughts_as_they_are_thought(tmp_path: Path) -> None:
    with serving(tmp_path, ScriptedFleet(CALLS)) as http:
        streamed = lines(http.post(CHAT, json=HELLO).text)
        whole = http.post(CHAT, json={**HELLO, "stream": False}).json()
    assert whole["message"] == {"role": "assistant", "content": "", "thinking": "Hm.", "tool_calls": MADE}
    assert [one["message"].get("thinking") for one in streamed] == ["Hm.", None, None]
    assert [one["message"].get("tool_calls") for one in streamed] == [None, MADE, None]
    assert streamed[-1]["done_reason"] == "stop"


def test_logprobs(tmp_path: Path) -> None:
    chunk = Chunk("a", 0, "stop", USAGE, [TokenLogprob("a", -0.5, [97], [TokenLogprob("b", -1.0)])])
    fleet = ScriptedFleet([[chunk]])
    with serving(tmp_path, fleet) as http:
        body = http.post(GENERATE, json={**PROMPT, "stream": False, "logprobs": True, "top_logprobs": 1}).json()
    top = [{"token": "b", "logprob": -1.0, "bytes": [98]}]
    assert body["logprobs"] == [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": top}]
    assert fleet.requests[0].sampling.logprobs == 1


def test_options_reach_the_engine(tmp_path: Path) -> None:
    options = {
        "num_predict": 9, "temperature": 0.5, "top_k": 40, "top_p": 0.9, "min_p": 0.1, "seed": 3, "stop": ["a", "b"],
        "repeat_penalty": 1.1, "presence_penalty": 1, "frequency_penalty": -1, "typical_p": 0.8, "mirostat": 0,
        "repeat_last_n": 64, "num_ctx": 100,
    }  # fmt: skip
    request = sent(tmp_path, options=options)
    got = request.sampling
    assert (got.max_tokens, got.temperature, got.top_k, got.top_p, got.min_p) == (9, 0.5, 40, 0.9, 0.1)
    assert (got.seed, got.stop, got.repetition_penalty) == (3, ("a", "b"), 1.1)
    assert (got.presence_penalty, got.frequency_penalty) == (1, -1)
    assert request.extra == {"typical_p": 0.8, "repeat_last_n": 64}


def test_options_that_say_nothing_leave_the_engine_its_own(tmp_path: Path) -> None:
    options = {"num_predict": -1, "seed": -1, "top_k": None, "mirostat": 0, "typical_p": 1.0}
    got = sent(tmp_path, options=options)
    assert (got.sampling.max_tokens, got.sampling.seed, got.sampling.top_k, got.extra) == (None, None, None, {})


def test_what_has_no_effect_is_told(tmp_path: Path) -> None:
    with serving(tmp_path) as http:
        body = http.post(GENERATE, json={**PROMPT, "options": {"num_gpu": 99}, "context": [1], "stream": False}).json()
        plain = http.post(GENERATE, json={**PROMPT, "stream": False}).json()
    assert body["dockyard"] == {"ignored": ["options.num_gpu", "context"]}
    assert "dockyard" not in plain


def test_a_larger_window_than_the_loaded_one_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path) as http:
        fits = http.post(CHAT, json={**HELLO, "options": {"num_ctx": 128}})
        more = http.post(CHAT, json={**HELLO, "options": {"num_ctx": 129}})
    assert (fits.status_code, more.status_code) == (200, 400)
    assert "context of 128 tokens, not 129" in more.json()["error"]


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("fields", "extra"),
    [
        ({"format": "json"}, {"response_format": {"type": "json_object"}}),
        ({"format": ""}, {}),
        ({"format": SCHEMA},
         {"response_format": {"type": "json_schema", "json_schema": {"name": "format", "schema": SCHEMA}}}),
        ({"think": True}, {"reasoning_effort": "medium"}),
        ({"think": False}, {"reasoning_effort": "none"}),
        ({"think": "high"}, {"reasoning_effort": "high"}),
        ({"tools": [{"function": {"name": "f"}}]}, {"tools": [{"type": "function", "function": {"name": "f"}}]}),
    ],
)  # fmt: skip
def test_formats_thought_and_tools_are_the_canonical_ones(
    tmp_path: Path, fields: dict[str, Any], extra: dict[str, Any]
) -> None:
    assert sent(tmp_path, **fields).extra == extra


def test_a_conversation_becomes_the_canonical_one(tmp_path: Path) -> None:
    calls = [{"function": {"name": "a", "arguments": {"x": 1}}}, {"function": {"name": "b", "arguments": {}}}]
    request = sent(
        tmp_path,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Look", "images": [PNG]},
            {"role": "assistant", "thinking": "Hm.", "tool_calls": calls},
            {"role": "tool", "tool_name": "b", "content": "B"},
            {"role": "tool", "content": "A"},
        ],
    )
    assert request.messages is not None
    system, user, called, second, first = request.messages
    assert system.content == "Be brief."
    url = {"url": f"data:image/png;base64,{PNG}"}
    assert user.content == [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": url}]
    assert called.reasoning_content == "Hm."
    assert called.tool_calls is not None
    assert [call["function"]["arguments"] for call in called.tool_calls] == ['{"x":1}', "{}"]
    assert [second.tool_call_id, first.tool_call_id] == [called.tool_calls[1]["id"], called.tool_calls[0]["id"]]


def test_a_prompt_goes_through_the_chat_template_unless_it_is_raw(tmp_path: Path) -> None:
    templated = sent(tmp_path / "a", GENERATE, system="Be brief.", images=[PNG])
    raw = sent(tmp_path / "b", GENERATE, raw=True)
    middle = sent(tmp_path / "c", GENERATE, suffix="end")
    assert templated.kind == "chat"
    assert templated.messages is not None
    assert [message.role for message in templated.messages] == ["system", "user"]
    assert (raw.kind, raw.prompt, raw.messages) == ("complete", "Hi", None)
    assert (middle.kind, middle.prompt, middle.suffix) == ("complete", "Hi", "end")


@pytest.mark.parametrize(
    ("path", "fields", "said"),
    [
        (CHAT, {"model": None}, "model"),
        (CHAT, {"unheard_of": 1}, "'unheard_of'"),
        (CHAT, {"options": {"temprature": 1}}, "options.temprature"),
        (CHAT, {"options": {"temperature": "hot"}}, "options.temperature"),
        (CHAT, {"format": "xml"}, "format"),
        (CHAT, {"think": "hard"}, "think"),
        (CHAT, {"keep_alive": "soon"}, "keep_alive"),
        (CHAT, {"tools": [{"type": "function"}]}, "tools[0].function.name"),
        (CHAT, {"messages": [{"role": "user", "content": "x", "images": ["?"]}]}, "not base64"),
        (CHAT, {"messages": [{"role": "user", "content": "x", "images": ["AAAA"]}]}, "images[0]"),
        (CHAT, {"messages": [{"role": "assistant", "tool_calls": [{}]}]}, "tool_calls[0].function.name"),
        (GENERATE, {"template": "{{ .Prompt }}"}, "template"),
        (GENERATE, {"raw": True, "system": "x"}, "'system'"),
        (GENERATE, {"width": 10}, "'width'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, path: str, fields: dict[str, Any], said: str) -> None:
    fleet = ScriptedFleet()
    with serving(tmp_path, fleet) as http:
        answer = http.post(path, json={**(HELLO if path == CHAT else PROMPT), **fields})
    assert answer.status_code == 400
    assert said in answer.json()["error"]
    assert fleet.requests == []


@pytest.mark.parametrize(("error", "status"), [(ModelNotFound("no m"), 404), (RateLimited("slow", retry_after=3), 429)])
def test_failures_have_ollamas_shape(tmp_path: Path, error: Any, status: int) -> None:
    with serving(tmp_path, ScriptedFleet(refuses=error)) as http:
        answer = http.post(CHAT, json=HELLO)
    assert (answer.status_code, answer.json()["error"]) == (status, error.message)


def test_a_failure_in_the_middle_is_a_line(tmp_path: Path) -> None:
    with serving(tmp_path, ScriptedFleet(words("a", "b")[:1], error=EngineError("lost"))) as http:
        assert lines(http.post(CHAT, json=HELLO).text)[-1] == {"error": "lost", "code": "engine_error"}


def test_wrong_methods_are_told_alike(tmp_path: Path) -> None:
    with serving(tmp_path) as http:
        answer = http.get(CHAT)
        other = http.get("/api/pull")
    assert (answer.status_code, other.status_code) == (405, 405)
    assert isinstance(answer.json()["error"], str)
    assert isinstance(other.json()["error"], str)


@pytest.mark.parametrize(("path", "held"), [(CHAT, {"message": {"role": "assistant", "content": ""}}),
                                            (GENERATE, {"response": ""})])  # fmt: skip
def test_a_request_for_nothing_loads_and_unloads(tmp_path: Path, path: str, held: dict[str, Any]) -> None:
    with serving(tmp_path, "echo") as http:
        loaded = http.post(path, json={"model": "echo:latest"}).json()
        names = [one["name"] for one in http.get("/api/ps").json()["models"]]
        unloaded = http.post(path, json={"model": "echo", "keep_alive": 0}).json()
        missing = http.post(path, json={"model": "no-such"})
    assert untimed(loaded) == {"model": "echo:latest", **held, "done": True, "done_reason": "load"}
    assert unloaded["done_reason"] == "unload"
    assert names == ["echo"]
    assert missing.status_code == 404


def test_a_key_for_other_models_loads_nothing(tmp_path: Path) -> None:
    app = create_app(Settings(home=str(tmp_path), api_keys=("sk-a",)))
    with TestClient(app, base_url="http://127.0.0.1:12434") as http:
        stranger = http.post(GENERATE, json={"model": "echo"})
        pulled = http.post("/api/pull", json={"model": "x"}, headers={"authorization": "Bearer sk-a"})
        listed = http.get("/api/tags", headers={"authorization": "Bearer sk-a"})
    assert (stranger.status_code, pulled.status_code, listed.status_code) == (401, 403, 200)
    assert isinstance(pulled.json()["error"], str)


@pytest.mark.parametrize("path", [CHAT, GENERATE])
def test_who_may_only_infer_keeps_no_model_for_good(tmp_path: Path, path: str) -> None:
    app = create_app(Settings(home=str(tmp_path), api_keys=("sk-a",)))
    key = {"authorization": "Bearer sk-a"}
    asked = {**(HELLO if path == CHAT else PROMPT), "model": "echo", "stream": False}
    with TestClient(app, base_url="http://127.0.0.1:12434") as http:
        refused = [http.post(path, json={**body, "keep_alive": -1}, headers=key) for body in (asked, {"model": "echo"})]
        taken = http.post(path, json={**asked, "keep_alive": "24h"}, headers=key)
    assert [answer.status_code for answer in (*refused, taken)] == [403, 403, 200]
    assert all("for good" in answer.json()["error"] for answer in refused)


def test_who_may_only_infer_does_not_unpin_what_another_pinned(tmp_path: Path) -> None:
    app = create_app(Settings(home=str(tmp_path), api_keys=("sk-a", "sk-m:manage")))
    guest, owner = ({"authorization": f"Bearer {key}"} for key in ("sk-a", "sk-m"))

    def expires(http: TestClient[Any]) -> str:
        (row,) = http.get("/api/ps", headers=owner).json()["models"]
        return str(row["expires_at"])

    with TestClient(app, base_url="http://127.0.0.1:12434") as http:
        assert http.post(GENERATE, json={"model": "echo-worker", "keep_alive": -1}, headers=owner).status_code == 200
        pinned = expires(http)
        for body in ({"keep_alive": "5m"}, {"keep_alive": "5m", **PROMPT}, {"keep_alive": 0, **PROMPT}):
            asked = {**body, "model": "echo-worker", "stream": False}
            assert http.post(GENERATE, json=asked, headers=guest).status_code == 200
        assert expires(http) == pinned
        assert http.post(GENERATE, json={"model": "echo-worker", "keep_alive": "5m"}, headers=owner).status_code == 200
        assert expires(http) != pinned


def test_clients_may_knock(tmp_path: Path) -> None:
    with serving(tmp_path) as http:
        assert [http.head(path).status_code for path in ("/api/version", "/api/tags")] == [200, 200]
        assert set(http.get("/api/version").json()) == {"version", "dockyard"}


def test_vectors(tmp_path: Path) -> None:
    with serving(tmp_path, "echo") as http:
        one = http.post("/api/embed", json={"model": "echo", "input": "a cat"}).json()
        many = http.post("/api/embed", json={"model": "echo", "input": ["a cat", "a dog"], "dimensions": 2}).json()
        older = http.post("/api/embeddings", json={"model": "echo", "prompt": "a cat"}).json()
        none = http.post("/api/embed", json={"model": "echo", "input": []}).json()
        told = http.post("/api/embed", json={"model": "echo", "input": "a", "truncate": True}).json()
        wrong = http.post("/api/embed", json={"model": "echo", "input": [1, 2]})
    assert (one["model"], len(one["embeddings"]), one["prompt_eval_count"]) == ("echo", 1, 2)
    assert [len(vector) for vector in many["embeddings"]] == [2, 2]
    assert older == {"embedding": one["embeddings"][0]}
    assert none["embeddings"] == []
    assert told["dockyard"] == {"ignored": ["truncate"]}
    assert wrong.status_code == 400


@pytest.mark.parametrize(
    ("given", "wanted"),
    [("5m", 300.0), ("1h30m", 5400.0), ("1.5s", 1.5), ("300ms", 0.3), ("-1m", -60.0), ("0", 0.0), ("-1", -1.0), (7, 7),
     (None, None)],
)  # fmt: skip
def test_durations(given: Any, wanted: float | None) -> None:
    assert seconds(given) == (None if wanted is None else pytest.approx(wanted))


@given(st.text(max_size=12))
def test_no_text_makes_a_duration_fail_otherwise(text: str) -> None:
    found: float | str | None
    try:
        found = seconds(text)
    except InvalidRequest as error:
        found = error.param
    assert isinstance(found, float) or found == "keep_alive"


def test_fields_that_ollamas_own_client_leaves_empty(tmp_path: Path) -> None:
    generate = {"model": "echo", "prompt": "a", "suffix": "", "system": "", "template": "", "options": {}}
    show = {"model": "echo", "system": "", "template": "", "verbose": False, "options": None, "name": ""}
    with serving(tmp_path, "echo") as http:
        assert http.post(GENERATE, json={**generate, "keep_alive": "5m0s", "stream": False}).json()["response"] == "a"
        assert http.post("/api/show", json=show).json()["capabilities"] == ["completion"]
        assert http.post("/api/show", json={"name": "echo"}).status_code == 200
        gone = http.request("DELETE", "/api/delete", json={"model": "no-such", "name": ""})
        other = http.post("/api/show", json={**show, "system": "Talk like a pirate."})
        secret = http.post("/api/pull", json={"model": "x", "username": "u", "password": ""})
    assert gone.status_code == 404
    assert "'system'" in other.json()["error"]
    assert "'username'" in secret.json()["error"]
