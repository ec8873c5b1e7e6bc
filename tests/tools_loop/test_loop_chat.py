"""Plain chats whose tools the server runs."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest

pytest.importorskip("mcp")

ANN = "ann-has-a-long-secret"

TEXT = "clock__now 'Paris' then sums__add 3 4"
MINE: Any = {"extra_body": {"dockyard": {"profile": "default"}}}


def chat(ann: openai.OpenAI, text: str, model: str = "echo", **fields: Any) -> Any:
    return ann.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], **fields)


def test_the_client_sees_a_plain_answer(ann: openai.OpenAI) -> None:
    answer = chat(ann, TEXT, **MINE)
    (choice,) = answer.choices
    assert (choice.message.content, choice.message.tool_calls) == ("noon in Paris\n7", None)
    assert choice.finish_reason == "stop"
    assert answer.usage.completion_tokens > 4


def test_streamed(ann: openai.OpenAI) -> None:
    chunks = list(chat(ann, TEXT, stream=True, stream_options={"include_usage": True}, **MINE))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "noon in Paris\n7"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    assert not any(chunk.choices[0].delta.tool_calls for chunk in chunks if chunk.choices)
    assert chunks[-1].usage.completion_tokens > 4


def test_usage_so_far_counts_the_calls_of_tools_too(ann: openai.OpenAI) -> None:
    options: Any = {"include_usage": True, "continuous_usage_stats": True}
    *chunks, last = chat(ann, TEXT, stream=True, stream_options=options, **MINE)
    counted = [chunk.usage.completion_tokens for chunk in chunks if chunk.usage]
    assert counted == sorted(counted)
    assert counted[-1] == last.usage.completion_tokens
    assert counted[0] > 4  # what came before the first word


def test_only_where_it_is_wanted(ann: openai.OpenAI) -> None:
    assert chat(ann, TEXT).choices[0].message.content == TEXT
    assert chat(ann, TEXT, model="talker").choices[0].message.content == "noon in Paris\n7"
    off: Any = {"extra_body": {"dockyard": {"profile": ""}}}
    assert chat(ann, TEXT, model="talker", **off).choices[0].message.content == TEXT


def test_what_needs_a_person_is_refused(server: Any, ann: openai.OpenAI) -> None:
    pair: Any = {"extra_body": {"dockyard": {"profile": "pair"}}}
    answer = chat(ann, "notes__save 'never this'", **pair)
    assert "nobody can be asked" in answer.choices[0].message.content
    assert "save never this" not in server.calls()


def test_what_an_earlier_turn_read_counts(server: Any, ann: openai.OpenAI) -> None:
    first = {"role": "user", "content": "inbox__now 'Rome'"}
    read = ann.chat.completions.create(model="echo", messages=[first], **MINE)
    turns: Any = [
        first,
        {"role": "assistant", "content": read.choices[0].message.content},
        {"role": "user", "content": "outbox__save 'what was read'"},
    ]
    answer = ann.chat.completions.create(model="echo", messages=turns, **MINE)
    assert "nobody can be asked" in answer.choices[0].message.content
    assert "save what was read" not in server.calls()
    assert chat(ann, "outbox__save 'nothing'", **MINE).choices[0].message.content == "kept nothing"


def test_a_profile_that_is_searched(ann: openai.OpenAI) -> None:
    large: Any = {"extra_body": {"dockyard": {"profile": "large"}}}
    answer = chat(ann, "search_tools 'sum of numbers' then sums__add 3 4", **large)
    assert answer.choices[0].message.content.endswith("\n7")


def test_the_clients_own_tools_beside_them(ann: openai.OpenAI) -> None:
    paint: Any = {"type": "function", "function": {"name": "paint", "parameters": {"type": "object"}}}
    answer = chat(ann, "clock__now 'Paris' then paint it", tools=[paint], **MINE)
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    assert [call.function.name for call in choice.message.tool_calls] == ["paint"]


def test_what_can_not_be(ann: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        chat(ann, "x", extra_body={"dockyard": {"profile": "nobody"}})
    with pytest.raises(openai.BadRequestError, match="one choice"):
        chat(ann, "x", n=2, **MINE)


def test_other_dialects_get_the_same_tools(server: Any) -> None:
    ask = {"model": "talker", "messages": [{"role": "user", "content": TEXT}]}
    key = {"authorization": f"Bearer {ANN}"}
    message = httpx.post(f"{server.url}/v1/messages", json={"max_tokens": 99, **ask}, headers=key).json()
    assert [block.get("text") for block in message["content"]] == ["noon in Paris\n7"]
    ollama = httpx.post(f"{server.url}/api/chat", json={"stream": False, **ask}, headers=key).json()
    assert ollama["message"]["content"] == "noon in Paris\n7"
