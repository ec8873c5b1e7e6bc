"""Plain chats whose tools the server runs."""

from __future__ import annotations

from typing import Any

import openai
import pytest

pytest.importorskip("mcp")

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
