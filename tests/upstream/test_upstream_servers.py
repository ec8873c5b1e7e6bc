"""A Dockyard that serves another's models, through whole servers."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest

KEY = "sk-inner-0123456789"


@pytest.fixture(scope="module")
def client(outer: Any) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{outer.url}/v1", api_key="none", max_retries=0)


@pytest.mark.parametrize("model", ["there/echo", "best"])
def test_a_chat_through_two_servers(client: openai.OpenAI, model: str) -> None:
    messages: Any = [{"role": "user", "content": "one two three"}]
    whole = client.chat.completions.create(model=model, messages=messages)
    assert whole.choices[0].message.content == "one two three"
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (3, 3)
    parts = list(client.chat.completions.create(model=model, messages=messages, stream=True))
    assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == "one two three"
    assert len(parts) > 3


def test_completions_and_embeddings(client: openai.OpenAI) -> None:
    assert client.completions.create(model="there/echo", prompt="a b c").choices[0].text == "a b c"
    assert len(client.embeddings.create(model="there/echo", input=["a", "b"]).data) == 2


def test_models_are_listed(client: openai.OpenAI) -> None:
    assert {"there/echo", "locked/echo"} <= {model.id for model in client.models.list()}
    assert client.models.retrieve("there/echo").owned_by == "there"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("there/other")


def test_failures_there_are_told_here_without_the_key(client: openai.OpenAI) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="locked/echo", messages=[{"role": "user", "content": "x"}])
    assert caught.value.status_code == 502
    assert "api_key_env" in caught.value.response.text
    assert KEY not in caught.value.response.text
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="there/unlisted", messages=[{"role": "user", "content": "x"}])


def test_callers_bring_no_addresses_of_their_own(outer: Any) -> None:
    body = {"model": "http://169.254.169.254/x", "messages": [{"role": "user", "content": "x"}]}
    assert httpx.post(f"{outer.url}/v1/chat/completions", json=body).status_code in (400, 404)


def test_another_providers_api_through_the_library(client: openai.OpenAI) -> None:
    pytest.importorskip("any_llm", reason="the extra `upstream` is not installed")
    messages: Any = [{"role": "user", "content": "one two three"}]
    whole = client.chat.completions.create(model="claude/echo", messages=messages, max_tokens=20)
    assert whole.choices[0].message.content == "one two three"
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 3
    parts = list(client.chat.completions.create(model="claude/echo", messages=messages, max_tokens=20, stream=True))
    assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == "one two three"
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="claude/nothing", messages=messages, max_tokens=20)
    assert KEY not in caught.value.response.text
