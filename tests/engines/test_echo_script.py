"""The echo engine as a scripted model: tools, JSON, thoughts, vectors, scores, tokens."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dockyard.engines import builtin, choose
from dockyard.engines._echo_fill import Source, fill
from dockyard.errors import ContextOverflow, InvalidRequest, UnsupportedParameter
from dockyard.fleet.runner import Runner, create
from dockyard.hardware import detect
from dockyard.settings import Settings
from dockyard.types import Chunk, LoadOptions, Message, Request, Result, Sampling

from .conftest import ask, collect, said

pytestmark = pytest.mark.anyio

ADD = {
    "name": "add_numbers",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "number"}, "note": {"type": "string"}},
        "required": ["a", "b"],
    },
}
WEATHER = {
    "name": "get_weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
NOW = {"name": "now"}
TOOLS = [{"type": "function", "function": one} for one in (ADD, WEATHER, NOW)]


@pytest.fixture
async def echo() -> Runner:
    files = builtin("echo")
    assert files is not None
    plain = Settings()
    engine = choose(files, LoadOptions(), plain, detect()).engine
    plan = engine.plan(files, LoadOptions(context=200), plain, detect())
    runner = create(engine, files, plan, plain, Path("unused"))
    await runner.start()
    return runner


def calls_of(chunks: list[Chunk], index: int = 0) -> list[tuple[str, Any]]:
    """Streamed calls put together: names and parsed arguments."""
    held: dict[int, list[str]] = {}
    for chunk in chunks:
        for delta in chunk.tool_calls or () if chunk.index == index else ():
            call = held.setdefault(delta["index"], ["", ""])
            call[0] += delta["function"].get("name", "")
            call[1] += delta["function"]["arguments"]
    return [(name, json.loads(arguments)) for name, arguments in held.values()]


async def result(runner: Runner, request: Request) -> Result:
    (chunk,) = await collect(runner, request)
    assert chunk.finish == "stop"
    assert chunk.usage is not None
    assert chunk.result is not None
    return chunk.result


@pytest.mark.parametrize(
    ("text", "extra", "made"),
    [
        ("add_numbers of 3 and 4.5", {}, [("add_numbers", {"a": 3, "b": 4.5})]),
        ("what is the weather in 'Paris'?", {}, [("get_weather", {"city": "Paris"})]),
        ("get_weather for \"Rome\", and NOW", {}, [("get_weather", {"city": "Rome"}), ("now", {})]),
        ("get_weather 'a' and now", {"parallel_tool_calls": False}, [("get_weather", {"city": "a"})]),
        ("hello there", {}, []),
        ("hello there", {"tool_choice": "required"}, [("add_numbers", {"a": 0, "b": 0})]),
        ("get_weather", {"tool_choice": "none"}, []),
        ("hi", {"tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
         [("get_weather", {"city": "hi"})]),
    ],
)  # fmt: skip
async def test_it_calls_the_tools_that_the_text_asks_for(
    echo: Runner, text: str, extra: dict[str, Any], made: list[tuple[str, Any]]
) -> None:
    chunks = await collect(echo, ask(text, sampling=Sampling(), tools=TOOLS, **extra))
    assert calls_of(chunks) == made
    assert chunks[-1].finish == ("tool_calls" if made else "stop")
    assert said(chunks) == ("" if made else text)


async def test_calls_come_in_pieces_for_every_choice_and_again_the_same(echo: Runner) -> None:
    request = ask("add_numbers of 30000000 and 40000000", sampling=Sampling(n=2), tools=TOOLS)
    chunks = await collect(echo, request)
    assert len([chunk for chunk in chunks if chunk.index == 1]) > 3
    assert calls_of(chunks, 0) == calls_of(chunks, 1) == [("add_numbers", {"a": 30000000, "b": 40000000})]
    assert [chunk.finish for chunk in chunks[-2:]] == ["tool_calls", "tool_calls"]
    assert await collect(echo, request) == chunks


async def test_after_the_tools_it_says_what_they_said(echo: Runner) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    messages = (
        Message(role="user", content="now now"),
        Message(role="assistant", tool_calls=[call]),
        Message(role="tool", tool_call_id="a", content="ten"),
        Message(role="tool", tool_call_id="b", content="o'clock"),
    )
    chunks = await collect(echo, Request(id="a", messages=messages, extra={"tools": TOOLS}))
    assert (said(chunks), chunks[-1].finish) == ("ten\no'clock", "stop")


async def test_a_thought_comes_first_and_counts(echo: Runner) -> None:
    chunks = await collect(echo, ask("a b", sampling=Sampling(), reasoning_effort="low"))
    assert "".join(chunk.reasoning for chunk in chunks) == "The user sent 2 words."
    assert said(chunks) == "a b"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 7
    assert not any(chunk.reasoning for chunk in await collect(echo, ask("a", reasoning_effort="none")))
    cut = await collect(echo, ask("a b", sampling=Sampling(max_tokens=3), reasoning_effort="low"))
    assert ("".join(chunk.reasoning for chunk in cut), said(cut), cut[-1].finish) == ("The user sent", "", "length")


async def test_json_answers(echo: Runner) -> None:
    free = {"type": "json_object"}
    assert json.loads(said(await collect(echo, ask("a", response_format=free)))) == {"answer": "a"}
    assert json.loads(said(await collect(echo, ask('say {"x": 1} now', response_format=free)))) == {"x": 1}
    named = json.loads(said(await collect(echo, ask("keys `x` and 'y'", sampling=Sampling(), response_format=free))))
    assert named == dict.fromkeys("xy", "keys `x` and 'y'")
    shape = {"type": "json_schema", "json_schema": {"name": "n", "schema": ADD["parameters"]}}
    assert json.loads(said(await collect(echo, ask("7 8", sampling=Sampling(), response_format=shape)))) == {
        "a": 7,
        "b": 8,
    }


async def test_what_it_does_not_know_is_refused_by_name(echo: Runner) -> None:
    with pytest.raises(UnsupportedParameter) as refused:
        await collect(echo, ask("a", mood="good"))
    assert refused.value.param == "mood"


async def test_embeddings_are_unit_vectors_and_follow_the_words(echo: Runner) -> None:
    texts = ("the cat sat on the mat", "A cat on a mat", "quarterly revenue fell", "")
    found = [
        struct.unpack("<128f", one) for one in (await result(echo, Request(id="e", kind="embed", inputs=texts))).vectors
    ]
    assert [math.hypot(*one) for one in found] == pytest.approx([1.0] * 4, abs=1e-5)
    near, far = (sum(a * b for a, b in zip(found[0], other, strict=True)) for other in found[1:3])
    assert near > 0.5 > far


async def test_rerank_prefers_shared_words(echo: Runner) -> None:
    request = Request(id="r", kind="rerank", query="red ship", inputs=("a blue car", "the red ship", "a ship"))
    blue, red, ship = (await result(echo, request)).scores
    assert red > ship > blue == 0


async def test_tokens_and_back_and_the_same_count_as_usage(echo: Runner) -> None:
    text = "two  words\nand more "
    tokens = list((await result(echo, Request(id="t", kind="tokenize", prompt=text))).tokens)
    assert len(tokens) == 5
    assert all(0 <= token < 1 << 31 for token in tokens)
    (back,) = await collect(echo, Request(id="d", kind="detokenize", prompt=tokens))
    assert back.text == text
    (unknown,) = await collect(echo, Request(id="d", kind="detokenize", prompt=[5, tokens[0], 6]))
    assert unknown.text == "5two 6"
    messages = (Message(role="system", content="be brief"), Message(role="user", content="one two three"))
    (shown,) = await collect(echo, Request(id="p", kind="template", messages=messages))
    assert shown.text == "<system>be brief\n<user>one two three"
    counted = await result(echo, Request(id="t", kind="tokenize", messages=messages))
    chunks = await collect(echo, Request(id="c", messages=messages))
    assert chunks[-1].usage is not None
    assert len(counted.tokens) == chunks[-1].usage.prompt_tokens == 5


async def test_what_a_prompt_was_worth(echo: Runner) -> None:
    request = Request(
        id="c", kind="complete", prompt="a ship a car", sampling=Sampling(max_tokens=1, prompt_logprobs=2)
    )
    chunks = await collect(echo, request)
    assert chunks[0].result is not None
    first, *rest = chunks[0].result.prompt_logprobs
    assert first is None
    assert [one.token for one in rest if one] == [" ship", " a", " car"]
    likely = [one.logprob for one in rest if one]
    assert likely[1] == max(likely)
    assert [len(one.top) for one in rest if one] == [2, 1, 2]


@pytest.mark.parametrize("kind", ["embed", "rerank"])
async def test_an_input_beyond_the_context(echo: Runner, kind: Any) -> None:
    with pytest.raises(ContextOverflow):
        await collect(echo, Request(id="e", kind=kind, query="", inputs=("fits", "w " * 201)))


async def test_the_middle_between_two_texts_is_both(echo: Runner) -> None:
    chunks = await collect(echo, Request(id="c", kind="complete", prompt="def f(", suffix="): pass"))
    assert said(chunks) == "def f(): pass"


SCHEMAS = st.recursive(
    st.sampled_from(
        [
            {"type": "string"}, {"type": "string", "minLength": 3, "maxLength": 4}, {"type": "integer", "minimum": 3},
            {"type": "number", "exclusiveMaximum": -2}, {"type": "boolean"}, {"type": "null"}, {"const": [1, {"a": 2}]},
            {"enum": ["red", "green", 3]}, {"type": ["null", "integer"]}, {"$ref": "#/$defs/point"}, True, {},
            {"type": "integer", "multipleOf": 5, "minimum": 7, "maximum": 12}, {"type": "string", "format": "date"},
            {"allOf": [{"$ref": "#/$defs/point"}, {"properties": {"z": {"type": "integer"}}, "required": ["z"]}]},
            {"type": "string", "pattern": "^[A-Z]"},
        ]
    ),
    lambda inner: st.one_of(
        st.builds(lambda items, least: {"type": "array", "items": items, "minItems": least}, inner, st.integers(0, 3)),
        st.builds(
            lambda fields, wanted: {"type": "object", "properties": fields, "required": sorted(fields)[:wanted],
                                    "additionalProperties": False},
            st.dictionaries(st.sampled_from("abcd"), inner, min_size=1), st.integers(0, 4),
        ),
        st.builds(lambda one, other: {"anyOf": [{"type": "null"}, one, other]}, inner, inner),
    ),
    max_leaves=12,
)  # fmt: skip
POINT = {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}


@settings(deadline=None, max_examples=150)
@given(schema=SCHEMAS, text=st.text(max_size=40))
def test_whatever_it_fills_is_valid(schema: Any, text: str) -> None:
    if isinstance(schema, dict):
        schema = {**schema, "$defs": {"point": POINT}}
    jsonschema.validate(fill(schema, Source(text), at="tools"), schema)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/nowhere"},
        {"$ref": "#"},
        {"type": "object", "properties": {"again": {"$ref": "#"}}, "required": ["again"]},
        {"type": "spice"},
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"type": "string", "pattern": "("},
        False,
        7,
    ],
    ids=str,
)
def test_a_schema_that_can_not_be_followed_is_told(schema: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        fill(schema, Source("x"), at="response_format")
    assert refused.value.param == "response_format"
