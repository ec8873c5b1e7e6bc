"""Names of a stack file answer as models in every dialect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from litestar.testing import TestClient

from dockyard.api import create_app
from dockyard.settings import Settings

STACK = """
name: desk
models:
  small: echo
  other: {source: echo}
routes:
  helpdesk:
    model: small
    description: Helps
    guards: {deny_patterns: ["(?i)password"]}
    parameters: {max_tokens: 2}
  split:
    backends: [{model: small}, {model: other, parameters: {max_tokens: 1}}]
  handy: {model: small, tools: default}
"""
ASK = {"messages": [{"role": "user", "content": "one two three"}]}


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient[Any]]:
    home = tmp_path_factory.mktemp("stack")
    (home / "dockyard.yaml").write_text(STACK)
    settings = Settings(home=str(home / "data"), stack=str(home), cache_bytes=1 << 20)
    with TestClient(create_app(settings), base_url="http://127.0.0.1:12434") as client:
        yield client


def test_a_route_answers_in_every_dialect(http: TestClient[Any]) -> None:
    chat = http.post("/v1/chat/completions", json={"model": "helpdesk", **ASK}).json()
    assert (chat["model"], chat["choices"][0]["message"]["content"]) == ("helpdesk", "one two")
    message = http.post("/v1/messages", json={"model": "helpdesk", "max_tokens": 9, **ASK}).json()
    assert message["content"][0]["text"] == "one two three"
    ollama = http.post("/api/chat", json={"model": "helpdesk", "stream": False, **ASK}).json()
    assert ollama["message"]["content"] == "one two"
    response = http.post("/v1/responses", json={"model": "helpdesk", "input": "one two three"}).json()
    assert response["output"][0]["content"][0]["text"] == "one two"
    counted = http.post("/v1/messages/count_tokens", json={"model": "helpdesk", **ASK}).json()
    assert counted["input_tokens"] > 0
    vectors = http.post("/v1/embeddings", json={"model": "small", "input": "one"}).json()
    assert len(vectors["data"]) == 1


def test_names_are_listed_and_explained(http: TestClient[Any]) -> None:
    rows = {one["id"]: one for one in http.get("/v1/models").json()["data"]}
    assert rows["helpdesk"]["owned_by"] == "desk"
    assert rows["helpdesk"]["dockyard"]["models"] == ["small"]
    assert http.get("/v1/models/helpdesk").json()["dockyard"]["description"] == "Helps"
    assert http.delete("/v1/models/helpdesk").status_code == 403
    assert "helpdesk" in [one["id"] for one in http.get("/anthropic/v1/models").json()["data"]]
    assert "helpdesk" in [one["name"] for one in http.get("/api/tags").json()["models"]]
    assert http.get("/api/dockyard/explain", params={"model": "helpdesk"}).json()["engine"] == "echo"


def test_a_route_has_guards_of_its_own(http: TestClient[Any]) -> None:
    bad = {"messages": [{"role": "user", "content": "my password"}]}
    refused = http.post("/v1/chat/completions", json={"model": "helpdesk", **bad})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "content_blocked")
    assert http.post("/v1/chat/completions", json={"model": "small", **bad}).status_code == 200


def test_requests_are_shared_out_and_counted_by_route(http: TestClient[Any]) -> None:
    told = set()
    for _ in range(40):
        answer = http.post("/v1/chat/completions", json={"model": "split", **ASK}, headers={"x-dockyard-explain": "1"})
        body = answer.json()
        told.add((body["dockyard"]["target"], body["choices"][0]["message"]["content"]))
    assert told == {("small", "one two three"), ("other", "one")}
    usage = http.get("/api/dockyard/usage").json()["usage"]
    assert sum(row["requests"] for row in usage if row["route"] == "split") == 40


def test_a_route_whose_profile_has_no_servers_yet_answers_responses(http: TestClient[Any]) -> None:
    told = http.post("/v1/responses", json={"model": "handy", "input": "one"}).json()
    assert [item["type"] for item in told["output"]] == ["message"]
    assert told["output"][0]["content"][0]["text"] == "one"
