"""The fleet's models as knowledge bases use them, without a way through HTTP."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec

from dockyard.errors import EngineError
from dockyard.gateway._parts import Fleet
from dockyard.types import Chunk, Json, Lane, Message, Request, Result, Sampling


class FleetModels:
    """Leases a model for each call. ``lane`` "batch" makes way for everybody else."""

    def __init__(self, fleet: Fleet, *, lane: Lane = "interactive", key: str = "") -> None:
        self._fleet = fleet
        self._lane: Lane = lane
        self._key = key

    async def embed(self, model: str, texts: Sequence[str]) -> list[bytes]:
        request = Request(id=_id(), kind="embed", inputs=tuple(texts))
        vectors = [vector for chunk in await self._ask(model, request) for vector in _result(chunk).vectors]
        if len(vectors) != len(texts):
            raise EngineError(f"{model} made {len(vectors)} vectors of {len(texts)} texts")
        return vectors

    async def rank(self, model: str, query: str, texts: Sequence[str]) -> list[float]:
        request = Request(id=_id(), kind="rerank", query=query, inputs=tuple(texts))
        scores = [score for chunk in await self._ask(model, request) for score in _result(chunk).scores]
        if len(scores) != len(texts):
            raise EngineError(f"{model} gave {len(scores)} scores of {len(texts)} texts")
        return scores

    async def write(self, model: str, messages: Sequence[Message], **fields: Json) -> AsyncGenerator[str, None]:
        sampling = msgspec.convert(fields, Sampling)
        request = Request(id=_id(), kind="chat", messages=tuple(messages), sampling=sampling)
        lease = await self._fleet.lease(model, "chat", lane=self._lane, key=self._key)
        try:
            async with aclosing(lease.generate(request)) as batches:
                async for batch in batches:
                    if text := "".join(chunk.text for chunk in batch):
                        yield text
        finally:
            lease.release()

    async def first(self, model: str, messages: Sequence[Message], count: int) -> dict[str, float]:
        sampling = Sampling(max_tokens=1, temperature=0, logprobs=count)
        request = Request(id=_id(), kind="chat", messages=tuple(messages), sampling=sampling)
        told = [one for chunk in await self._ask(model, request) for one in chunk.logprobs or ()]
        return {one.token: one.logprob for one in reversed(told[0].top)} if told else {}

    async def likelihood(self, model: str, before: str, text: str) -> list[float]:
        begin, end = [await self._tokens(model, part, special) for part, special in ((before, True), (text, False))]
        sampling = Sampling(max_tokens=0, prompt_logprobs=0, prompt_logprobs_from=len(begin))
        request = Request(id=_id(), kind="complete", prompt=[*begin, *end], sampling=sampling)
        told = [one for chunk in await self._ask(model, request) for one in _result(chunk).prompt_logprobs]
        return [one.logprob for one in told[len(begin) :] if one is not None]

    async def _tokens(self, model: str, text: str, special: bool) -> list[int]:
        request = Request(id=_id(), kind="tokenize", prompt=text, extra={"add_special_tokens": special})
        return [token for chunk in await self._ask(model, request) for token in _result(chunk).tokens]

    async def _ask(self, model: str, request: Request) -> list[Chunk]:
        lease = await self._fleet.lease(model, request.kind, lane=self._lane, key=self._key)
        try:
            return [chunk async for batch in lease.generate(request) for chunk in batch]
        finally:
            lease.release()


def _result(chunk: Chunk) -> Result:
    return chunk.result or Result()


def _id() -> str:
    return f"knowledge-{secrets.token_hex(8)}"
