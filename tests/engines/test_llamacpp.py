"""llama.cpp with a real model, embedded and as a native server: what a caller sees of it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable

import pytest

from dockyard.errors import ContextOverflow, InvalidRequest, UnsupportedParameter
from dockyard.fleet.runner import Runner
from dockyard.types import Chunk, Request, Sampling

from .conftest import CONTEXT, ask, collect, go_on, said

pytestmark = [pytest.mark.anyio, pytest.mark.model]
GREEDY = Sampling(max_tokens=12, temperature=0)


WORDS = (
    "harbour", "lemon", "cathedral", "violin", "copper", "moss", "candle", "saddle", "marble", "pepper", "thunder",
    "orchard",
)  # fmt: skip


def finish(chunks: list[Chunk]) -> str | None:
    return chunks[-1].finish


async def test_it_really_answers(llama: Runner) -> None:
    chunks = await collect(llama, ask("What is 2+2?", sampling=Sampling(max_tokens=40, temperature=0)))
    assert "4" in said(chunks)
    assert finish(chunks) == "stop"


async def test_usage_tells_cached_tokens_and_seconds(llama: Runner) -> None:
    request = ask("Explain in one word what a harbour is, my friend.", sampling=Sampling(max_tokens=4, temperature=0))
    first = (await collect(llama, request))[-1].usage
    again = (await collect(llama, request))[-1].usage
    assert first is not None
    assert again is not None
    assert again.prompt_tokens == first.prompt_tokens > 20
    assert again.cached_tokens >= again.prompt_tokens - 2
    assert again.prefill_seconds is not None
    assert again.decode_seconds is not None
    assert 0 < again.decode_seconds < 60


async def test_conversations_that_are_over_come_back_each_as_its_own(llama: Runner) -> None:
    """More of them than there are slots: what was said stays in memory of its own, and goes to nobody else."""
    asked = [go_on(" ".join([word] * 40), Sampling(max_tokens=6, temperature=0)) for word in WORDS]
    for _ in range(2):
        answers = [await collect(llama, each) for each in asked]
        for word, answer in zip(WORDS, answers, strict=True):
            assert said(answer).split()[:2] == [word, word]
    for answer in answers:
        usage = answer[-1].usage
        assert usage is not None
        assert usage.cached_tokens >= usage.prompt_tokens - 2


@pytest.mark.parametrize("text", ["👍🏽 naïve — 日本語 🇫🇷", "👩‍👩‍👧‍👦𝕏ℵ"])
async def test_streamed_characters_are_whole(llama: Runner, text: str) -> None:
    grammar = f'root ::= "{text}"'
    chunks = await collect(llama, ask("Say it.", sampling=Sampling(max_tokens=60, temperature=0), grammar=grammar))
    assert said(chunks) == text
    assert all("�" not in chunk.text for chunk in chunks)


async def test_cut_off_inside_a_character_shows_only_whole_ones(llama: Runner) -> None:
    for limit in range(1, 6):
        sampling = Sampling(max_tokens=limit, temperature=0)
        text = said(await collect(llama, ask("Say it.", sampling=sampling, grammar='root ::= "ab👩‍👩‍👧‍👦"')))
        assert "ab👩‍👩‍👧‍👦".startswith(text)


@pytest.mark.parametrize("stop", ["lo wor", "world, h", "d,", " ", "hello world, how are you"])
async def test_stop_strings_that_span_tokens_never_leak(llama: Runner, stop: str) -> None:
    whole = "hello world, how are you"
    chunks = await collect(
        llama,
        ask("Say it.", sampling=Sampling(max_tokens=40, temperature=0, stop=(stop,)), grammar=f'root ::= "{whole}"'),
    )
    assert said(chunks) == whole.partition(stop)[0]
    assert finish(chunks) == "stop"


async def test_what_looks_like_a_stop_string_but_is_none_is_not_lost(llama: Runner) -> None:
    whole = "hello world, how are you"
    sampling = Sampling(max_tokens=40, temperature=0, stop=("world, hush", "are yours"))
    assert said(await collect(llama, ask("Say it.", sampling=sampling, grammar=f'root ::= "{whole}"'))) == whole


async def test_a_prompt_beyond_the_context_is_an_error_with_both_numbers(llama: Runner) -> None:
    with pytest.raises(ContextOverflow, match=rf"\d\d\d\d? tokens.*{CONTEXT}") as caught:
        await collect(llama, go_on("word " * 900))
    assert caught.value.hint is not None
    assert said(await collect(llama, ask("Still there?")))


async def test_an_answer_that_reaches_the_end_of_the_window_says_length(llama: Runner) -> None:
    chunks = await collect(llama, go_on("word " * (CONTEXT - 12), Sampling(max_tokens=100, ignore_eos=True)))
    assert finish(chunks) == "length"
    usage = chunks[-1].usage
    assert usage is not None
    assert CONTEXT - 2 <= usage.prompt_tokens + usage.completion_tokens <= CONTEXT + 1


async def test_seeds_decide_what_is_drawn(llama: Runner) -> None:
    async def draw(seed: int) -> str:
        sampling = Sampling(max_tokens=12, temperature=1.5, seed=seed, ignore_eos=True)
        return said(await collect(llama, ask("Tell me a tale", sampling=sampling)))

    first, same, other = await draw(7), await draw(7), await draw(8)
    assert first == same
    assert first != other


@pytest.mark.parametrize("seed", [None, 0, 7])
@pytest.mark.parametrize("make", [ask, go_on])
async def test_choices_are_drawn_each_with_a_seed_of_its_own(
    llama: Runner, make: Callable[..., Request], seed: int | None
) -> None:
    async def draw(n: int, max_tokens: int = 16, temperature: float = 1.0) -> list[str]:
        sampling = Sampling(n=n, max_tokens=max_tokens, temperature=temperature, seed=seed, ignore_eos=True)
        chunks = await collect(llama, make("Tell me a tale", sampling=sampling))
        return [said(chunks, index) for index in range(n)]

    assert len(set(await draw(3))) == 3
    assert len(set(await draw(2, max_tokens=2, temperature=0.0))) == 1
    # Others decode in the same batch, which must not tie the choices to each other.
    for crowd in await asyncio.gather(*(draw(2) for _ in range(4))):
        assert crowd[0] != crowd[1]


async def test_sampling_parameters_reach_the_model(llama: Runner) -> None:
    greedy = said(await collect(llama, ask("Tell me a tale", sampling=GREEDY)))

    async def text(**sampling: object) -> str:
        return said(await collect(llama, ask("Tell me a tale", sampling=Sampling(max_tokens=12, **sampling))))  # type: ignore[arg-type]

    assert await text(temperature=2.0, top_k=1) == greedy
    assert await text(temperature=2.0, top_p=0.0) == greedy
    assert await text(temperature=2.0, min_p=1.0) == greedy
    everywhere = {"logit_bias": {"57": 100.0}, "temperature": 0.0}
    assert set(await text(**everywhere)) == {"I"}
    assert set(await text(**everywhere, presence_penalty=2.0, frequency_penalty=2.0)) == {"I"}
    assert await text(**{**everywhere, "logit_bias": {"57": 3.0}}, repetition_penalty=5.0) != "I" * 12


async def test_logprobs_have_alternatives(llama: Runner) -> None:
    sampling = Sampling(max_tokens=3, temperature=0, logprobs=2)
    found = [each for chunk in await collect(llama, ask("Hi", sampling=sampling)) for each in chunk.logprobs or ()]
    assert len(found) == 3
    for each in found:
        assert len(each.top) == 2
        assert each.top[0].logprob >= each.top[1].logprob
        assert each.bytes == list(each.token.encode())


async def test_a_schema_is_kept_to(llama: Runner) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}, "required": ["n"]}
    shape = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    chunks = await collect(llama, ask("A number?", sampling=Sampling(max_tokens=40), response_format=shape))
    assert isinstance(json.loads(said(chunks))["n"], int)


async def test_what_it_does_not_know_is_refused_by_name(llama: Runner) -> None:
    with pytest.raises(UnsupportedParameter, match="id_slot") as caught:
        await collect(llama, ask("Hi", id_slot=3))
    assert caught.value.param == "id_slot"
    with pytest.raises(InvalidRequest, match="n=9"):
        await collect(llama, ask("Hi", sampling=Sampling(n=9)))
    with pytest.raises(InvalidRequest, match="logit_bias"):
        await collect(llama, ask("Hi", sampling=Sampling(logit_bias={"hello": 1.0})))
    with pytest.raises(InvalidRequest, match="empty"):
        await collect(llama, go_on(""))
    with pytest.raises(InvalidRequest, match="grammar"):
        await collect(llama, ask("Hi", grammar="this is none"))


async def test_hanging_up_frees_the_slots(llama: Runner) -> None:
    """Eight long answers take all slots; once their callers are gone, another is served in the time of one."""
    streams = [llama.generate(ask("A tale", number, Sampling(max_tokens=400, ignore_eos=True))) for number in range(8)]
    await asyncio.gather(*(stream.__anext__() for stream in streams))
    begun = time.monotonic()
    await asyncio.gather(*(stream.aclose() for stream in streams))
    await collect(llama, ask("Hi", sampling=Sampling(max_tokens=1)))
    freed = time.monotonic() - begun
    begun = time.monotonic()
    await collect(llama, ask("Ho", sampling=Sampling(max_tokens=1)))
    assert freed < 10 * (time.monotonic() - begun) + 0.5


async def test_200_callers_hang_up_and_nothing_is_left(llama: Runner) -> None:
    import psutil

    process = psutil.Process(llama.pid)
    await collect(llama, ask("Hi"))

    async def hang_up(number: int) -> None:
        stream = llama.generate(ask("A tale", number, Sampling(max_tokens=400, ignore_eos=True)))
        if number % 4 == 0:
            await stream.__anext__()
        await stream.aclose()

    for batch in range(0, 200, 40):
        await asyncio.gather(*(hang_up(number) for number in range(batch, batch + 40)))
    await collect(llama, ask("Hi"))
    deadline = time.monotonic() + 15
    while any("request" in _name(process, thread.id) for thread in process.threads()):
        assert time.monotonic() < deadline, "a request is still running"
        await asyncio.sleep(0.05)
    assert process.num_fds() < 24


def _name(process: object, thread: int) -> str:
    from pathlib import Path

    import psutil

    assert isinstance(process, psutil.Process)
    try:
        return Path(f"/proc/{process.pid}/task/{thread}/comm").read_text()
    except OSError:
        return ""
