"""OpenAI's own client, unchanged, against ``/v1/responses`` and ``/v1/conversations``."""

from __future__ import annotations

import json
import time
from typing import Any

import openai
import pytest
from pydantic import BaseModel

TOOL: Any = {
    "type": "function",
    "name": "weather_of",
    "description": "The weather of a town.",
    "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    "strict": True,
}
CLOCK: Any = {"type": "function", "name": "clock", "parameters": {"type": "object", "properties": {}}, "strict": False}


class Person(BaseModel):
    name: str
    age: int


def ended(client: openai.OpenAI, id: str) -> Any:
    for _ in range(200):
        found = client.responses.retrieve(id)
        if found.status not in ("queued", "in_progress"):
            return found
        time.sleep(0.05)
    raise AssertionError("it did not end")


def test_text(ann: openai.OpenAI) -> None:
    answer = ann.responses.create(model="echo", input="one two three", instructions="be brief", metadata={"a": "b"})
    assert answer.output_text == "one two three"
    assert (answer.status, answer.metadata, answer.instructions) == ("completed", {"a": "b"}, "be brief")
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (5, 3, 8)
    assert ann.responses.retrieve(answer.id) == answer


def test_a_limit_makes_it_incomplete(ann: openai.OpenAI) -> None:
    answer = ann.responses.create(model="echo", input="one two three", max_output_tokens=2)
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.output[0].status == "incomplete"  # type: ignore[union-attr]


def test_events_are_numbered_and_add_up(ann: openai.OpenAI) -> None:
    events = list(ann.responses.create(model="echo", input="one two", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
        "response.output_text.delta", "response.output_text.delta", "response.output_text.done",
        "response.content_part.done", "response.output_item.done", "response.completed",
    ]  # fmt: skip
    last = events[-1]
    assert last.type == "response.completed"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "one two"
    assert ann.responses.retrieve(last.response.id).to_dict() == last.response.to_dict()


def test_the_stream_helper_and_parse(ann: openai.OpenAI) -> None:
    text = 'Ann is 7: {"name": "Ann", "age": 7}'
    with ann.responses.stream(model="echo", input=text, text_format=Person) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_response()
    assert "response.output_text.done" in kinds
    parsed = ann.responses.parse(model="echo", input=text, text_format=Person)
    assert isinstance(final.output_parsed, Person)
    assert parsed.output_parsed == final.output_parsed


def test_a_conversation_goes_on(ann: openai.OpenAI) -> None:
    first = ann.responses.create(model="echo", input="one two")
    second = ann.responses.create(model="echo", input="three", previous_response_id=first.id)
    third = ann.responses.create(model="echo", input="four", previous_response_id=second.id, stream=True)
    last = list(third)[-1]
    assert last.type == "response.completed"
    assert last.response.usage is not None
    assert last.response.usage.input_tokens == 2 + 2 + 1 + 1 + 1
    items = list(ann.responses.input_items.list(last.response.id, order="asc", limit=2))
    texts = [item.content[0].text for item in items if item.type == "message"]  # type: ignore[union-attr]
    assert texts == ["one two", "one two", "three", "three", "four"]
    assert [item.id for item in ann.responses.input_items.list(last.response.id)] == [i.id for i in items[::-1]]


def test_a_tool_is_called_and_answered(ann: openai.OpenAI) -> None:
    asked: Any = {"model": "echo", "tools": [TOOL, CLOCK]}
    first = ann.responses.create(input="weather_of Paris and clock", **asked)
    calls = [item for item in first.output if item.type == "function_call"]
    assert [call.name for call in calls] == ["weather_of", "clock"]
    assert all(call.status == "completed" and isinstance(json.loads(call.arguments), dict) for call in calls)
    told = [{"type": "function_call_output", "call_id": call.call_id, "output": "sunny"} for call in calls]
    second = ann.responses.create(input=told, previous_response_id=first.id, **asked)  # type: ignore[arg-type]
    assert "sunny" in second.output_text
    whole = ann.responses.create(input=["weather_of Paris", *first.output, *told][1:], **asked)
    assert "sunny" in whole.output_text


def test_streamed_calls_add_up(ann: openai.OpenAI) -> None:
    pieces: dict[int, str] = {}
    for event in ann.responses.create(model="echo", input="weather_of Paris, clock", tools=[TOOL, CLOCK], stream=True):
        if event.type == "response.function_call_arguments.delta":
            pieces[event.output_index] = pieces.get(event.output_index, "") + event.delta
        elif event.type == "response.function_call_arguments.done":
            assert pieces.get(event.output_index, "") == event.arguments
    assert len(pieces) == 2
    with ann.responses.stream(model="echo", input="clock", tools=[TOOL, CLOCK]) as stream:
        assert stream.get_final_response().output[0].type == "function_call"


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("none", []),
        ("required", ["weather_of"]),
        ({"type": "function", "name": "clock"}, ["clock"]),
        ({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "clock"}]}, ["clock"]),
    ],
)
def test_tool_choice(ann: openai.OpenAI, choice: Any, names: list[str]) -> None:
    answer = ann.responses.create(model="echo", input="hello", tools=[TOOL, CLOCK], tool_choice=choice)
    assert [item.name for item in answer.output if item.type == "function_call"] == names


