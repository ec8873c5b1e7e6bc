"""The right to use a loaded model, and the answer it gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from dockyard.engines import ChunkStream
from dockyard.errors import DockyardError, Overloaded, WorkerCrashed
from dockyard.fleet.runner import Runner
from dockyard.types import Chunk, LoadedModel, Request

if TYPE_CHECKING:
    from dockyard.fleet.replica import Replica
    from dockyard.fleet.schedule import Resident


class Traffic:
    """The requests open on one loaded model; those beyond its ``parallel`` queue in the worker, in order."""

    __slots__ = ("open", "progressed")

    def __init__(self) -> None:
        self.open = 0
        self.progressed = False
        """An answer got under way since the model was loaded."""


class LeasedStream:
    """A request's answer, counted while it is open.

    An answer that stops before its last chunk because the model was unloaded ends with an error, never in silence.
    """

    __slots__ = ("_inner", "_last", "_runner", "_traffic", "ended")

    def __init__(self, runner: Runner, request: Request, traffic: Traffic) -> None:
        self._inner: ChunkStream = runner.generate(request)
        self._runner = runner
        self._traffic = traffic
        self._last: list[Chunk] = []
        self.ended = False
        traffic.open += 1

    def __aiter__(self) -> LeasedStream:
        return self

    async def __anext__(self) -> list[Chunk]:
        try:
            chunks = await self._inner.__anext__()
        except StopAsyncIteration:
            early = not self.ended and not self._runner.alive and not any(chunk.usage for chunk in self._last)
            self._end()
            if early:
                raise Overloaded("the model was unloaded in the middle of the answer", retry_after=1.0) from None
            raise
        except DockyardError:
            self._end()
            raise
        self._traffic.progressed = True
        self._last = chunks
        return chunks

    async def aclose(self) -> None:
        """Cancel, if it has not ended. Idempotent."""
        if not self.ended:
            self._end()
            await self._inner.aclose()

    def _end(self) -> None:
        if not self.ended:
            self.ended = True
            self._traffic.open -= 1


class Lease:
    """One caller's hold on a loaded model: it is not evicted before ``release``, which must be called once at least.

    ``generate`` may be called again after an answer has ended. Closing an answer's stream cancels it.
    """

    __slots__ = ("_on_release", "_stream", "_traffic", "begun", "released", "replica", "resident", "runner")

    def __init__(self, replica: Replica, resident: Resident, begun: float, on_release: Callable[[Lease], None]) -> None:
        self.replica = replica
        self.resident = resident
        self.runner = replica.runner
        self.begun = begun
        self.released = False
        self._traffic = replica.traffic
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
        self._stream = LeasedStream(self.runner, request, self._traffic)
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
