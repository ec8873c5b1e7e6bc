"""Several calls of one request, answered at once and numbered through: the legacy dialect's list of prompts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from types import TracebackType

import msgspec

from dockyard.gateway import Gateway, Reply
from dockyard.types import Call, Chunk

WAITING_BATCHES = 64


class FanOut:
    """The answers of several calls as one; to be used as a ``gateway.Reply`` is."""

    def __init__(self, stack: AsyncExitStack, chunks: AsyncGenerator[list[Chunk], None]) -> None:
        self.chunks = chunks
        self._stack = stack

    async def __aenter__(self) -> FanOut:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.chunks.aclose()
        await self._stack.__aexit__(kind, error, trace)


async def fan_out(gateway: Gateway, calls: list[Call]) -> FanOut:
    """Run all calls; chunks of call *i* have their index raised by *i* times n. One failure ends them all."""
    async with AsyncExitStack() as stack:
        replies = [await stack.enter_async_context(await gateway.run(call)) for call in calls]
        return FanOut(stack.pop_all(), _merged(replies, calls[0].request.sampling.n))


async def _merged(replies: list[Reply], n: int) -> AsyncGenerator[list[Chunk], None]:
    queue: asyncio.Queue[list[Chunk] | None] = asyncio.Queue(WAITING_BATCHES)

    async def pump(reply: Reply, offset: int) -> None:
        try:
            async for batch in reply.chunks:
                await queue.put([msgspec.structs.replace(chunk, index=chunk.index + offset) for chunk in batch])
        finally:
            await queue.put(None)

    tasks = [asyncio.create_task(pump(reply, number * n)) for number, reply in enumerate(replies)]
    try:
        ended = 0
        while ended < len(tasks):
            batch = await queue.get()
            if batch is not None:
                yield batch
                continue
            ended += 1
            for task in tasks:
                if task.done() and not task.cancelled() and (error := task.exception()):
                    raise error
        for task in tasks:
            await task
    finally:
        for task in tasks:
            task.cancel()
        while not queue.empty():
            queue.get_nowait()
        await asyncio.gather(*tasks, return_exceptions=True)
