"""The right to use a loaded model, and the answer it gives."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from dockyard.artifact.defaults import applied
from dockyard.engines import ChunkStream
from dockyard.errors import DockyardError, EngineError, Overloaded, Preempted, WorkerCrashed
from dockyard.fleet.runner import Runner
from dockyard.types import Adapter, Chunk, LoadedModel, Request

if TYPE_CHECKING:
    from dockyard.fleet.pool import Resident
    from dockyard.fleet.replica import Replica


class Traffic:
    """The requests open on one loaded replica, and whether it is well."""

    __slots__ = ("broken", "open", "progressed")

    def __init__(self) -> None:
        self.open = 0
        self.progressed = False
        """An answer got under way since the model was loaded."""
        self.broken = 0
        """Requests in a row that the engine failed before their first chunk, though it lives."""


def preempted() -> Preempted:
    return Preempted("interactive work needs the machine", hint="ask again: batch work goes on later", retry_after=1.0)


class LeasedStream:
    """A request's answer, counted while it is open.

    An answer that stops before its last chunk because the model was unloaded ends with an error, never in silence.
    """

    __slots__ = ("_dropping", "_first", "_inner", "_last", "_lease", "_reading", "_runner", "_traffic", "ended")

    def __init__(self, lease: Lease, runner: Runner, request: Request, traffic: Traffic) -> None:
        self._inner: ChunkStream = runner.generate(request)
        self._lease = lease
        self._runner = runner
        self._traffic = traffic
        self._last: list[Chunk] = []
        self._first = True
        self._reading = False
        self.ended = False
        traffic.open += 1

    def __aiter__(self) -> LeasedStream:
        return self

    async def __anext__(self) -> list[Chunk]:
        revoked = self._lease.revoked
        try:
            if revoked is None:
                chunks = await self._inner.__anext__()
            else:
                chunks = await self._until(revoked)
        except StopAsyncIteration:
            early = not self.ended and not self._runner.alive and not any(chunk.usage for chunk in self._last)
            self._end()
            if early:
                raise Overloaded("the model was unloaded in the middle of the answer", retry_after=1.0) from None
            raise
        except DockyardError as error:
            # What is wrong with a request says nothing about the replica; neither does its death, which is seen to.
            if self._first and type(error) is EngineError:
                self._traffic.broken += 1
            self._end()
            raise
        if self._first:
            self._first = False
            self._traffic.progressed = True
            self._traffic.broken = 0
        self._last = chunks
        return chunks

    async def _until(self, revoked: asyncio.Future[None]) -> list[Chunk]:
        """The next chunks of batch work, unless its slot is taken from it."""
        if not revoked.done():
            self._reading = True
            following = asyncio.ensure_future(self._inner.__anext__())
            try:
                await asyncio.wait((following, revoked), return_when=asyncio.FIRST_COMPLETED)
                if not revoked.done():
                    return following.result()
            finally:
                self._reading = False
                if not following.done():
                    following.cancel()
                    with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration, DockyardError):
                        await following
                elif not following.cancelled():
                    following.exception()  # it has been seen
        await self.aclose()
        raise preempted()

    def drop(self) -> None:
        """Cancel it now, though nobody may be reading: whoever does is told."""
        if not self._reading and not self.ended:
            self._dropping = asyncio.ensure_future(self.aclose())

    async def aclose(self) -> None:
        """Cancel, if it has not ended. Idempotent."""
        if not self.ended:
            self._end()
            await self._inner.aclose()

    def _end(self) -> None:
        if not self.ended:
            self.ended = True
            self._traffic.open -= 1
            self._lease.finished()


class Lease:
    """One caller's hold on a loaded model: it is not evicted before ``release``, which must be called once at least.

    ``generate`` may be called again after an answer has ended. Closing an answer's stream cancels it. The slot that it
    comes with is free for others as soon as the first answer has ended.
    """

    __slots__ = (
        "_book", "_stream", "_traffic", "adapter", "begun", "charged", "key", "released", "replica", "resident",
        "revoked", "runner", "ticket",
    )  # fmt: skip

    def __init__(
        self,
        replica: Replica,
        resident: Resident,
        book: Book,
        *,
        key: str = "",
        charged: float | None = None,
        adapter: Adapter | None = None,
        batch: int | None = None,
    ) -> None:
        self.replica = replica
        self.resident = resident
        self.runner = replica.runner
        self.key = key
        self.begun = time.monotonic()
        self.charged = charged
        """Seconds on the caller's account for an interactive slot; None: it has none, or none any more."""
        self.adapter = adapter
        self.ticket = batch
        """Under which the batch lane knows it; None for interactive leases."""
        self.revoked = asyncio.get_running_loop().create_future() if batch is not None else None
        self.released = False
        self._traffic = replica.traffic
        self._book = book
        self._stream: LeasedStream | None = None

    @property
    def model(self) -> LoadedModel:
        return self.replica.row()

    def generate(self, request: Request) -> LeasedStream:
        """Begin a request. Raises WorkerCrashed if the model was lost since, and Preempted if the slot was."""
        if self.released:
            raise DockyardError(f"the lease of {self.replica.reference} was given back")
        if self.revoked is not None and self.revoked.done():
            raise preempted()
        if self.runner is None or not self.runner.alive:
            raise WorkerCrashed(
                f"the worker of {self.replica.reference} ended before the request began",
                hint="try again: it is restarted",
                retry_after=1.0,
            )
        if self.adapter is not None:
            request = msgspec.structs.replace(request, adapter=self.adapter)
        request = applied(request, self.replica.group.files.defaults)
        self._stream = LeasedStream(self, self.runner, request, self._traffic)
        return self._stream

    def finished(self) -> None:
        """An answer has ended: whoever waits for a slot may have this one."""
        if self.charged is not None or self.ticket is not None:
            self._book.finished(self)

    def revoke(self) -> None:
        """Its slot was taken for interactive work: the answer under way ends with Preempted."""
        if self.revoked is not None and not self.revoked.done():
            self.revoked.set_result(None)
            if self._stream is not None:
                self._stream.drop()

    def release(self) -> None:
        """Give the model back. An answer that is still under way is cancelled. Idempotent."""
        if not self.released:
            self.released = True
            self._book.released(self)

    @property
    def unfinished(self) -> LeasedStream | None:
        """The answer that is still under way, if any."""
        return self._stream if self._stream is not None and not self._stream.ended else None


class Book:
    """Told of what becomes of leases."""

    __slots__ = ("finished", "released")

    def __init__(self, finished: Callable[[Lease], None], released: Callable[[Lease], None]) -> None:
        self.finished = finished
        self.released = released
