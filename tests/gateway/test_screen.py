"""Guards see everything, in time, whatever the chunking."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from gateway_help import answer, call, gateway, text_of
from hypothesis import given
from hypothesis import strategies as st

from dockyard.errors import Blocked
from dockyard.types import Call, Chunk, Message, Request
from scripted import USAGE, ScriptedFleet

SECRET = "open sesame"


def cut(text: str, places: list[int]) -> list[str]:
    edges = [0, *sorted({place % (len(text) + 1) for place in places}), len(text)]
    return [text[begin:end] for begin, end in pairwise(edges)]


def script(pieces: list[str], **last: str) -> ScriptedFleet:
    return ScriptedFleet([*([Chunk(piece)] for piece in pieces), [Chunk("", 0, "stop", USAGE)]])


@given(st.text("abc ", max_size=30), st.text("abc ", max_size=30), st.lists(st.integers(0, 100), max_size=12))
def test_a_secret_never_leaves_however_it_is_cut(before: str, after: str, places: list[int]) -> None:
    text = before + SECRET + after
    gate = gateway(script(cut(text, places)), deny_patterns=(SECRET,))
    one = call()
    chunks = asyncio.run(answer(gate, one))
    told = text_of(chunks)
    assert before.startswith(told)
    assert "open" not in told
    assert [chunk.finish for chunk in chunks if chunk.finish] == ["content_filter"]
    assert one.finish == "content_filter"
    assert gate.load.active == 0


@given(st.text("abcopen sm", max_size=60), st.lists(st.integers(0, 100), max_size=12))
def test_a_clean_answer_passes_unchanged(text: str, places: list[int]) -> None:
    if SECRET in text:
        return
    gate = gateway(script(cut(text, places)), deny_patterns=(SECRET,))
    chunks = asyncio.run(answer(gate, call()))
    assert text_of(chunks) == text
    assert chunks[-1].finish == "stop"
    assert chunks[-1].usage == USAGE


@pytest.mark.anyio
async def test_the_delay_is_bounded() -> None:
    gate = gateway(ScriptedFleet([[Chunk(letter)] for letter in "x" * 500], gap=0), deny_patterns=(SECRET,))
    held = 0
    async with await gate.run(call()) as reply:
        seen = 0
        async for batch in reply.chunks:
            seen += sum(len(chunk.text) for chunk in batch)
            if seen == 1:
                break
        assert held <= len(SECRET) + 2


@pytest.mark.anyio
async def test_a_word_boundary_waits_for_what_follows() -> None:
    gate = gateway(script(["a cat", "egory of things that are many"]), deny_patterns=(r"\bcat\b",))
    assert text_of(await answer(gate, call())) == "a category of things that are many"
    gate = gateway(script(["a cat", " sat there"]), deny_patterns=(r"\bcat\b",))
    assert text_of(await answer(gate, call())) == ""


@pytest.mark.anyio
async def test_one_choice_is_blocked_and_the_other_goes_on() -> None:
    batches = [[Chunk("open ", 0), Chunk("fine ", 1)], [Chunk("sesame", 0), Chunk("day", 1)],
               [Chunk("", 0, "stop"), Chunk("", 1, "stop", USAGE)]]  # fmt: skip
    gate = gateway(ScriptedFleet(batches), deny_patterns=(SECRET,))
    chunks = await answer(gate, call(n=2))
    assert text_of(chunks, 0) == ""
    assert text_of(chunks, 1) == "fine day"
    assert {chunk.index: chunk.finish for chunk in chunks if chunk.finish} == {0: "content_filter", 1: "stop"}


@pytest.mark.anyio
async def test_reasoning_and_tool_calls_are_screened() -> None:
    thought = ScriptedFleet([[Chunk(reasoning="open ses")], [Chunk(reasoning="ame")], [Chunk("x", 0, "stop", USAGE)]])
    chunks = await answer(gateway(thought, deny_patterns=(SECRET,)), call())
    assert not any(chunk.reasoning or chunk.text for chunk in chunks)
    pieces = ['{"say": "open', ' sesame"}']
    tool = [[Chunk(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": piece}}])] for piece in pieces]
    fleet = ScriptedFleet([*tool, [Chunk("", 0, "tool_calls", USAGE)]])
    chunks = await answer(gateway(fleet, deny_patterns=(SECRET,)), call())
    assert not any(chunk.tool_calls for chunk in chunks)
    assert chunks[0].finish == "content_filter"


def requests() -> list[Request]:
    said = {"type": "text", "text": "say open sesame"}
    two = [{"type": "text", "text": "open "}, {"type": "text", "text": "sesame"}]
    return [
        Request(id="r", messages=(Message(role="user", content="please open sesame now"),)),
        Request(id="r", messages=(Message(role="user", content=[said]),)),
        Request(id="r", messages=(Message(role="user", content=two),)),
        Request(id="r", messages=(Message(role="assistant", tool_calls=[{"function": {"arguments": SECRET}}]),)),
        Request(id="r", kind="complete", prompt=SECRET),
        Request(id="r", kind="complete", prompt=[1, 2, 3]),
        Request(id="r", messages=(Message(role="user", content="x"),), extra={"tools": [{"description": SECRET}]}),
    ]


@pytest.mark.anyio
@pytest.mark.parametrize("number", range(len(requests())))
async def test_prompts_are_screened_wherever_text_hides(number: int) -> None:
    fleet = ScriptedFleet()
    gate = gateway(fleet, deny_patterns=(SECRET,))
    with pytest.raises(Blocked) as refused:
        await answer(gate, Call(request=requests()[number], model="m", dialect="test"))
    assert SECRET not in refused.value.message
    assert not fleet.requests
