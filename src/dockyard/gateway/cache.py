"""Answers repeated requests from memory, where repeating them could only give the same answer.

That is: greedy (temperature 0) or seeded requests, and those that generate nothing (vectors, scores, tokens). An answer
is only given to the principal who paid for it, is dropped least recently used first, and the bound counts its encoded
bytes. ``Cache-Control: no-store`` keeps a call out of it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import AsyncIterator

import msgspec

from dockyard.gateway._parts import Answer, Inbound, Parts
from dockyard.types import Call, Chunk, Request

COMPUTED = frozenset({"embed", "rerank", "tokenize", "detokenize", "template"})

_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_decode = msgspec.msgpack.Decoder(list[Chunk]).decode


class Answers:
    """Encoded answers by key, at most ``limit`` bytes in all."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._held: OrderedDict[bytes, bytes] = OrderedDict()

    def get(self, key: bytes) -> bytes | None:
        if (found := self._held.get(key)) is not None:
            self._held.move_to_end(key)
        return found

    def put(self, key: bytes, answer: bytes) -> None:
        self.size -= len(self._held.pop(key, b""))
        if len(answer) > self.limit:
            return
        self._held[key] = answer
        self.size += len(answer)
        while self.size > self.limit:
            self.size -= len(self._held.popitem(last=False)[1])


def step(parts: Parts) -> Inbound:
    answers = Answers(parts.settings.cache_bytes)

    async def cache(call: Call) -> Answer | None:
        if not answers.limit or not repeatable(call.request):
            return None
        if call.no_store:
            call.cache = "bypass"
            return None
        owner = call.principal.name if call.principal else ""
        key = fingerprint(call.request, owner, parts.digest(call.target or call.model))
        if (found := answers.get(key)) is not None:
            call.cache = "hit"
            return Answer(_replay(_decode(found)))
        call.cache = "miss"
        seen: list[Chunk] = []
        call.taps.append(seen.extend)

        def keep() -> None:
            if sum(chunk.finish is not None for chunk in seen) == call.request.sampling.n and seen[-1].usage:
                answers.put(key, _encode(seen))

        call.cleanups.append(keep)
        return None

    return cache


def repeatable(request: Request) -> bool:
    """Whether the same request must give the same answer."""
    if request.kind not in ("chat", "complete"):
        return request.kind in COMPUTED
    return request.sampling.temperature == 0 or request.sampling.seed is not None


def fingerprint(request: Request, owner: str, digest: str) -> bytes:
    """What two calls share exactly if one's answer may serve the other."""
    same = msgspec.structs.replace(request, id="")
    return hashlib.sha256(_encode((owner, digest, same))).digest()


async def _replay(chunks: list[Chunk]) -> AsyncIterator[list[Chunk]]:
    yield chunks
