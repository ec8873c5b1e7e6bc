"""A fleet that plays a script: what ``route`` leases and generates, without engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

from dockyard.errors import DockyardError
from dockyard.types import Chunk, LoadedModel, LoadOptions, Memory, Request, Usage

REFERENCE = "docker.io/ai/scripted:latest"
USAGE = Usage(prompt_tokens=7, completion_tokens=3, cached_tokens=2)


def words(*texts: str, finish: str = "stop", index: int = 0, usage: Usage | None = USAGE) -> list[list[Chunk]]:
    """An answer of these texts, a scheduler step each."""
    *first, last = texts
    return [*([Chunk(text, index)] for text in first), [Chunk(last, index, finish, usage)]]


class ScriptedFleet:
    """Answers every request with ``batches``; ``gap`` seconds between them; ``error`` comes after the last."""

    def __init__(
        self,
        batches: Sequence[list[Chunk]] = (),
        *,
        gap: float | None = None,
        error: Exception | None = None,
        refuses: DockyardError | None = None,
    ) -> None:
        self.batches = list(batches) or words("Hello", " world")
        self.gap = gap
        self.error = error
        self.refuses = refuses
        self.requests: list[Request] = []
        self.held = 0
        self.generating = 0
        self.unloaded: list[str | None] = []

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def lease(
        self,
        name: str,
        kind: str = "chat",
        *,
        lane: str = "interactive",
        key: str = "",
        keep_alive: float | None = None,
        unpin: bool = True,
    ) -> ScriptedLease:
        await asyncio.sleep(0)
        if self.refuses is not None:
            raise self.refuses
        self.held += 1
        return ScriptedLease(self)

    def identity(self, name: str) -> str:
        return name

    def models(self) -> list[LoadedModel]:
        memory = Memory(weights=1000, kv_cache=10, workspace=1)
        return [
            LoadedModel(
                reference=REFERENCE, digest="sha256:0", engine="scripted", state="ready", pid=None, context=128,
                parallel=4, predicted=memory, measured=1234, active=self.held, queued=2,
            )
        ]  # fmt: skip

    async def preload(self, name: str, options: LoadOptions | None = None, *, pin: bool = False) -> LoadedModel:
        (await self.lease(name)).release()
        return self.models()[0]

    async def unload(self, name: str | None = None) -> int:
        self.unloaded.append(name)
        return 1

    def logs(self, name: str | None = None, lines: int = 200) -> list[str]:
        return [f"{name} line {number}" for number in range(3)][-lines:]


class ScriptedLease:
    def __init__(self, fleet: ScriptedFleet) -> None:
        self._fleet = fleet
        self._released = False
        self.model = fleet.models()[0]
        self.adapter = None

    async def generate(self, request: Request) -> AsyncGenerator[list[Chunk], None]:
        fleet = self._fleet
        fleet.requests.append(request)
        fleet.generating += 1
        try:
            for batch in fleet.batches:
                if fleet.gap is not None:
                    await asyncio.sleep(fleet.gap)
                yield batch
            if fleet.error is not None:
                raise fleet.error
        finally:
            fleet.generating -= 1

    def release(self) -> None:
        if not self._released:
            self._released = True
            self._fleet.held -= 1
