"""Counts what an answer took, whatever its end: usage, times, metrics, a row for the books.

``count`` is the outbound step and sees the chunks; ``close`` ends a call for good and runs exactly once.
"""

from __future__ import annotations

import logging
import time

from dockyard.gateway._parts import Chunks, Outbound, Parts, aclose
from dockyard.types import Call, Usage

log = logging.getLogger(__name__)


def step(parts: Parts) -> Outbound:  # noqa: ARG001 - every step is built alike
    async def meter(call: Call, chunks: Chunks) -> Chunks:
        steps = 0
        known = False
        try:
            async for batch in chunks:
                if call.first_token is None:
                    call.first_token = time.monotonic()
                steps += len(batch)
                for chunk in batch:
                    if chunk.finish is not None:
                        call.finish = chunk.finish
                    if chunk.usage is not None:
                        call.usage = chunk.usage
                        known = True
                for tap in call.taps:
                    tap(batch)
                yield batch
        finally:
            if not known:
                # Cut short: the engine had no chance to count, and a chunk is about a token.
                call.usage = Usage(completion_tokens=steps)
            await aclose(chunks)

    return meter


async def close(parts: Parts, call: Call, outcome: str) -> None:
    """Release what the call holds, last first, then write down what it took."""
    while call.cleanups:
        cleanup = call.cleanups.pop()
        try:
            result = cleanup()
            if result is not None:
                await result
        except Exception:  # one failed cleanup must not keep the others from running
            log.exception("a cleanup of call %s failed", call.request.id)
    parts.telemetry.finished(call, outcome, time.monotonic() - call.received)
