"""The right to use a loaded model: a lease, its place among the requests that decode together, and its answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from dockyard.engines import ChunkStream
from dockyard.errors import DockyardError, WorkerCrashed
from dockyard.fleet.runner import Runner
from dockyard.types import Chunk, LoadedModel, Request

if TYPE_CHECKING:
    from dockyard.fleet.replica import Replica
    from dockyard.fleet.schedule import Resident


class Gate:
    """Lets ``capacity`` requests into an engine at once, the others in the order they came."""

    def __init__(self, capacity: int) -> None:
        self.capacity = max(1, capacity)
        self.open = 0
        self.progressed = False
        """An answer got under way since the model was loaded."""
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def queued(self) -> int:
        return len(self._waiting)

    def enter(self) -> bool:
        """Take a place if one is free."""
        if self.open >= self.capacity:
            return False
        self.open += 1
        return True

    async def wait(self) -> None:
        """Take a place as soon as one is free. Raises what ``fail`` was given if the model is lost before."""
        if self.enter():
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.leave()
            else:
                with contextlib.suppress(ValueError):
                    self._waiting.remove(place)
            raise

    def leave(self) -> None:
        self.open -= 1
        while self._waiting and self.open < self.capacity:
            place = self._waiting.popleft()
            if not place.done():
                self.open += 1
                place.set_result(None)

    def fail(self, error: DockyardError) -> None:
        """The model is lost: nobody who waits will get in."""
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_exception(error)


class LeasedStream:
    """A request's answer. It waits for a place in the engine first, if need be, and gives it back at the end."""

    def __init__(self, gate: Gate, runner: Runner, request: Request, entered: bool) -> None:
        self._gate = gate
        self._runner = runner
        self._request = request
        self._entered = entered
        self._inner: ChunkStream | None = runner.generate(request) if entered else None
        self.ended = False

    def __aiter__(self) -> LeasedStream:
        return self

    async def __anext__(self) -> list[Chunk]:
        inner = self._inner
        if inner is None:
            inner = await self._begin()
        try:
            chunks = await inner.__anext__()
        except (StopAsyncIteration, DockyardError):
            self._end()
            raise
        self._gate.progressed = True
        return chunks

    async def aclose(self) -> None:
        """Cancel, if it has not ended. Idempotent."""
        if self.ended:
            return
        try:
            if self._inner is not None:
                await self._inner.aclose()
        finally:
            self._end()

    async def _begin(self) -> ChunkStream:
        if self.ended:
            raise StopAsyncIteration
        await self._gate.wait()
        self._entered = True
        try:
            self._inner = self._runner.generate(self._request)
        except BaseException:
            self._end()
            raise
        return self._inner

    def _end(self) -> None:
        if not self.ended:
            self.ended = True
            if self._entered:
                self._gate.leave()


class Lease:
    """One caller's hold on a loaded model: it is not evicted before ``release``, which must be called once at least.

    ``generate`` may be called again after an answer has ended. Closing an answer's stream cancels it.
    """

    __slots__ = ("_gate", "_on_release", "_stream", "begun", "released", "replica", "resident", "runner")

    def __init__(self, replica: Replica, resident: Resident, begun: float, on_release: Callable[[Lease], None]) -> None:
        self.replica = replica
        self.resident = resident
        self.runner = replica.runner
        self.begun = begun
        self.released = False
        self._gate = replica.gate
        self._on_release = on_release
        self._stream: LeasedStream | None = None

    @property
    def model(self) -> LoadedModel:
        return self.replica.row()

    def generate(self, request: Request) -> LeasedStream:
        """Begin a request. Raises WorkerCrashed if the model was lost since it was leased."""
        if self.released:
            raise DockyardError(f"the lease of {self.replica.files.reference} was given back")
        if self.runner is None or not self.runner.alive:
            raise WorkerCrashed(
                f"the worker of {self.replica.files.reference} ended before the request began",
                hint="try again: it is restarted",
                retry_after=1.0,
            )
        entered = self._gate.enter()
        try:
            self._stream = LeasedStream(self._gate, self.runner, request, entered)
        except BaseException:
            if entered:
                self._gate.leave()
            raise
        return self._stream

    def release(self) -> None:
        """Give the model back. An answer that is still under way is cancelled. Idempotent."""
        if not self.released:
            self.released = True
            self._on_release(self)

    @property
    def unfinished(self) -> LeasedStream | None:
        """The answer that is still under way, if any."""
        return self._stream if self._stream is not None and not self._stream.ended else None
