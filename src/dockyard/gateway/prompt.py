"""Puts a prompt of the library around a chat that names one, and takes its reasoning out of the answer again.

The prompt is looked up for each request, so a new version or a rollback holds from the next one on. Of several samples
the one that most agree on is given, when all are there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from dockyard.errors import InvalidRequest, NotFound
from dockyard.gateway._parts import Answer, Chunks, Inbound, Outbound, Parts, aclose
from dockyard.types import Call, Chunk, Request, Usage

if TYPE_CHECKING:
    from dockyard.prompt.examples import Chooser

CONVERSATIONS = frozenset({"chat", "tokenize", "template"})


def inbound(parts: Parts) -> Inbound:
    kept: list[Chooser] = []

    async def embed(model: str, texts: Sequence[str]) -> list[list[float]]:
        return await vectors(parts, model, texts)

    async def prompt(call: Call) -> Answer | None:
        used, request = call.prompt, call.request
        if used is None:
            return None
        if request.kind == "complete":
            raise InvalidRequest(f"{used.name or call.model!r} has a prompt, and prompts are for chats", param="model")
        if request.kind not in CONVERSATIONS or (request.kind != "chat" and request.messages is None):
            return None
        if parts.prompts is None or not used.name:
            raise NotFound("there is no prompt of that name", param="prompt", hint="name one in `prompt.id`")
        from dockyard.prompt.examples import Chooser
        from dockyard.prompt.render import request_of, said_by_user

        if not kept:
            kept.append(Chooser(embed))
        found = await asyncio.to_thread(parts.prompts().find, used.name, used.version)
        text = used.variables.get("input") or said_by_user(request.messages or ()) or ""
        examples = await kept[0].chosen(found.prompt, str(text), found.digest)
        call.request = request_of(found.prompt, request, used.variables, examples)
        reasons = found.prompt.reasoning == "steps"
        call.prompt = msgspec.structs.replace(
            used,
            name=found.name,
            version=found.version,
            digest=found.digest,
            shape="plain" if not reasons else "steps" if found.prompt.schema is None else "wrapped",
            samples=found.prompt.samples if request.kind == "chat" else 1,
        )
        return None

    return prompt


async def vectors(parts: Parts, model: str, texts: Sequence[str]) -> list[list[float]]:
    """A vector of each text by a model of the fleet."""
    import array

    lease = await parts.fleet.lease(model, "embed")
    try:
        found: list[list[float]] = []
        async for batch in lease.generate(Request(id="prompt-examples", kind="embed", inputs=tuple(texts))):
            for chunk in batch:
                if chunk.result is not None:
                    found += [array.array("f", one).tolist() for one in chunk.result.vectors]
        return found
    finally:
        lease.release()


def outbound(parts: Parts) -> Outbound:  # noqa: ARG001 - every step is built alike
    def prompt(call: Call, chunks: Chunks) -> Chunks:
        used = call.prompt
        if used is None or call.request.kind != "chat" or (used.shape == "plain" and used.samples == 1):
            return chunks
        if used.samples == 1 and used.shape == "steps":
            return _parted(chunks)
        return _decided(chunks, used.samples, used.shape)

    return prompt


async def _parted(chunks: Chunks) -> Chunks:
    """The answer as it comes, what was thought before it as reasoning."""
    from dockyard.prompt.answers import Splitter

    splitter = Splitter()
    try:
        async for batch in chunks:
            told = []
            for chunk in batch:
                thought, text = splitter.add(chunk.text)
                if chunk.finish is not None:
                    more, rest = splitter.end()
                    # Cut short while it thought, the model gave no answer.
                    thought, text = thought + more, text + (rest if chunk.finish != "length" else "")
                told.append(msgspec.structs.replace(chunk, text=text, reasoning=chunk.reasoning + thought))
            yield told
    finally:
        await aclose(chunks)


async def _decided(chunks: Chunks, samples: int, shape: str) -> Chunks:
    """One answer when all samples are there: what most of them say."""
    from dockyard.prompt import answers

    texts, thoughts, finishes = [""] * samples, [""] * samples, ["stop"] * samples
    usage: Usage | None = None
    cut = 0
    try:
        async for batch in chunks:
            for chunk in batch:
                texts[chunk.index] += chunk.text
                thoughts[chunk.index] += chunk.reasoning
                finishes[chunk.index] = chunk.finish or finishes[chunk.index]
                usage, cut = chunk.usage or usage, max(cut, chunk.truncated)
    finally:
        await aclose(chunks)
    if shape != "plain":
        for place, text in enumerate(texts):
            thought, texts[place] = answers.unwrapped(text) if shape == "wrapped" else answers.split(text)
            thoughts[place] += thought
    best = answers.majority(texts)
    yield [Chunk(texts[best], reasoning=thoughts[best], finish=finishes[best], usage=usage, truncated=cut)]
