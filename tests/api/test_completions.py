"""The legacy dialect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from api_help import LEGACY, client, events

from dockyard.errors import EngineError
from dockyard.types import Chunk, TokenLogprob
from scripted import USAGE, ScriptedFleet, words


def test_one_prompt(tmp_path: Path) -> None:
    fleet = ScriptedFleet()
    with client(tmp_path, fleet) as http:
        body = http.post(LEGACY, json={"model": "m", "prompt": "Say"}).json()
    assert body["id"].startswith("cmpl-")
    assert body["object"] == "text_completion"
    assert body["choices"] == [{"index": 0, "text": "Hello world", "logprobs": None, "finish_reason": "stop"}]
    assert body["usage"]["total_tokens"] == 10
    (request,) = fleet.requests
    assert (request.kind, request.prompt, request.sampling.max_tokens) == ("complete", "Say", 16)


def test_several_prompts_are_numbered_through(tmp_path: Path) -> None:
    fleet = ScriptedFleet([[Chunk("a", 0), Chunk("b", 1)], [Chunk("", 0, "stop"), Chunk("", 1, "length", USAGE)]])
    asked = {"model": "m", "prompt": ["one", [1, 2], "three"], "n": 2, "max_tokens": 5}
    with client(tmp_path, fleet) as http:
        body = http.post(LEGACY, json=asked).json()
        answer = http.post(LEGACY, json={**asked, "stream": True, "stream_options": {"include_usage": True}})
    assert [(one["index"], one["text"]) for one in body["choices"]] == list(enumerate("ababab"))
    assert [one["finish_reason"] for one in body["choices"]] == ["stop", "length"] * 3
    assert body["usage"]["prompt_tokens"] == 21
    assert [request.prompt for request in fleet.requests[:3]] == ["one", [1, 2], "three"]
    assert len({request.id for request in fleet.requests}) == 6
    *found, last = events(answer.text)
    assert {one["choices"][0]["index"] for one in found} == set(range(6))
    assert last["usage"]["completion_tokens"] == 9
    assert fleet.held == 0


def test_one_failing_prompt_fails_the_request_and_frees_the_others(tmp_path: Path) -> None:
    fleet = ScriptedFleet(words("a", "b")[:1], error=EngineError("broke"), gap=0.001)
    with client(tmp_path, fleet) as http:
        answer = http.post(LEGACY, json={"model": "m", "prompt": ["x", "y"]})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "engine_error")
    assert (fleet.held, fleet.generating) == (0, 0)


def test_token_ids_are_a_prompt(tmp_path: Path) -> None:
    fleet = ScriptedFleet()
    with client(tmp_path, fleet) as http:
        http.post(LEGACY, json={"model": "m", "prompt": [1, 2, 3]})
        http.post(LEGACY, json={"model": "m", "prompt": [[1, 2], [3]]})
    assert [request.prompt for request in fleet.requests] == [[1, 2, 3], [1, 2], [3]]


def test_logprobs_and_offsets(tmp_path: Path) -> None:
    tokens = [
        TokenLogprob("Hé", -0.5, None, [TokenLogprob("Hé", -0.5), TokenLogprob("Ho", -2.0)]),
        TokenLogprob("y", -1),
    ]
    fleet = ScriptedFleet([[Chunk("Hé", logprobs=tokens[:1])], [Chunk("y", 0, "stop", USAGE, tokens[1:])]])
    asked = {"model": "m", "prompt": "x", "logprobs": 2}
    with client(tmp_path, fleet) as http:
        whole = http.post(LEGACY, json=asked).json()["choices"][0]["logprobs"]
        streamed = [
            one["choices"][0]["logprobs"] for one in events(http.post(LEGACY, json={**asked, "stream": True}).text)
        ]
    assert whole == {
        "tokens": ["Hé", "y"],
        "token_logprobs": [-0.5, -1],
        "top_logprobs": [{"Hé": -0.5, "Ho": -2.0}, {"y": -1}],
        "text_offset": [0, 2],
    }
    assert [one["text_offset"] for one in streamed] == [[0], [2]]


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"prompt": None}, "prompt"),
    ({"prompt": []}, "prompt"),
    ({"prompt": [""] * 1000}, "prompt"),
    ({"prompt": [1, "a"]}, "prompt[0]"),
    ({"prompt": [[1, -1]]}, "prompt[0]"),
    ({"prompt": [[]]}, "prompt[0]"),
    ({"prompt": [True]}, "prompt[0]"),
    ({"best_of": 3}, "best_of"),
    ({"echo": True}, "echo"),
    ({"suffix": "x"}, "suffix"),
    ({"logprobs": 30}, "logprobs"),
    ({"logprobs": True}, "logprobs"),
    ({"messages": "x", "prompt": 4}, "prompt"),
]


@pytest.mark.parametrize(("change", "param"), WRONG, ids=[str(change)[:40] for change, _ in WRONG])
def test_a_wrong_field_is_named(tmp_path: Path, change: dict[str, Any], param: str) -> None:
    with client(tmp_path) as http:
        answer = http.post(LEGACY, json={"model": "m", "prompt": "x", **change})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_best_of_one_is_what_everybody_gets(tmp_path: Path) -> None:
    with client(tmp_path) as http:
        asked = {"model": "m", "prompt": "x", "best_of": 1, "echo": False, "suffix": None}
        assert http.post(LEGACY, json=asked).status_code == 200
