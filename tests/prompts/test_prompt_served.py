"""Prompts by name over the API: in chats, Responses, routes and MCP; reasoning and samples on the way out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient

from dockyard.api import create_app
from dockyard.settings import Settings

STACK = """
models: {small: echo}
prompts: {greet: greet.yaml, thinker: thinker.yaml, voter: voter.yaml, near: near.yaml, typed: typed.yaml}
routes:
  greeter: {model: small, prompt: greet}
  split:
    backends: [{model: small, prompt: "shop:v1"}, {model: small, prompt: "shop:v2"}]
"""
FILES = {
    "greet.yaml": "model: echo\nvariables: {who: {}, times: {type: integer, default: 1}}\n"
    "template: '{{ input }} {{ who }} {{ times }}'\n",
    "thinker.yaml": "reasoning: steps\nmodel: echo\n",
    "voter.yaml": "samples: 3\n",
    "near.yaml": "examples: [{input: blue whales, output: sea}, {input: red foxes, output: wood}]\n"
    "select: {count: 1, by: similarity, model: small}\n",
    "typed.yaml": "schema: {type: object, properties: {name: {type: string}}, required: [name]}\nreasoning: steps\n",
}


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient[Any]]:
    home = tmp_path_factory.mktemp("prompts")
    (home / "dockyard.yaml").write_text(STACK)
    for name, text in FILES.items():
        (home / name).write_text(text)
    settings = Settings(home=str(home / "data"), stack=str(home), deny_patterns=("secret",))
    with TestClient(create_app(settings), base_url="http://127.0.0.1:12434") as client:
        for task in ("One.", "Two."):
            body = {"name": "shop", "text": f"task: {task}\ntemplate: '{task} {{{{ input }}}}'"}
            assert client.post("/api/dockyard/prompts", json=body).status_code == 200
        yield client


def chat(http: TestClient[Any], model: str, text: str, prompt: dict[str, Any] | None = None, **more: Any) -> Any:
    own = {"dockyard": {"prompt": prompt}} if prompt is not None else {}
    body = {"model": model, "messages": [{"role": "user", "content": text}], **own, **more}
    return http.post("/v1/chat/completions", json=body, headers={"x-dockyard-explain": "1"})


def text_of(answer: Any) -> str:
    return str(answer.json()["choices"][0]["message"]["content"])


def test_a_chat_names_a_prompt_and_its_variables(http: TestClient[Any]) -> None:
    answer = chat(http, "echo", "Hello", {"id": "greet", "variables": {"who": "Ann", "times": "2"}})
    assert text_of(answer) == "Hello Ann 2"
    used = answer.json()["dockyard"]["prompt"]
    assert (used["name"], used["version"]) == ("greet", "file")
    assert text_of(chat(http, "greeter", "Hello", {"variables": {"who": "Bob"}})) == "Hello Bob 1"


@pytest.mark.parametrize(
    ("prompt", "status", "told"),
    [
        ({"id": "gret"}, 404, "did you mean 'greet'"),
        ({"id": "greet"}, 400, "'who' is missing"),
        ({"id": "greet", "variables": {"who": 1}}, 400, "of type string"),
        ({"id": "greet", "version": "v9"}, 404, "no version"),
        ({"id": "greet", "variables": {"who": "the secret"}}, 403, "refused"),
        ({"id": "greet", "variables": {"who": {"type": "input_image"}}}, 400, "only text"),
        ({"name": "greet"}, 400, "dockyard.prompt.name"),
        ({}, 404, "no prompt"),
    ],
)
def test_what_is_wrong_with_a_prompt_is_told(
    http: TestClient[Any], prompt: dict[str, Any], status: int, told: str
) -> None:
    answer = chat(http, "echo", "Hello", prompt)
    assert answer.status_code == status
    assert told in json.dumps(answer.json(), ensure_ascii=False)


def test_responses_take_openais_prompt(http: TestClient[Any]) -> None:
    prompt = {"id": "greet", "variables": {"who": {"type": "input_text", "text": "Cy"}, "input": "Hi"}}
    answer = http.post("/v1/responses", json={"prompt": prompt}).json()
    assert answer["output"][0]["content"][0]["text"] == "Hi Cy 1"
    assert (answer["model"], answer["prompt"]["id"]) == ("echo", "greet")
    counted = http.post("/v1/responses", json={"model": "echo", "prompt": prompt, "input": "Yo", "truncation": "auto"})
    assert counted.json()["output"][0]["content"][0]["text"] == "Hi Cy 1"
    assert http.post("/v1/responses", json={"prompt": {"id": "voter"}, "input": "x"}).status_code == 400


def test_completions_have_no_prompts(http: TestClient[Any]) -> None:
    answer = http.post("/v1/completions", json={"model": "greeter", "prompt": "x"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")


@pytest.mark.parametrize("stream", [False, True])
def test_reasoning_is_told_apart(http: TestClient[Any], stream: bool) -> None:
    answer = chat(http, "echo", "I think.\nAnswer: four of them", {"id": "thinker"}, stream=stream)
    if not stream:
        message = answer.json()["choices"][0]["message"]
        assert (message["reasoning_content"], message["content"]) == ("I think.", "four of them")
        return
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    deltas = [choice["delta"] for event in events for choice in event["choices"]]
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == "I think."
    assert "".join(delta.get("content") or "" for delta in deltas) == "four of them"


def test_an_answer_cut_while_thinking_is_none(http: TestClient[Any]) -> None:
    answer = chat(http, "echo", "I think. And so on", {"id": "thinker"}, max_tokens=2).json()["choices"][0]
    assert (answer["finish_reason"], answer["message"]["content"]) == ("length", "")


def test_several_samples_become_one_answer(http: TestClient[Any]) -> None:
    answer = chat(http, "echo", "yes", {"id": "voter"}).json()
    assert [choice["message"]["content"] for choice in answer["choices"]] == ["yes"]
    assert answer["usage"]["completion_tokens"] == 3
    assert chat(http, "echo", "yes", {"id": "voter"}, n=2).status_code == 400


def test_a_schema_with_reasoning_answers_with_the_inner_object(http: TestClient[Any]) -> None:
    message = chat(http, "echo", "Ann", {"id": "typed"}).json()["choices"][0]["message"]
    assert list(json.loads(message["content"])) == ["name"]


def test_the_nearest_example_is_shown(http: TestClient[Any]) -> None:
    for said, wanted in (("red foxes here", 2), ("blue whales here", 2)):
        answer = chat(http, "echo", said, {"id": "near"})
        assert text_of(answer) == said
        assert answer.json()["usage"]["prompt_tokens"] > wanted


def test_versions_share_a_route_and_are_counted_apart(http: TestClient[Any]) -> None:
    said = {text_of(chat(http, "split", "x")) for _ in range(30)}
    assert said == {"One. x", "Two. x"}
    rows = [row for row in http.get("/api/dockyard/usage").json()["usage"] if row["route"] == "split"]
    assert sum(row["requests"] for row in rows) == 30
    assert {row["prompt"].partition("@")[0] for row in rows} == {"shop:v1", "shop:v2"}


def test_a_rollback_holds_from_the_next_request(http: TestClient[Any]) -> None:
    assert text_of(chat(http, "echo", "x", {"id": "shop"})) == "Two. x"
    done = http.post("/api/dockyard/prompts/rollback", json={"name": "shop"}).json()
    assert (done["was"], done["now"]) == ("v2", "v1")
    assert text_of(chat(http, "echo", "x", {"id": "shop"})) == "One. x"
    http.post("/api/dockyard/prompts/rollback", json={"name": "shop", "to": "v2"})


def test_prompts_are_listed_and_no_models(http: TestClient[Any]) -> None:
    names = {row["name"]: row for row in http.get("/api/dockyard/prompts").json()["prompts"]}
    assert set(names) == {"greet", "thinker", "voter", "near", "typed", "shop"}
    assert [one["version"] for one in names["shop"]["versions"]] == ["v1", "v2"]
    shown = http.get("/api/dockyard/prompts/shop", params={"version": "v1"}).json()
    assert shown["prompt"]["task"] == "One."
    rendered = http.post("/api/dockyard/prompts/render", json={"name": "shop", "version": "v1", "input": "y"}).json()
    assert [one["content"] for one in rendered["messages"]] == ["One.", "One. y"]
    assert not any("shop" in one["id"] for one in http.get("/v1/models").json()["data"])
    assert not any("shop" in one["name"] for one in http.get("/api/tags").json()["models"])


def test_a_changed_file_holds_from_the_next_request(http: TestClient[Any]) -> None:
    file = Path(http.app.state["site"].stack.folder) / "voter.yaml"  # type: ignore[attr-defined]
    before = file.read_text()
    file.write_text("template: 'new {{ input }}'")
    assert text_of(chat(http, "echo", "x", {"id": "voter"})) == "new x"
    file.write_text(before)
