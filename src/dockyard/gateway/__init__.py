"""The pipeline that every request walks: two tuples and a loop.

    INBOUND   identify → reserve → backend → screen → prompt → ground → cache → route    each may end the walk
    OUTBOUND  prompt → ground → screen → meter           each sees the answer's chunks as they come

A step is one small module: a function of the shared ``Parts`` that returns the step itself. Dialects in ``api/`` make a
``Call``, hand it to ``Gateway.run`` and write the chunks of the reply in their own wire format.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter
from types import TracebackType
from typing import Final

from dockyard.errors import DockyardError, EngineError
from dockyard.gateway import backend, cache, ground, identify, meter, prompt, reserve, route, screen
from dockyard.gateway._parts import Chunks, Inbound, Load, Outbound, Parts, aclose
from dockyard.types import Call, Step

__all__ = ["INBOUND", "OUTBOUND", "Gateway", "Load", "Parts", "Reply", "pipeline"]

INBOUND: Final[tuple[Callable[[Parts], Inbound], ...]] = (
    identify.step,
    reserve.step,
    backend.step,
    screen.inbound,
    prompt.inbound,
    ground.inbound,
    cache.step,
    route.step,
)
OUTBOUND: Final[tuple[Callable[[Parts], Outbound], ...]] = (
    prompt.outbound,
    ground.outbound,
    screen.outbound,
    meter.step,
)


class Reply:
    """The answer to a call: iterate ``chunks``, and ``aclose`` it whatever happens; use it as ``async with``.

    Closing before the end cancels the generation. ``outcome`` is "ok", an error's code or "cancelled".
    """

    def __init__(self, parts: Parts, call: Call, source: Chunks, chunks: Chunks) -> None:
        self.call = call
        self.chunks = chunks
        self._source = source
        self._parts = parts
        self._closed = False

    async def aclose(self, error: BaseException | None = None) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            await aclose(self.chunks)
            await aclose(self._source)  # generators around it that never began would not close it
        finally:
            await meter.close(self._parts, self.call, outcome_of(self.call, error))

    async def __aenter__(self) -> Reply:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose(error)


class Gateway:
    """Holds the built steps. One for each server; belongs to one event loop."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._inbound = tuple((_name(step), step(parts)) for step in INBOUND)
        self._outbound = tuple(step(parts) for step in OUTBOUND)

    @property
    def load(self) -> Load:
        return self.parts.load

    async def run(self, call: Call) -> Reply:
        """Walk the call in; the reply's chunks walk out as they are iterated. Raises what a step raised."""
        error: BaseException | None = None
        begun = perf_counter()
        for observe in self.parts.observers:
            observe(call)
        try:
            for name, step in self._inbound:
                try:
                    answer = await step(call)
                except BaseException as raised:
                    error = raised
                    call.steps.append(Step(name=name, seconds=perf_counter() - begun, outcome=_outcome(raised)))
                    raise
                now = perf_counter()
                call.steps.append(Step(name=name, seconds=now - begun, outcome="ok" if answer is None else "answered"))
                begun = now
                if answer is not None:
                    chunks = answer.chunks
                    for outbound in self._outbound:
                        chunks = outbound(call, chunks)
                    return Reply(self.parts, call, answer.chunks, chunks)
            raise EngineError("no step of the pipeline answered")
        finally:
            if error is not None:
                await meter.close(self.parts, call, _outcome(error))

    async def drain(self, seconds: float) -> bool:
        """Take no new calls, and wait until those under way have ended; False if some had not in time."""
        self.load.draining = True
        until = asyncio.get_running_loop().time() + seconds
        while self.load.active and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110 - once in a life
            await asyncio.sleep(0.02)
        return not self.load.active


def outcome_of(call: Call, error: BaseException | None) -> str:
    """How a call ended, in a word: an error's code, "cancelled" if it was cut short, else "ok"."""
    if error is not None:
        return _outcome(error)
    return "ok" if call.finish is not None else "cancelled"


def pipeline() -> list[tuple[str, str, str]]:
    """Direction, name and first sentence of each step, in the order a request meets them."""
    import sys

    return [
        (way, _name(step), (sys.modules[step.__module__].__doc__ or "").strip().partition("\n")[0])
        for way, steps in (("inbound", INBOUND), ("outbound", OUTBOUND))
        for step in steps
    ]


def _name(step: Callable[..., object]) -> str:
    return step.__module__.rpartition(".")[2]


def _outcome(error: BaseException) -> str:
    if isinstance(error, DockyardError):
        return error.code
    return "cancelled" if isinstance(error, asyncio.CancelledError | GeneratorExit) else "internal_error"
