"""llama.cpp beside plain chat: vectors, scores, tokens, templates, filling in, a prompt's probabilities, tools."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from dockyard.errors import ContextOverflow, InvalidRequest, UnsupportedFormat, UnsupportedParameter
from dockyard.fleet.runner import Runner
from dockyard.types import Chunk, Kind, Message, Request, Result, Sampling

from .conftest import ask, collect, go_on, prepare, said, smol

pytestmark = [pytest.mark.anyio, pytest.mark.model]
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        # Short, so that a small model's arguments end on any machine: numerics differ, and it may go on and on.
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}},
                       "required": ["city"], "additionalProperties": False},
    },
}  # fmt: skip
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
SAMPLE = "Paris — 日本 [x] <|im_end|> done"


@pytest.fixture(scope="module", params=["embedded", "native"])
async def embedder(
    request: pytest.FixtureRequest, starter_gguf: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Runner]:
    """The starter model as an embedder of texts of up to 64 tokens, two at once."""
    log = tmp_path_factory.mktemp("logs") / "log"
    runner, _ = prepare(smol(starter_gguf), request.param, log, mode="embed", context=64, parallel=2, threads=1)
    await runner.start()
    yield runner
    await runner.stop()


def vectors(chunks: list[Chunk]) -> list[tuple[float, ...]]:
    assert chunks[-1].result is not None
    return [struct.unpack(f"<{len(each) // 4}f", each) for each in chunks[-1].result.vectors]


def wanting(kind: Kind, **fields: Any) -> Request:
    return Request(id="k", kind=kind, **fields)


def result(chunks: list[Chunk]) -> Result:
    (found,) = [chunk.result for chunk in chunks if chunk.result is not None]
    return found


async def test_more_texts_than_slots_give_a_unit_vector_each(embedder: Runner) -> None:
    texts = tuple(f"text number {number} is about the sea" for number in range(11))
    chunks = await collect(embedder, wanting("embed", inputs=texts))
    found = vectors(chunks)
    assert len(found) == 11
    assert all(len(each) == 576 and math.isclose(math.hypot(*each), 1, rel_tol=1e-4) for each in found)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens > 11 * 7
    # Each comes at its own place, whatever was computed together.
    alone = vectors(await collect(embedder, wanting("embed", inputs=texts[7:8])))[0]
    assert sum(a * b for a, b in zip(alone, found[7], strict=True)) > 0.999
    assert sum(a * b for a, b in zip(alone, found[3], strict=True)) < 0.999


async def test_token_ids_embed_like_their_text(embedder: Runner) -> None:
    tokens = result(await collect(embedder, wanting("tokenize", prompt="hello world"))).tokens
    chunks = await collect(embedder, wanting("embed", inputs=("hello world", list(tokens))))
    text, ids = vectors(chunks)
    assert sum(a * b for a, b in zip(text, ids, strict=True)) > 0.9999


async def test_the_text_that_is_too_long_is_named(embedder: Runner) -> None:
    with pytest.raises(ContextOverflow, match=r"input 1 has \d+ tokens.* 64") as caught:
        await collect(embedder, wanting("embed", inputs=("short", "word " * 100)))
    assert caught.value.param == "input[1]"
    with pytest.raises(InvalidRequest, match="input 0 is empty"):
        await collect(embedder, wanting("embed", inputs=("",)))


async def test_a_model_does_what_it_is_loaded_for(embedder: Runner, llama: Runner) -> None:
    with pytest.raises(InvalidRequest, match="loaded to embed"):
        await collect(embedder, ask("Hi"))
    with pytest.raises(InvalidRequest, match="loaded to generate"):
        await collect(llama, wanting("embed", inputs=("a",)))


async def test_a_model_without_a_ranking_head_does_not_rank(starter_gguf: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedFormat, match="no head that ranks"):
        prepare(smol(starter_gguf), "embedded", tmp_path / "log", mode="rerank")


async def test_tokens_and_back(llama: Runner) -> None:
    tokens = result(await collect(llama, wanting("tokenize", prompt=SAMPLE))).tokens
    assert said(await collect(llama, wanting("detokenize", prompt=list(tokens)))) == SAMPLE
    with pytest.raises(InvalidRequest, match="token ids"):
        await collect(llama, wanting("detokenize", prompt="text"))


async def test_the_template_shows_what_the_model_sees(llama: Runner) -> None:
    chunks = await collect(llama, msgspec.structs.replace(ask("Ahoy"), kind="template"))
    assert said(chunks).endswith("<|im_start|>user\nAhoy<|im_end|>\n<|im_start|>assistant\n")
    tokens = result(await collect(llama, msgspec.structs.replace(ask("Ahoy"), kind="tokenize"))).tokens
    answered = (await collect(llama, ask("Ahoy", sampling=Sampling(max_tokens=1))))[-1].usage
    assert answered is not None
    assert chunks[-1].usage is not None
    assert answered.prompt_tokens == len(tokens) == chunks[-1].usage.prompt_tokens


async def test_filling_in_needs_a_model_that_learnt_it(llama: Runner) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        await collect(llama, msgspec.structs.replace(go_on("def f("), suffix="return 1"))
    assert caught.value.param == "suffix"


async def test_a_prompts_own_probabilities(llama: Runner) -> None:
    """Each equals what the model gives when it is stepped to that place; text, bytes and ids are the prompt's."""
    chunks = await collect(llama, go_on(SAMPLE, Sampling(max_tokens=0, prompt_logprobs=2)))
    found = result(chunks)
    assert [chunk.finish for chunk in chunks] == ["length"]
    assert found.prompt_logprobs[0] is None
    rest = [each for each in found.prompt_logprobs if each is not None]
    assert len(rest) == len(found.tokens) - 1
    assert bytes(byte for each in rest for byte in each.bytes or ()).decode() == SAMPLE.removeprefix("Paris")
    assert all(len(each.top) == 2 and each.top[0].logprob >= each.top[1].logprob for each in rest)
    for place in (1, len(rest)):
        stepped = go_on(list(found.tokens[:place]), Sampling(max_tokens=1, temperature=0, logprobs=20))
        (drawn,) = [each for chunk in await collect(llama, stepped) for each in chunk.logprobs or ()]
        scored = rest[place - 1]
        assert scored.top[0].logprob == pytest.approx(drawn.logprob, abs=0.02)
        told = {tuple(each.bytes or ()): each.logprob for each in drawn.top}
        assert scored.logprob == pytest.approx(told.get(tuple(scored.bytes or ()), scored.logprob), abs=0.02)


