"""The legacy dialect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from api_help import LEGACY, client, events
from litestar.testing import TestClient

from dockyard.api import create_app
from dockyard.errors import EngineError
from dockyard.settings import Settings
from dockyard.types import Chunk, Result, TokenLogprob, Usage
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


def test_usage_so_far_is_that_of_all_prompts(tmp_path: Path) -> None:
    told = [Usage(prompt_tokens=7, completion_tokens=count) for count in (1, 2)]
    fleet = ScriptedFleet([[Chunk("a", so_far=told[0])], [Chunk("b", so_far=told[1])], [Chunk("", 0, "stop", USAGE)]])
    options = {"include_usage": True, "continuous_usage_stats": True}
    with client(tmp_path, fleet) as http:
        asked = {"model": "m", "prompt": ["one", "two"], "stream": True, "stream_options": options}
        *found, last = events(http.post(LEGACY, json=asked).text)
    counted = [one["usage"]["completion_tokens"] for one in found]
    assert counted == sorted(counted)
    assert found[-1]["usage"] == last["usage"]
    assert last["usage"]["completion_tokens"] == 2 * USAGE.completion_tokens


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
    ({"prompt": ["a", ""]}, "prompt[1]"),
    ({"best_of": 2, "n": 3}, "best_of"),
    ({"best_of": 2, "stream": True}, "best_of"),
    ({"echo": True, "logprobs": 1, "stream": True}, "echo"),
    ({"echo": True, "prompt": [1], "stream": True}, "echo"),
    ({"echo": True, "suffix": "x"}, "echo"),
    ({"suffix": "x", "prompt": [1]}, "suffix"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"response_format": {"type": "yaml"}}, "response_format.type"),
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


def test_the_best_of_several_is_the_likeliest(tmp_path: Path) -> None:
    drawn = [("bad", -3.0), ("best", -0.5), ("good", -1.0)]
    chunks = [
        Chunk(text, index, "stop", USAGE if index == 2 else None, [TokenLogprob(text, value)])
        for index, (text, value) in enumerate(drawn)
    ]
    fleet = ScriptedFleet([chunks])
    with client(tmp_path, fleet) as http:
        asked = {"model": "m", "prompt": ["x", "y"], "best_of": 3, "n": 2}
        body = http.post(LEGACY, json=asked).json()
    assert [(one["index"], one["text"]) for one in body["choices"]] == list(enumerate(["best", "good"] * 2))
    assert body["choices"][0]["logprobs"] is None
    assert {request.sampling.n for request in fleet.requests} == {3}


def test_the_text_after_the_gap_reaches_the_engine(tmp_path: Path) -> None:
    fleet = ScriptedFleet()
    with client(tmp_path, fleet) as http:
        http.post(LEGACY, json={"model": "m", "prompt": "def f(", "suffix": "): pass"})
    assert fleet.requests[0].suffix == "): pass"


WORTH = (
    None,
    TokenLogprob(" ship", -2.0, None, [TokenLogprob(" car", -1.0)]),
    TokenLogprob(" sails", -0.5, None, [TokenLogprob(" sails", -0.5)]),
)
SCORED = [
    [Chunk(" on", logprobs=[TokenLogprob(" on", -0.25)], result=Result(prompt_logprobs=WORTH))],
    [Chunk("", 0, "length", USAGE)],
]


@pytest.mark.parametrize("most", [0, 1])
def test_echo_tells_what_the_prompt_was_worth(tmp_path: Path, most: int) -> None:
    fleet = ScriptedFleet(SCORED)
    asked = {"model": "m", "prompt": "The ship sails", "echo": True, "logprobs": 1, "max_tokens": most}
    with client(tmp_path, fleet) as http:
        body = http.post(LEGACY, json=asked).json()
    (choice,) = body["choices"]
    assert choice["text"] == "The ship sails" + " on" * most
    assert choice["logprobs"] == {
        "tokens": ["The", " ship", " sails", " on"][: 3 + most],
        "token_logprobs": [None, -2.0, -0.5, -0.25][: 3 + most],
        "top_logprobs": [None, {" car": -1.0, " ship": -2.0}, {" sails": -0.5}, {" on": -0.25}][: 3 + most],
        "text_offset": [0, 3, 8, 14][: 3 + most],
    }
    assert body["usage"]["completion_tokens"] == (3 if most else 0)
    sampling = fleet.requests[0].sampling
    assert (sampling.max_tokens, sampling.prompt_logprobs, sampling.ignore_eos) == (1, 1, True)


def test_echo_scores_a_prompt_from_a_place_on(tmp_path: Path) -> None:
    fleet = ScriptedFleet(SCORED)
    asked = {"model": "m", "prompt": "The ship sails", "echo": True, "logprobs": 1, "max_tokens": 0}
    with client(tmp_path, fleet) as http:
        (choice,) = http.post(LEGACY, json={**asked, "logprob_start_len": 2}).json()["choices"]
        refused = http.post(LEGACY, json={**asked, "echo": False, "max_tokens": 1, "logprob_start_len": 2})
    assert choice["logprobs"]["tokens"] == ["The", " ship", " sails"]
    assert choice["logprobs"]["token_logprobs"] == [None, None, -0.5]
    assert fleet.requests[0].sampling.prompt_logprobs_from == 2
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "logprob_start_len")


def test_echo_without_logprobs_is_the_prompt_before_the_answer(tmp_path: Path) -> None:
    fleet = ScriptedFleet()
    asked = {"model": "m", "prompt": ["One", "Two"], "echo": True, "n": 1}
    with client(tmp_path, fleet) as http:
        whole = http.post(LEGACY, json=asked).json()["choices"]
        streamed = events(http.post(LEGACY, json={**asked, "stream": True}).text)
        silent = events(http.post(LEGACY, json={**asked, "stream": True, "max_tokens": 0}).text)
    assert [one["text"] for one in whole] == ["OneHello world", "TwoHello world"]
    for found, said in ((streamed, "Hello world"), (silent, "")):
        texts = ["", ""]
        for one in found:
            texts[one["choices"][0]["index"]] += one["choices"][0]["text"]
        assert texts == [f"One{said}", f"Two{said}"]
    assert fleet.requests[0].sampling.prompt_logprobs is None


def test_echo_of_token_ids_is_their_text(tmp_path: Path) -> None:
    with client(tmp_path, ScriptedFleet(SCORED)) as http:
        body = http.post(LEGACY, json={"model": "m", "prompt": [1, 2, 3], "echo": True, "max_tokens": 1}).json()
    assert body["choices"][0]["text"] == " ship sails on"
    assert body["choices"][0]["logprobs"] is None


def test_scores_as_lm_eval_asks_for_and_reads_them(tmp_path: Path) -> None:
    """The request of its ``local-completions`` model and, in its words, what it makes of the answer."""
    context, answers = "the red ship and the blue car : the", (" red ship", " old train")
    app = create_app(Settings(home=str(tmp_path)), trusted=True)
    with TestClient(app, base_url="http://127.0.0.1:12434") as http:
        asked = {
            "model": "echo", "prompt": [context + one for one in answers], "temperature": 0, "max_tokens": 1,
            "logprobs": 1, "seed": 1234, "echo": True,
        }  # fmt: skip
        out = http.post(LEGACY, json=asked).json()
    scored = []
    ctxlen = len(context.split())
    for choice in sorted(out["choices"], key=lambda one: one["index"]):
        tokens_logprobs = choice["logprobs"]["token_logprobs"][ctxlen:-1]
        top_logprobs = choice["logprobs"]["top_logprobs"][ctxlen:-1]
        greedy = all(token == max(top.values()) for token, top in zip(tokens_logprobs, top_logprobs, strict=True))
        scored.append((sum(tokens_logprobs), greedy))
    assert scored[0] == (pytest.approx(-0.2), True)
    assert scored[1][0] < -1
    assert scored[1][1] is False
