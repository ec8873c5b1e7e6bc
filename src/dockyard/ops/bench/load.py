"""Load on a served model: a fixed number of streams (closed loop), or a rate of arrivals (open loop)."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import msgspec

from dockyard.client import AsyncClient
from dockyard.errors import DockyardError
from dockyard.ops.bench.figures import Sample

WORDS = ("harbour", "ship", "crane", "dock", "tide", "rope", "cargo", "pilot", "anchor", "ferry", "keel", "mast")


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask: ``requests`` answers of exactly ``tokens`` tokens to prompts of about ``prompt_words`` words.

    ``streams`` are open at any time; with ``rate`` instead, requests arrive at random with that mean a second.
    """

    streams: int = 1
    requests: int = 4
    tokens: int = 64
    prompt_words: int = 32
    rate: float | None = None
    seed: int = 0


async def run(
    client: AsyncClient, model: str, load: Load, on_done: Callable[[Sample], None] | None = None
) -> list[Sample]:
    """One sample for each request, in the order of their ends. A failed request is a sample with its error."""
    dice = random.Random(load.seed)  # noqa: S311 - prompts, not secrets
    prompts = [_prompt(number, load.prompt_words, dice) for number in range(load.requests)]
    samples: list[Sample] = []

    async def one(prompt: str) -> None:
        sample = await answer(client, model, prompt, load.tokens)
        samples.append(sample)
        if on_done is not None:
            on_done(sample)

    if load.rate is None:
        waiting = iter(prompts)

        async def stream() -> None:
            for prompt in waiting:  # shared: each stream takes the next one
                await one(prompt)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(load.streams, load.requests)):
                group.create_task(stream())
    else:
        async with asyncio.TaskGroup() as group:
            for prompt in prompts:
                group.create_task(one(prompt))
                await asyncio.sleep(dice.expovariate(load.rate))
    return samples


async def answer(client: AsyncClient, model: str, prompt: str, tokens: int) -> Sample:
    """Ask once, greedily, for exactly so many tokens."""
    fields: dict[str, Any] = {"max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    arrivals: list[float] = []
    told = asked = 0
    begun = time.monotonic()
    try:
        async with aclosing(client.chat(model, prompt, **fields)) as chunks:
            async for chunk in chunks:
                if chunk.text or chunk.reasoning:
                    arrivals.append(time.monotonic() - begun)
                if chunk.usage is not None:
                    told, asked = chunk.usage.completion_tokens, chunk.usage.prompt_tokens
    except DockyardError as error:
        return Sample(begun=begun, error=error.message)
    if not arrivals:
        return Sample(begun=begun, error="the answer was empty")
    return Sample(begun=begun, arrivals=tuple(arrivals), tokens=told or len(arrivals), prompt_tokens=asked)


def _prompt(number: int, words: int, dice: random.Random) -> str:
    """Begins differently each time, so that no prefix is in a cache by chance."""
    return f"{dice.getrandbits(32):08x} {number}: " + " ".join(dice.choices(WORDS, k=max(1, words - 2)))