@pytest.mark.parametrize("start", [0, 1, 7, 99])
async def test_a_prompt_is_scored_from_a_place_on_as_it_is_whole(llama: Runner, start: int) -> None:
    sampling = Sampling(max_tokens=0, prompt_logprobs=1)
    whole = result(await collect(llama, go_on(SAMPLE, sampling)))
    asked = msgspec.structs.replace(sampling, prompt_logprobs_from=start)
    found = result(await collect(llama, go_on(SAMPLE, asked)))
    assert [each and each.token for each in found.prompt_logprobs] == [
        each and each.token for each in whole.prompt_logprobs
    ]
    for one, other in list(zip(found.prompt_logprobs, whole.prompt_logprobs, strict=True))[max(1, start) :]:
        assert one is not None
        assert other is not None
        assert one.logprob == pytest.approx(other.logprob, abs=0.02)


async def test_a_scored_continuation_is_as_likely_as_when_it_was_drawn(llama: Runner) -> None:
    prompt = "The harbour lies in the"
    sampling = Sampling(max_tokens=12, temperature=0, logprobs=0)
    chunks = await collect(llama, go_on(prompt, sampling))
    drawn = sum(each.logprob for chunk in chunks for each in chunk.logprobs or ())
    count = sum(len(chunk.logprobs or ()) for chunk in chunks)
    sampling = Sampling(max_tokens=2, temperature=0, prompt_logprobs=0)
    chunks = await collect(llama, go_on(prompt + said(chunks), sampling))
    scored = sum(each.logprob for each in result(chunks).prompt_logprobs[-count:] if each is not None)
    assert scored == pytest.approx(drawn, rel=0.03)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 2


def called(chunks: list[Chunk], index: int = 0) -> tuple[str, str]:
    """Name and joined arguments of the first call."""
    deltas = [delta for chunk in chunks if chunk.index == index for delta in chunk.tool_calls or ()]
    assert deltas[0]["id"]
    assert deltas[0]["type"] == "function"
    assert all(delta["index"] == 0 for delta in deltas)
    return deltas[0]["function"]["name"], "".join(delta["function"].get("arguments", "") for delta in deltas)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
async def test_a_required_call_comes_with_arguments_that_fit_its_schema(llama: Runner, choice: Any) -> None:
    tools = [WEATHER] if choice == "required" else [CLOCK, WEATHER]
    request = ask("Weather in Oslo?", sampling=Sampling(max_tokens=60, temperature=0, n=2, stop=("city",)),
                  tools=tools, tool_choice=choice)  # fmt: skip
    chunks = await collect(llama, request)
    for index in range(2):
        name, arguments = called(chunks, index)
        assert name == "weather"
        assert list(json.loads(arguments)) == ["city"]
    assert {chunk.finish for chunk in chunks if chunk.finish} == {"tool_calls"}
    assert not said(chunks)


