"""What callers may rely on, whichever engine answers."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from dockyard.errors import Overloaded, WorkerCrashed
from dockyard.fleet.runner import Runner
from dockyard.types import Sampling

from .conftest import ask, collect, go_on, said

pytestmark = [pytest.mark.anyio, pytest.mark.model]
LONG = Sampling(max_tokens=400, ignore_eos=True)


async def test_an_answer_ends_once_and_its_last_chunk_has_the_usage(any_engine: Runner) -> None:
    chunks = await collect(any_engine, ask("Say something about the sea, please.", sampling=Sampling(max_tokens=5)))
    assert said(chunks)
    assert [chunk.finish for chunk in chunks if chunk.finish] == ["length"]
    assert [chunk for chunk in chunks if chunk.usage] == chunks[-1:]
    usage = chunks[-1].usage
    assert usage is not None
    assert usage.prompt_tokens > 0
    assert usage.completion_tokens == 5


@pytest.mark.parametrize("n", [1, 2])
async def test_what_was_taken_so_far_is_told_where_it_is_asked_for(any_engine: Runner, n: int) -> None:
    request = msgspec.structs.replace(
        ask("one two three", sampling=Sampling(max_tokens=5, n=n, ignore_eos=True)), counting=True
    )
    chunks = await collect(any_engine, request)
    usage = chunks[-1].usage
    assert usage is not None
    told = [chunk.so_far for chunk in chunks[:-1] if chunk.finish is None]
    counted = [each.completion_tokens for each in told if each is not None]
    assert len(counted) == len(told) > 0
    assert counted == sorted(counted)
    assert 1 <= counted[0] <= counted[-1] <= usage.completion_tokens == 5 * n
    assert {each.prompt_tokens for each in told if each is not None} == {usage.prompt_tokens}


async def test_prompts_without_a_template_as_text_and_as_token_ids(any_engine: Runner) -> None:
    assert said(await collect(any_engine, go_on("Once upon a time")))
    assert said(await collect(any_engine, go_on([504, 253, 1066])))


async def test_every_choice_ends(any_engine: Runner) -> None:
    chunks = await collect(any_engine, ask("one two three four", sampling=Sampling(max_tokens=4, n=3)))
    assert sorted(chunk.index for chunk in chunks if chunk.finish) == [0, 1, 2]
    assert all(said(chunks, index) for index in range(3))
    assert [chunk for chunk in chunks if chunk.usage] == chunks[-1:]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12


async def test_logprobs_come_with_each_token(any_engine: Runner) -> None:
    chunks = await collect(any_engine, ask("one two three", sampling=Sampling(max_tokens=3, logprobs=0)))
    found = [each for chunk in chunks for each in chunk.logprobs or ()]
    assert len(found) == 3
    assert all(each.logprob <= 0 and not each.top for each in found)
    # A token may be part of a character: then only the bytes join to what was said.
    assert b"".join(bytes(each.bytes or each.token.encode()) for each in found).decode(errors="replace") == said(chunks)


async def test_closing_early_and_twice_is_fine_and_the_next_is_served(any_engine: Runner) -> None:
    for number in range(10):
        stream = any_engine.generate(ask("a long story", number, LONG))
        await stream.__anext__()
        await stream.aclose()
        await stream.aclose()
    assert said(await collect(any_engine, ask("and now?")))


async def test_sixteen_at_once(any_engine: Runner) -> None:
    sampling = Sampling(max_tokens=6, ignore_eos=True)
    requests = [ask(f"Count from {number}", number, sampling) for number in range(16)]
    answers = await asyncio.gather(*(collect(any_engine, request) for request in requests))
    for chunks in answers:
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 6
        assert said(chunks)


@pytest.mark.parametrize("name", ["echo", "echo-worker"])
async def test_after_stop_nothing_is_served(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    from dockyard.engines import builtin

    from .conftest import prepare

    files = builtin(name)
    assert files is not None
    runner, _ = prepare(files, name, tmp_path_factory.mktemp("logs") / "log")
    assert not runner.alive
    await runner.start()
    assert runner.alive
    await runner.stop()
    await runner.stop(drain=1)
    assert not runner.alive
    assert (await runner.wait_exit()).expected
    with pytest.raises((Overloaded, WorkerCrashed)):
        runner.generate(ask("too late"))
