"""Token ids, their text, and what a template makes of a conversation, as vLLM and llama-server answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from litestar.testing import TestClient

from dockyard.api import create_app
from dockyard.settings import Settings

TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello there"}]


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient[Any]]:
    app = create_app(Settings(home=str(tmp_path)), trusted=True)
    with TestClient(app, base_url="http://127.0.0.1:12434") as found:
        yield found


@pytest.mark.parametrize("prefix", ["", "/v1"])
def test_a_text_comes_back_from_its_tokens(client: TestClient[Any], prefix: str) -> None:
    found = client.post(f"{prefix}/tokenize", json={"model": "echo", "prompt": "one two  two three"}).json()
    assert found["count"] == len(found["tokens"]) == 4
    assert found["tokens"][0] != found["tokens"][1]
    assert found["max_model_len"] == 8192
    back = client.post(f"{prefix}/detokenize", json={"model": "echo", "tokens": found["tokens"]}).json()
    assert back == {"prompt": "one two  two three", "content": "one two  two three"}


def test_llama_server_s_words(client: TestClient[Any]) -> None:
    found = client.post("/tokenize", json={"model": "echo", "content": "a b b", "with_pieces": True}).json()
    assert [one["piece"] for one in found["tokens"]] == ["a", " b", " b"]
    assert found["tokens"][1]["id"] == found["tokens"][2]["id"]
    assert "token_strs" not in found


def test_vllm_s_words(client: TestClient[Any]) -> None:
    found = client.post("/tokenize", json={"model": "echo", "prompt": "a b a", "return_token_strs": True}).json()
    assert found["token_strs"] == ["a", " b", " a"]
    assert len(found["tokens"]) == 3
    assert all(isinstance(token, int) for token in found["tokens"])


def test_messages_go_through_the_template_first(client: TestClient[Any]) -> None:
    text = client.post("/apply-template", json={"model": "echo", "messages": TALK}).json()["prompt"]
    assert "Be brief." in text
    assert "Hello there" in text
    by_messages = client.post("/tokenize", json={"model": "echo", "messages": TALK}).json()
    by_text = client.post("/tokenize", json={"model": "echo", "prompt": text}).json()
    assert by_messages["tokens"] == by_text["tokens"]


def test_the_only_loaded_model_needs_no_name(client: TestClient[Any]) -> None:
    refused = client.post("/tokenize", json={"content": "a b"})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "model"
    client.post("/tokenize", json={"model": "echo", "content": "a b"})
    assert len(client.post("/tokenize", json={"content": "a b"}).json()["tokens"]) == 2


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        ("/tokenize", {}, "just one of"),
        ("/tokenize", {"prompt": "a", "messages": TALK}, "prompt and messages"),
        ("/tokenize", {"prompt": "a", "tools": [{"type": "function"}]}, "'tools' goes with 'messages'"),
        ("/tokenize", {"prompt": "a", "add_special": True, "add_special_tokens": True}, "not both"),
        ("/tokenize", {"messages": [{"content": "x"}]}, "messages[0]"),
        ("/tokenize", {"prompt": 7}, "prompt"),
        ("/tokenize", {"prompt": "a", "colour": 1}, "colour"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {"tokens": "abc"}, "tokens"),
        ("/detokenize", {}, "tokens"),
        ("/apply-template", {"messages": []}, "messages"),
    ],
)
def test_bad_requests_name_the_field(client: TestClient[Any], path: str, body: dict[str, Any], text: str) -> None:
    answer = client.post(path, json={"model": "echo", **body})
    assert answer.status_code == 400, answer.text
    assert text in answer.json()["error"]["message"]


def test_an_unknown_model_is_a_404(client: TestClient[Any]) -> None:
    answer = client.post("/detokenize", json={"model": "no/such", "tokens": [1]})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