async def test_a_required_call_is_one_of_the_tools(llama: Runner) -> None:
    request = ask("What time is it?", sampling=Sampling(max_tokens=60, temperature=0), tools=[CLOCK, WEATHER],
                  tool_choice="required")  # fmt: skip
    name, arguments = called(await collect(llama, request))
    assert name in ("clock", "weather")
    assert isinstance(json.loads(arguments), dict)


async def test_tools_may_be_left_alone(llama: Runner) -> None:
    for choice in ("auto", "none"):
        chunks = await collect(llama, ask("Say hi.", tools=[WEATHER], tool_choice=choice))
        assert said(chunks)
        assert chunks[-1].finish in ("stop", "length")


async def test_calls_and_their_answers_are_shown_to_the_model(llama: Runner) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    turns = (
        Message(role="user", content="Weather in Oslo?"),
        Message(role="assistant", tool_calls=[call]),
        Message(role="tool", content="rain", tool_call_id="c1"),
    )
    shown = said(await collect(llama, wanting("template", messages=turns, extra={"tools": [WEATHER]})))
    assert '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>' in shown
    assert "<tool_response>\nrain\n</tool_response>" in shown


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "whether"}}}, "tool_choice"),
        ({"tools": [WEATHER], "tool_choice": "perhaps"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1].function.name"),
        ({"tools": [{"type": "function"}]}, "tools[0]"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "banana"}}}},
         "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": "#/no"}}}}, "response_format"),
        ({"grammar": "root ::= <[2]>"}, "grammar"),
    ],
)  # fmt: skip
async def test_bad_tools_and_schemas_are_named(llama: Runner, extra: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await collect(llama, ask("Hi", **extra))
    assert caught.value.param == param
    assert said(await collect(llama, ask("Still there?")))


async def test_json_objects_are_objects(llama: Runner) -> None:
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"],
              "additionalProperties": False}  # fmt: skip
    chunks = await collect(llama, ask("Fine?", sampling=Sampling(max_tokens=30, temperature=0), json_schema=schema))
    assert isinstance(json.loads(said(chunks))["ok"], bool)
    chunks = await collect(
        llama, ask("A list?", sampling=Sampling(max_tokens=4, temperature=0), response_format={"type": "json_object"})
    )
    assert said(chunks).startswith("{")


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, "takes no images"),
        ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}, "takes no audio"),
        ({"type": "input_video", "input_video": {"data": "AAAA"}}, "input_video"),
    ],
)
async def test_media_without_a_projector_are_refused(llama: Runner, part: dict[str, Any], message: str) -> None:
    turn = Message(role="user", content=[{"type": "text", "text": "What is it?"}, part])
    with pytest.raises(InvalidRequest, match=message) as caught:
        await collect(llama, wanting("chat", messages=(turn,)))
    assert (caught.value.param or "").startswith("messages[0].content[1]")


async def test_a_long_prefix_is_read_once(llama: Runner) -> None:
    prefix = "The harbour master wrote this down. " * 45
    sampling = Sampling(max_tokens=2, temperature=0)
    first = (await collect(llama, go_on(prefix + "First", sampling)))[-1].usage
    again = (await collect(llama, go_on(prefix + "Then", sampling)))[-1].usage
    assert first is not None
    assert again is not None
    assert again.cached_tokens >= first.prompt_tokens - 8 > 300


@pytest.mark.parametrize("driver", ["embedded", "native"])
async def test_guessing_ahead_changes_nothing_but_the_time(driver: str, starter_gguf: Path, tmp_path: Path) -> None:
    text = "one two three four five six seven " * 6
    sampling = Sampling(max_tokens=24, temperature=0)
    answers = []
    for flags in ({}, {"spec_type": "ngram-simple", "spec_ngram_size_n": 3, "spec_ngram_size_m": 8}):
        options = {"context": 256, "parallel": 1, "threads": 1, "flags": {"warmup": False, **flags}}
        runner, _ = prepare(smol(starter_gguf), driver, tmp_path / "log", **options)
        await runner.start()
        try:
            answers.append(said(await collect(runner, go_on(text, sampling))))
        finally:
            await runner.stop()
    assert answers[0] == answers[1]


def of_another_architecture(whole: Path, target: Path) -> Path:
    target.write_bytes(whole.read_bytes().replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0barge", 1))
    return target


@pytest.mark.parametrize("driver", ["embedded", "native"])
async def test_an_unknown_architecture_says_so(driver: str, starter_gguf: Path, tmp_path: Path) -> None:
    odd = of_another_architecture(starter_gguf, tmp_path / "odd.gguf")
    files = msgspec.structs.replace(smol(starter_gguf), weights=(str(odd),))
    runner, _ = prepare(files, driver, tmp_path / "log", context=256, parallel=1, threads=1)
    with pytest.raises(UnsupportedFormat, match="unknown model architecture"):
        await runner.start()