@pytest.mark.parametrize("summary", [None, "auto"])
def test_reasoning(ann: openai.OpenAI, summary: Any) -> None:
    asked: Any = {"model": "echo", "input": "hi", "reasoning": {"effort": "low", "summary": summary}}
    answer = ann.responses.create(**asked)
    thought, said = answer.output
    assert (thought.type, said.type, answer.output_text) == ("reasoning", "message", "hi")
    assert bool(thought.summary) is (summary is not None)
    assert bool(thought.content) is (summary is None)
    kind = "response.reasoning_summary_text.delta" if summary else "response.reasoning_text.delta"
    streamed = "".join(event.delta for event in ann.responses.create(stream=True, **asked) if event.type == kind)
    assert streamed == (thought.summary or thought.content)[0].text  # type: ignore[index]
    assert answer.usage is not None
    assert answer.usage.output_tokens_details.reasoning_tokens > 0
    ann.responses.create(model="echo", input=[*answer.output, {"role": "user", "content": "go on"}])  # type: ignore[list-item]


def test_logprobs(ann: openai.OpenAI) -> None:
    answer = ann.responses.create(model="echo", input="a b", include=["message.output_text.logprobs"], top_logprobs=0)
    part = answer.output[0].content[0]  # type: ignore[union-attr, index]
    assert [one.token for one in part.logprobs] == ["a", " b"]  # type: ignore[union-attr]
    assert ann.responses.create(model="echo", input="a b").output[0].content[0].logprobs == []  # type: ignore[union-attr, index]


def test_in_the_background(ann: openai.OpenAI) -> None:
    begun = ann.responses.create(model="echo", input="one two", background=True)
    assert begun.status == "queued"
    done = ended(ann, begun.id)
    assert (done.status, done.output_text) == ("completed", "one two")
    events = list(ann.responses.retrieve(begun.id, stream=True))
    later = list(ann.responses.retrieve(begun.id, stream=True, starting_after=4))
    assert [event.to_dict() for event in later] == [event.to_dict() for event in events[5:]]
    assert "response.queued" in [event.type for event in events]


def test_a_background_stream_is_taken_up_again(ann: openai.OpenAI) -> None:
    words = " ".join(map(str, range(60)))
    with ann.responses.create(model="echo", input=words, background=True, stream=True) as stream:
        seen = [next(stream) for _ in range(12)]
    id = seen[0].response.id  # type: ignore[union-attr]
    rest = list(ann.responses.retrieve(id, stream=True, starting_after=seen[-1].sequence_number))
    numbers = [event.sequence_number for event in (*seen, *rest)]
    assert numbers == list(range(len(numbers)))
    assert rest[-1].type == "response.completed"
    assert rest[-1].response.output_text == words
    live = ann.responses.retrieve(id)
    assert live.to_dict() == rest[-1].response.to_dict()


