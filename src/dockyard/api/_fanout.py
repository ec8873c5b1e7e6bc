"""Several calls of one request, answered at once and numbered through: the legacy dialect's list of prompts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import msgspec

from dockyard.gateway import Gateway, Reply
from dockyard.types import Call, Chunk

WAITING_BATCHES = 64


async def fan_out(gateway: Gateway, calls: list[Call], stack: AsyncExitStack) -> AsyncIterator[list[Chunk]]:
    """Run all calls; chunks of call *i* have their index raised by *i* times n. One failure ends them all."""
    replies: list[Reply] = []
    for call in calls:
        reply = await gateway.run(call)
        await stack.enter_async_context(reply)
        replies.append(reply)
    return _merged(replies, calls[0].request.sampling.n)


async def _merged(replies: list[Reply], n: int) -> AsyncIterator[list[Chunk]]:
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
