"""Who embeds, ranks and writes for a base: a protocol, and one that asks a server or an app in this process."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from dockyard.client import AsyncClient
from dockyard.errors import EngineError
from dockyard.types import Json, Message

PROBE = "The harbour master writes the names of all ships into a long blue book."
"""The sentence whose vector a base remembers, by which it notices that its model has changed."""

PREFIXES = {
    "bge": ("Represent this sentence for searching relevant passages: ", ""),
    "e5": ("query: ", "passage: "),
    "nomic": ("search_query: ", "search_document: "),
    "snowflake-arctic": ("Represent this sentence for searching relevant passages: ", ""),
}
"""What goes before queries and passages, by a word in the model's name, as their authors say."""


class Models(Protocol):
    """The models of a base, by name. Each call raises what the fleet or the server raises."""

    async def embed(self, model: str, texts: Sequence[str]) -> list[bytes]:
        """For each text a vector of little-endian float32. Raises ContextOverflow where one is too long."""
        ...

    async def rank(self, model: str, query: str, texts: Sequence[str]) -> list[float]:
        """For each text how relevant it is, as the model's own logit or score; higher is better."""
        ...

    def write(self, model: str, messages: Sequence[Message], **fields: Json) -> AsyncGenerator[str, None]:
        """A chat's answer in pieces. ``fields`` are of OpenAI's chat."""
        ...

    async def first(self, model: str, messages: Sequence[Message], count: int) -> dict[str, float]:
        """The likeliest first tokens of a chat's answer, ``count`` at most, each with the natural logarithm of its
        probability; none where the engine tells none. Raises UnsupportedParameter where it says so."""
        ...

    async def likelihood(self, model: str, before: str, text: str) -> list[float]:
        """Of each token of ``text``, which goes on where ``before`` ends, the natural logarithm of its probability. No
        chat. Raises UnsupportedParameter where the engine does not score the tokens of a prompt."""
        ...


class ClientModels:
    """Models behind an open client."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def embed(self, model: str, texts: Sequence[str]) -> list[bytes]:
        body = {"model": model, "input": list(texts), "encoding_format": "base64"}
        answer = await self._client.call("POST", "/v1/embeddings", body)
        found = [base64.b64decode(one["embedding"]) for one in answer["data"]]
        if len(found) != len(texts):
            raise EngineError(f"{model} made {len(found)} vectors of {len(texts)} texts")
        return found

    async def rank(self, model: str, query: str, texts: Sequence[str]) -> list[float]:
        body = {"model": model, "query": query, "documents": list(texts), "use_activation": False}
        answer = await self._client.call("POST", "/v1/rerank", body)
        scores = [0.0] * len(texts)
        for one in answer["results"]:
            scores[one["index"]] = float(one["relevance_score"])
        return scores

    async def write(self, model: str, messages: Sequence[Message], **fields: Json) -> AsyncGenerator[str, None]:
        async for chunk in self._client.chat(model, messages, **fields):
            if chunk.text:
                yield chunk.text

    async def first(self, model: str, messages: Sequence[Message], count: int) -> dict[str, float]:
        body = {"model": model, "messages": list(messages), "max_tokens": 1, "temperature": 0}
        body |= {"logprobs": True, "top_logprobs": count}
        answer = await self._client.call("POST", "/v1/chat/completions", body)
        told = (answer["choices"][0].get("logprobs") or {}).get("content")
        return {one["token"]: float(one["logprob"]) for one in reversed(told[0]["top_logprobs"])} if told else {}

    async def likelihood(self, model: str, before: str, text: str) -> list[float]:
        begin, end = [await self._tokens(model, part, special) for part, special in ((before, True), (text, False))]
        body = {"model": model, "prompt": [*begin, *end], "max_tokens": 0, "echo": True, "logprobs": 0}
        answer = await self._client.call("POST", "/v1/completions", body | {"logprob_start_len": len(begin)})
        return [float(value) for value in answer["choices"][0]["logprobs"]["token_logprobs"][len(begin) :]]

    async def _tokens(self, model: str, text: str, special: bool) -> list[int]:
        body = {"model": model, "prompt": text, "add_special_tokens": special}
        return list((await self._client.call("POST", "/tokenize", body))["tokens"])


def prefixes(model: str) -> tuple[str, str]:
    """What to put before queries and passages for a model of this name."""
    name = model.lower()
    return next((pair for word, pair in PREFIXES.items() if word in name), ("", ""))


def cosine(one: bytes, other: bytes) -> float:
    """Of two vectors of little-endian float32; 0 where they can't be compared."""
    import math
    import struct

    if len(one) != len(other) or not one:
        return 0.0
    left, right = (struct.unpack(f"<{len(each) // 4}f", each) for each in (one, other))
    length = math.sqrt(sum(a * a for a in left) * sum(b * b for b in right))
    return sum(a * b for a, b in zip(left, right, strict=True)) / length if length else 0.0