def test_a_background_response_is_cancelled(ann: openai.OpenAI) -> None:
    begun = ann.responses.create(model="echo", input=" ".join("x" * 3000), background=True)
    time.sleep(0.2)
    assert ann.responses.retrieve(begun.id).status == "in_progress"
    cut = ann.responses.cancel(begun.id)
    assert cut.status == "cancelled"
    assert 0 < len(cut.output_text) < 3000
    assert ann.responses.cancel(begun.id) == cut == ann.responses.retrieve(begun.id)
    whole = ann.responses.create(model="echo", input="hi")
    with pytest.raises(openai.BadRequestError, match="background"):
        ann.responses.cancel(whole.id)


def test_what_is_stored_is_told_again_as_events(ann: openai.OpenAI) -> None:
    answer = ann.responses.create(model="echo", input="weather_of Paris", tools=[TOOL], reasoning={"effort": "low"})
    events = list(ann.responses.retrieve(answer.id, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type == "response.completed"
    assert events[-1].response.to_dict() == answer.to_dict()


def test_deleted_and_unstored_responses_are_gone(ann: openai.OpenAI) -> None:
    answer = ann.responses.create(model="echo", input="hi")
    follow = ann.responses.create(model="echo", input="ho", previous_response_id=answer.id)
    ann.responses.delete(answer.id)
    for id in (answer.id, ann.responses.create(model="echo", input="hi", store=False).id):
        with pytest.raises(openai.NotFoundError):
            ann.responses.retrieve(id)
    with pytest.raises(openai.NotFoundError, match=answer.id):
        ann.responses.create(model="echo", input="he", previous_response_id=follow.id)


def test_nobody_sees_what_is_anothers(ann: openai.OpenAI, bob: openai.OpenAI) -> None:
    answer = ann.responses.create(model="echo", input="secret")
    talk = ann.conversations.create(items=[{"role": "user", "content": "secret"}])
    reference: Any = [{"type": "item_reference", "id": answer.output[0].id}]
    for attempt in (
        lambda: bob.responses.retrieve(answer.id),
        lambda: bob.responses.delete(answer.id),
        lambda: bob.responses.cancel(answer.id),
        lambda: bob.responses.input_items.list(answer.id),
        lambda: bob.responses.create(model="echo", input="hi", previous_response_id=answer.id),
        lambda: bob.responses.create(model="echo", input="hi", conversation=talk.id),
        lambda: bob.responses.create(model="echo", input=reference),
        lambda: bob.conversations.retrieve(talk.id),
        lambda: bob.conversations.items.list(talk.id),
        lambda: bob.conversations.delete(talk.id),
    ):
        with pytest.raises(openai.NotFoundError):
            attempt()
    assert ann.responses.create(model="echo", input=reference).output_text == "secret"


def test_tokens_are_counted(ann: openai.OpenAI) -> None:
    first = ann.responses.create(model="echo", input="one two")
    assert ann.responses.input_tokens.count(model="echo", input="three").input_tokens == 1
    count = ann.responses.input_tokens.count(model="echo", input="three", previous_response_id=first.id)
    assert count.input_tokens == 5


def test_a_conversation_is_made_short(ann: openai.OpenAI) -> None:
    short = ann.responses.compact(model="echo", input="a long story")
    assert short.output[0].type == "compaction"
    again: Any = [*(item.to_dict() for item in short.output), {"role": "user", "content": "go on"}]
    answer = ann.responses.create(model="echo", input=again)
    assert answer.usage is not None
    assert answer.usage.input_tokens > 10


def test_conversations(ann: openai.OpenAI) -> None:
    talk = ann.conversations.create(items=[{"role": "user", "content": "one"}], metadata={"a": "b"})
    answer = ann.responses.create(model="echo", input="two", conversation=talk.id)
    assert answer.conversation is not None
    assert answer.conversation.id == talk.id
    assert answer.usage is not None
    assert answer.usage.input_tokens == 2
    list(ann.responses.create(model="echo", input="three", conversation={"id": talk.id}, stream=True))
    items = list(ann.conversations.items.list(talk.id, order="asc", limit=2))
    texts = [item.content[0].text for item in items if item.type == "message"]  # type: ignore[union-attr]
    assert texts == ["one", "two", "two", "three", "three"]
    assert [item.id for item in ann.conversations.items.list(talk.id, limit=3)] == [item.id for item in items[::-1]]
    assert ann.conversations.items.retrieve(items[0].id or "", conversation_id=talk.id) == items[0]
    ann.conversations.items.delete(items[0].id or "", conversation_id=talk.id)
    added = ann.conversations.items.create(talk.id, items=[{"role": "user", "content": "four"}])
    assert len(list(ann.conversations.items.list(talk.id))) == 5
    assert added.data[0].id
    assert ann.conversations.update(talk.id, metadata={"c": "d"}).metadata == {"c": "d"}
    ann.conversations.delete(talk.id)
    with pytest.raises(openai.NotFoundError):
        ann.conversations.retrieve(talk.id)


def test_what_was_said_is_referred_to_and_not_said_twice(ann: openai.OpenAI) -> None:
    talk = ann.conversations.create(items=[{"role": "user", "content": "one"}])
    (item,) = ann.conversations.items.list(talk.id)
    reference: Any = [{"type": "item_reference", "id": item.id}]
    assert ann.responses.create(model="echo", input=reference, conversation=talk.id).output_text == "one"
    assert len(list(ann.conversations.items.list(talk.id))) == 2
    again: Any = [{"role": "user", "content": "other", "id": item.id}]
    with pytest.raises(openai.BadRequestError) as refused:
        ann.responses.create(model="echo", input=again, conversation=talk.id)
    assert refused.value.param == "input[0].id"


def test_a_client_that_hangs_up_ends_its_response(ann: openai.OpenAI) -> None:
    with ann.responses.create(model="echo", input=" ".join("x" * 3000), stream=True) as stream:
        id = next(stream).response.id  # type: ignore[union-attr]
        next(event for event in stream if event.type == "response.output_text.delta")
    for _ in range(100):
        try:
            found = ann.responses.retrieve(id)
            break
        except openai.NotFoundError:
            time.sleep(0.05)
    assert found.status == "cancelled"
    assert 0 < len(found.output_text) < 3000


def test_files_in_a_prompt(ann: openai.OpenAI, bob: openai.OpenAI) -> None:
    file = ann.files.create(file=("note.txt", b"hello from a file"), purpose="user_data")
    part: Any = [{"role": "user", "content": [{"type": "input_file", "file_id": file.id}]}]
    answer = ann.responses.create(model="echo", input=part)
    assert answer.output_text == "note.txt:\nhello from a file"
    assert "hello" not in str(ann.responses.input_items.list(answer.id).data[0])
    with pytest.raises(openai.NotFoundError):
        bob.responses.create(model="echo", input=part)


def test_an_old_conversation_is_cut_where_that_is_allowed(ann: openai.OpenAI) -> None:
    turns: Any = [{"role": "user", "content": f"word{n} " * 900} for n in range(12)]
    with pytest.raises(openai.BadRequestError) as refused:
        ann.responses.create(model="echo", input=[*turns, {"role": "user", "content": "last"}])
    assert refused.value.code == "context_length_exceeded"
    answer = ann.responses.create(
        model="echo", input=[*turns, {"role": "user", "content": "last"}], truncation="auto", instructions="keep me"
    )
    assert answer.output_text == "last"
    assert answer.usage is not None
    assert answer.usage.input_tokens <= 8192
