"""The echo engine says what it was told, at the speed it was told."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from dockyard.engines import builtin, choose
from dockyard.errors import ContextOverflow
from dockyard.fleet.runner import InlineRunner, Runner, create
from dockyard.hardware import detect
from dockyard.settings import Settings
from dockyard.types import LoadOptions, Message, Request, Sampling

from .conftest import ask, collect, go_on, said

pytestmark = pytest.mark.anyio


async def echo(speed: float = 0.0, **options: int) -> Runner:
    files = builtin("echo")
    assert files is not None
    settings = Settings(echo_tokens_per_second=speed)
    engine = choose(files, LoadOptions(), settings, detect()).engine
    plan = engine.plan(files, LoadOptions(**options), settings, detect())  # type: ignore[arg-type]
    runner = create(engine, files, plan, settings, Path("unused"))
    assert isinstance(runner, InlineRunner)
    await runner.start()
    return runner


@pytest.mark.parametrize(
    ("text", "sampling", "answer", "finish"),
    [
        ("hello  big\nworld ", Sampling(), "hello  big\nworld ", "stop"),
        ("one two three", Sampling(max_tokens=2), "one two", "length"),
        ("one two three", Sampling(max_tokens=9), "one two three", "stop"),
        (
            "one two",
            Sampling(max_tokens=5, ignore_eos=True),
            "one two one two one",
            "length",
        ),
        ("one two three", Sampling(stop=("two",)), "one ", "stop"),
        ("", Sampling(), "", "stop"),
    ],
)
async def test_what_it_says(text: str, sampling: Sampling, answer: str, finish: str) -> None:
    chunks = await collect(await echo(), ask(text, sampling=sampling))
    assert (said(chunks), chunks[-1].finish) == (answer, finish)


async def test_it_repeats_the_last_user_message_and_counts_all() -> None:
    messages = (
        Message(role="system", content="be brief"),
        Message(role="user", content=[{"type": "text", "text": "first one"}, {"type": "image_url"}]),
        Message(role="assistant", content=None),
    )
    chunks = await collect(await echo(), Request(id="a", messages=messages, sampling=Sampling(n=2)))
    assert said(chunks, 0) == said(chunks, 1) == "first one"
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (4, 4)


async def test_token_ids_are_said_as_numbers() -> None:
    assert said(await collect(await echo(), go_on([1, 22], Sampling()))) == "1 22"


async def test_its_context_has_an_end() -> None:
    with pytest.raises(ContextOverflow, match="5 tokens, the context 4"):
        await collect(await echo(context=4), ask("a b c d e"))


async def test_its_speed_holds() -> None:
    runner = await echo(speed=100)
    begun = time.monotonic()
    await asyncio.gather(*(collect(runner, ask("w " * 19, number, Sampling())) for number in range(20)))
    assert 0.19 < time.monotonic() - begun < 3.0, "one after the other would take four seconds"


async def test_without_a_limit_it_lets_others_run() -> None:
    runner = await echo()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(count())
    await collect(runner, ask("w " * 3200, sampling=Sampling()))
    task.cancel()
    assert turns > 50


async def test_it_is_cheap() -> None:
    runner = await echo()
    begun = time.process_time()
    for number in range(50):
        await collect(runner, ask("word " * 399, number, Sampling()))
    assert 20_000 / (time.process_time() - begun) > 50_000
