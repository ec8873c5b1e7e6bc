"""OpenAI's own Python client, unchanged, against a real server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Literal

import openai
import pydantic
import pytest
from clients_help import KEY


@pytest.fixture(scope="module", autouse=True)
def _noted(request: pytest.FixtureRequest, record: Callable[[str, str, str], None]) -> Iterator[None]:
    before = request.session.testsfailed
    yield
    if request.session.testsfailed == before:
        what = "chat, streams, tools, structured output, completions, embeddings, moderations"
        record("openai (Python)", openai.__version__, what)


@pytest.fixture
def client(server: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as found:
        yield found


def test_chat(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="echo", messages=[{"role": "user", "content": "one two three"}], max_tokens=2, user="me"
    )
    assert answer.choices[0].message.content == "one two"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 2)
    assert answer.usage.prompt_tokens_details is not None


def test_chat_streams(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="echo",
        messages=[{"role": "user", "content": "one two three"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "one two three"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3


def test_the_stream_helper(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="echo", messages=[{"role": "user", "content": "a b"}], n=2) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert [choice.message.content for choice in final.choices] == ["a b", "a b"]


def test_logprobs(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="echo", messages=[{"role": "user", "content": "a b"}], logprobs=True, top_logprobs=1
    )
    found = answer.choices[0].logprobs
    assert found is not None
    assert [one.token for one in found.content or []] == ["a", " b"]


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="echo", prompt=["a b", "c"], logprobs=1)
    assert [choice.text for choice in answer.choices] == ["a b", "c"]
    stream = client.completions.create(model="echo", prompt="a b", stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == "a b"


def test_models(client: openai.OpenAI) -> None:
    assert "echo" in [model.id for model in client.models.list()]
    assert client.models.retrieve("echo").owned_by == "dockyard"
    with pytest.raises(openai.NotFoundError) as refused:
        client.models.retrieve("ai/nothing:here")
    assert refused.value.code == "model_not_found"


def test_removing_a_model_takes_a_key_that_may(client: openai.OpenAI) -> None:
    with pytest.raises(openai.PermissionDeniedError):
        client.models.delete("smol")
    assert "smol" in [model.id for model in client.models.list()]


def test_errors(client: openai.OpenAI, server: Any) -> None:
    hello = [{"role": "user", "content": "hi"}]
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="no-such", messages=hello)  # type: ignore[arg-type]
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model="echo", messages=hello, temperature=9)  # type: ignore[arg-type]
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0).models.list()


WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
ASKED: Any = [{"role": "user", "content": "get_weather in 'Oslo' for 3 days"}]


def test_tools_there_and_back(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="echo", messages=ASKED, tools=[WEATHER])
    message = answer.choices[0].message
    assert answer.choices[0].finish_reason == "tool_calls"
    (call,) = message.tool_calls or ()
    assert call.type == "function"
    assert json.loads(call.function.arguments) == {"city": "Oslo", "days": 3}
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    said = client.chat.completions.create(
        model="echo", messages=[*ASKED, message.model_dump(exclude_none=True), result], tools=[WEATHER]
    )
    assert said.choices[0].message.content == "sunny"


@pytest.mark.parametrize("choice", ["none", "auto", "required", {"type": "function", "function": {"name": "now"}}])
def test_the_choice_of_tools(client: openai.OpenAI, choice: Any) -> None:
    tools: Any = [WEATHER, {"type": "function", "function": {"name": "now"}}]
    answer = client.chat.completions.create(model="echo", messages=ASKED, tools=tools, tool_choice=choice)
    made = [call.function.name for call in answer.choices[0].message.tool_calls or () if call.type == "function"]
    wanted = {"none": [], "auto": ["get_weather"], "required": ["get_weather"]}
    assert made == (wanted[choice] if isinstance(choice, str) else ["now"])


def test_parallel_calls_in_a_stream_are_parsed(client: openai.OpenAI) -> None:
    tools: Any = [WEATHER, {"type": "function", "function": {"name": "now", "strict": True, "parameters": {
        "type": "object", "properties": {}, "required": [], "additionalProperties": False}}}]  # fmt: skip
    messages: Any = [{"role": "user", "content": "get_weather in 'Oslo' for 3 days, and the time now"}]
    done: list[str] = []
    with client.chat.completions.stream(model="echo", messages=messages, tools=tools) as stream:
        done.extend(event.name for event in stream if event.type == "tool_calls.function.arguments.done")
        final = stream.get_final_completion()
    calls = final.choices[0].message.tool_calls or []
    assert done == [call.function.name for call in calls] == ["get_weather", "now"]
    assert [call.function.parsed_arguments for call in calls] == [{"city": "Oslo", "days": 3}, {}]


class Point(pydantic.BaseModel):
    x: float
    label: str
    colour: Literal["red", "blue"]
    near: list[Point]


def test_structured_output_is_parsed(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "A blue point at 7 called 'home'"}]
    answer = client.chat.completions.parse(model="echo", messages=messages, response_format=Point, max_tokens=4000)
    found = answer.choices[0].message.parsed
    assert found is not None
    assert (found.x, found.label, found.colour) == (7, "home", "blue")


def test_reasoning_comes_beside_the_answer(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="echo", messages=ASKED, reasoning_effort="low")
    assert answer.choices[0].message.content == ASKED[0]["content"]
    assert answer.choices[0].message.model_extra == {"reasoning_content": "The user sent 6 words."}


def test_a_text_with_a_gap_and_the_worth_of_a_prompt(client: openai.OpenAI) -> None:
    filled = client.completions.create(model="echo", prompt="def f(", suffix="): pass")
    assert filled.choices[0].text == "def f(): pass"
    scored = client.completions.create(model="echo", prompt="a ship a ship", echo=True, logprobs=1, max_tokens=1)
    logprobs = scored.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["a", " ship", " a", " ship", "a"]
    assert logprobs.token_logprobs is not None
    assert logprobs.token_logprobs[0] is None


def test_embeddings(client: openai.OpenAI) -> None:
    """This client asks for base64 on its own and decodes it."""
    whole = client.embeddings.create(model="echo", input=["a red ship", "a ship"])
    plain = client.embeddings.create(model="echo", input="a red ship", encoding_format="float", dimensions=8)
    assert [len(one.embedding) for one in whole.data] == [128, 128]
    assert len(plain.data[0].embedding) == 8
    assert whole.usage.prompt_tokens == 5
    ratio = whole.data[0].embedding[0] / plain.data[0].embedding[0]
    assert 0 < ratio < 1


def test_moderations(client: openai.OpenAI) -> None:
    answer = client.moderations.create(input=["fine weather", "a forbidden word"])
    assert [one.flagged for one in answer.results] == [False, True]
    assert answer.results[1].categories.hate is False
