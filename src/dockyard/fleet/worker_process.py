"""A model in a process of its own, seen from the gateway: spawn, talk, notice its death, end it for certain."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import cast

from dockyard.engines import LoadPlan
from dockyard.engines.frames import (
    Cancel,
    Generate,
    Heartbeat,
    Load,
    Ready,
    Step,
    Stop,
    ToGateway,
    ToWorker,
    encode,
    gateway_frames,
)
from dockyard.engines.launch import launch, take
from dockyard.engines.scratch import Scratch
from dockyard.errors import DockyardError, LoadFailed, Overloaded
from dockyard.fleet.last_words import crash, explained, how_it_ended, load_failure, tail
from dockyard.fleet.runner import Exit, Started
from dockyard.types import Chunk, ModelFiles, Request

STOP_SECONDS = 6.0
"""How long a worker may take to leave when asked, before it is killed."""


class WorkerProcess:
    """A ``Runner`` around one worker process. See ``dockyard.engines.worker`` for the other side.

    A worker that has loaded and then says nothing for ``patience`` seconds counts as hung and is killed; native code
    may hold Python's lock for a while, so patience is long. While it loads only ``load_seconds`` counts. Time in which
    this process stood still itself (stopped, frozen, swapped out) does not count: what was said then is unread yet.
    """

    def __init__(
        self,
        files: ModelFiles,
        plan: LoadPlan,
        log_path: Path,
        *,
        load_seconds: float = 300.0,
        heartbeat: float = 2.0,
        patience: float = 60.0,
        begun: Callable[[int], None] | None = None,
    ) -> None:
        self._begun = begun
        self.log_path: Path | None = log_path
        self._log = log_path
        self._files = files
        self._plan = plan
        self._load_seconds = load_seconds
        self._heartbeat = heartbeat
        self._patience = patience
        self._process: subprocess.Popen[bytes] | None = None
        self._link: _Link | None = None
        self._ready: asyncio.Future[Ready] | None = None
        self._open: dict[int, _Stream] = {}
        self._numbers = itertools.count(1)
        self._rss: int | None = None
        self._alive = False
        self._expected = False
        self._hung = ""
        self._scratch: Scratch | None = None
        self._log_start = 0
        self._ended = asyncio.Event()
        self._idle = asyncio.Event()
        self._exit: Exit | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def alive(self) -> bool:
        return self._alive

    def rss(self) -> int | None:
        return self._rss

    async def start(self) -> Started:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        self._ready = loop.create_future()
        await self._spawn()
        try:
            async with asyncio.timeout(self._load_seconds):
                ready = await self._ready
        except LoadFailed as error:
            await self._kill()
            raise explained(error, tail(self._log, start=self._log_start)) from None
        except TimeoutError:
            await self._kill()
            raise LoadFailed(
                f"{self._files.reference} did not load within {self._load_seconds:g} s",
                hint="a larger `load_seconds` gives it more time",
            ) from None
        except BaseException:
            await self._kill()
            raise
        self._rss = ready.rss
        self._alive = True
        self._keep(self._watch_heartbeat())
        return Started(plan=ready.plan, measured=ready.rss, seconds=loop.time() - begun)

    def generate(self, request: Request) -> _Stream:
        if not self._alive:
            if self._exit is not None and not self._exit.expected:
                raise crash(self._files.reference, self._exit)
            raise Overloaded(f"{self._files.reference} is being unloaded", retry_after=1.0)
        stream = _Stream(self, next(self._numbers))
        self._send(Generate(stream.number, request))
        self._open[stream.number] = stream
        return stream

    async def wait_exit(self) -> Exit:
        await self._ended.wait()
        return cast("Exit", self._exit)

    async def stop(self, drain: float = 0.0) -> None:
        if self._process is None:
            return
        self._alive = False
        self._expected = True
        if self._open and drain > 0:
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(drain):
                    await self._idle.wait()
        self._send(Stop())
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._ended.wait()
        except TimeoutError:
            await self._kill()

    async def _spawn(self) -> None:
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        order = Load(self._files, self._plan, self._heartbeat)
        try:
            spare = take()
            if spare is not None:
                order = Load(self._files, self._plan, self._heartbeat, str(self._log))
            self._process, ours, self._scratch = spare or launch(self._log)
        except OSError as error:
            raise LoadFailed(f"no worker process can be started: {error}") from error
        if self._begun is not None:
            self._begun(self._process.pid)
        try:
            # At once: the loop may be busy for a while with what the rest of the process has to import.
            with contextlib.suppress(OSError):  # a worker that is dead already is noticed below
                ours.sendall(encode(order))
            _, self._link = await asyncio.get_running_loop().create_unix_connection(lambda: _Link(self), sock=ours)
        except BaseException:
            self._process.kill()
            self._process.wait()
            ours.close()
            self._sweep()
            raise

    def _send(self, message: ToWorker) -> None:
        if self._link is not None and not self._ended.is_set():
            self._link.write(encode(message))

    def receive(self, message: ToGateway) -> None:
        """Called by the link for each message of the worker."""
        if isinstance(message, Step):
            streams = self._open
            for number, chunk in message.chunks:
                if (stream := streams.get(number)) is not None:
                    stream.push(chunk)
            for number, failure in message.ended:
                if (stream := streams.get(number)) is not None:
                    self._forget(number)
                    stream.end(failure.error() if failure is not None else None)
        elif isinstance(message, Heartbeat):
            self._rss = message.rss
        elif self._ready is not None and not self._ready.done():
            if isinstance(message, Ready):
                self._ready.set_result(message)
            else:
                self._ready.set_exception(message.failure.error())

    def lost(self) -> None:
        """Called by the link when the socket has closed: the worker is dead or about to be."""
        self._alive = False
        self._keep(self._reap())

    def cancel(self, number: int) -> None:
        """Called by a stream that nobody wants any more."""
        if number in self._open:
            self._forget(number)
            self._send(Cancel(number))

    def _forget(self, number: int) -> None:
        del self._open[number]
        if not self._open:
            self._idle.set()

    def _keep(self, work: object) -> None:
        task = asyncio.ensure_future(cast("asyncio.Future[None]", work))
        self._tasks.add(cast("asyncio.Task[None]", task))
        task.add_done_callback(lambda done: self._tasks.discard(cast("asyncio.Task[None]", done)))

    async def _watch_heartbeat(self) -> None:
        loop = asyncio.get_running_loop()
        while not self._ended.is_set() and self._link is not None:
            silent = loop.time() - self._link.heard
            if silent >= self._patience:
                self._hung = f"hung: no sign of life for {silent:.0f} s, so it was killed"
                await self._kill()
                return
            began, pause = loop.time(), min(self._heartbeat, self._patience - silent)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._ended.wait()
            now = loop.time()
            self._link.heard = min(now, self._link.heard + max(0.0, now - began - pause))

    async def _kill(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        await self._ended.wait()

    async def _reap(self) -> None:
        """Wait for the process itself (it closed its socket, so it is ending), and tell everybody how it ended."""
        process = cast("subprocess.Popen[bytes]", self._process)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + STOP_SECONDS
        pause = 0.001
        while (status := process.poll()) is None:
            if loop.time() > deadline:
                process.kill()
            await asyncio.sleep(pause)
            pause = min(0.05, pause * 2)
        self._sweep()
        reason = self._hung or ("stopped" if self._expected else how_it_ended(status))
        self._exit = Exit(
            expected=self._expected, reason=reason, log_tail=tuple(tail(self._log, start=self._log_start))
        )
        self._ended.set()
        error = Overloaded(f"{self._files.reference} was unloaded", retry_after=1.0) if self._expected else None
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(load_failure(self._files.reference, self._exit))
        for number, stream in list(self._open.items()):
            self._forget(number)
            stream.end(error or crash(self._files.reference, self._exit))

    def _sweep(self) -> None:
        """A worker that was killed could not tidy up its temporary files: they are all in one folder."""
        if self._scratch is not None:
            self._scratch.remove()


class _Stream:
    """One answer under way; a ``ChunkStream``."""

    def __init__(self, worker: WorkerProcess, number: int) -> None:
        self.number = number
        self._worker = worker
        self._chunks: list[Chunk] = []
        self._waiter: asyncio.Future[None] | None = None
        self._over = False
        self._error: DockyardError | None = None

    def push(self, chunk: Chunk) -> None:
        self._chunks.append(chunk)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self, error: DockyardError | None) -> None:
        self._over = True
        self._error = error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def __aiter__(self) -> _Stream:
        return self

    async def __anext__(self) -> list[Chunk]:
        if not self._chunks and not self._over:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            except asyncio.CancelledError:
                await self.aclose()
                raise
            finally:
                self._waiter = None
        if self._chunks:
            chunks, self._chunks = self._chunks, []
            return chunks
        error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        if not self._over:
            self._worker.cancel(self.number)
            self._chunks = []
            self.end(None)


class _Link(asyncio.Protocol):
    """The gateway's end of the socket."""

    def __init__(self, worker: WorkerProcess) -> None:
        self._worker = worker
        self._frames = gateway_frames()
        self._transport: asyncio.WriteTransport | None = None
        self.heard = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)
        self._loop = asyncio.get_running_loop()
        self.heard = self._loop.time()

    def write(self, frame: bytearray) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    def data_received(self, data: bytes) -> None:
        self.heard = self._loop.time()
        try:
            messages = self._frames.feed(data)
        except DockyardError:
            if self._transport is not None:
                self._transport.abort()
            return
        for message in messages:
            self._worker.receive(message)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - how it ended is the process's to tell
        self._worker.lost()
