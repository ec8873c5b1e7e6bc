"""Work in a thread whose news or bytes are an answer's body, and bodies that a thread reads as a file."""

from __future__ import annotations

import asyncio
import contextlib
import io
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, BinaryIO, Generic, TypeVar, cast

from dockyard.api._runner_wire import Lines
from dockyard.errors import Cancelled, DockyardError, InvalidRequest
from dockyard.types import OnProgress, Progress

T = TypeVar("T")

PIECE = 1 << 20
WAITING = 8
"""Pieces of a body that may wait for the other side."""


async def lines(work: Callable[[OnProgress], T], told: Lines, done: Callable[[T], str]) -> AsyncGenerator[bytes, None]:
    """Run ``work`` in a thread; its progress a line each, then ``done`` of its result.

    What fails before the first line is raised, so that the answer can have its status; later it is a line. Closing the
    generator cancels the work.
    """
    loop, news, changed, gone, begun = asyncio.get_running_loop(), dict[str, Progress](), asyncio.Event(), False, False

    def tell(progress: Progress) -> None:
        if gone:
            raise Cancelled("whoever asked for it hung up")
        loop.call_soon_threadsafe(note, progress)

    def note(progress: Progress) -> None:
        news[progress.item or progress.message] = progress
        changed.set()

    task = asyncio.ensure_future(asyncio.to_thread(work, tell))
    task.add_done_callback(lambda _: changed.set())
    try:
        while not task.done() or news:
            await changed.wait()
            changed.clear()
            waiting = b"".join([told.progress(one) for one in news.values()])
            news.clear()
            if waiting:
                begun = True
                yield waiting
            if task.done() and not news:
                break
        yield told.success(done(task.result()))
    except DockyardError as error:
        if not begun:
            raise
        yield told.failure(error)
    finally:
        gone = True
        if not task.done():
            task.add_done_callback(lambda ended: None if ended.cancelled() else ended.exception())


async def after_first(source: AsyncGenerator[T, None]) -> AsyncIterator[T]:
    """The same items; by the time this returns the first is there, and whatever kept it from coming was raised."""
    first = await anext(source)

    async def all_of_it() -> AsyncGenerator[T, None]:
        async with contextlib.aclosing(source):
            yield first
            async for item in source:
                yield item

    return all_of_it()


class Sink(io.RawIOBase):
    """A file that a thread writes and the event loop reads, piece by piece."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[bytes] = asyncio.Queue(WAITING)
        self._gone = False

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self._gone:
            raise Cancelled("whoever asked for it hung up")
        asyncio.run_coroutine_threadsafe(self._queue.put(bytes(data)), self._loop).result()
        return len(data)

    async def pieces(self, work: Callable[[BinaryIO], object]) -> AsyncGenerator[bytes, None]:
        """What ``work`` writes when it is run in a thread. Raises what it raises."""

        def run() -> None:
            buffered = io.BufferedWriter(self, PIECE)
            work(buffered)
            buffered.flush()

        task = asyncio.ensure_future(asyncio.to_thread(run))
        task.add_done_callback(lambda _: self._wake())
        try:
            while not task.done() or not self._queue.empty():
                if piece := await self._queue.get():
                    yield piece
            task.result()
        finally:
            self._gone = True
            while not self._queue.empty():
                self._queue.get_nowait()
            if not task.done():
                task.add_done_callback(lambda ended: None if ended.cancelled() else ended.exception())

    def _wake(self) -> None:
        with contextlib.suppress(asyncio.QueueFull):  # a full queue wakes its reader itself
            self._queue.put_nowait(b"")


class Body(io.RawIOBase, Generic[T]):
    """A request's body as a file for a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[bytes | Exception] = asyncio.Queue(WAITING)
        self._rest = memoryview(b"")
        self._over = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._rest and not self._over:
            found = asyncio.run_coroutine_threadsafe(self._queue.get(), self._loop).result()
            if isinstance(found, Exception):
                raise found
            self._rest, self._over = memoryview(found), not found
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    async def feed(self, parts: AsyncIterator[bytes], work: Callable[[BinaryIO], Awaitable[T] | T]) -> T:
        """Run ``work`` in a thread on the body; returns what it returns. A body that breaks off is an error in it."""
        reader = cast("BinaryIO", io.BufferedReader(self, PIECE))
        task: asyncio.Future[Any] = asyncio.ensure_future(asyncio.to_thread(work, reader))
        try:
            async for part in parts:
                if task.done():
                    break
                if part:
                    await self._put(part, task)
            await self._put(b"", task)
        except BaseException as error:
            await self._put(InvalidRequest(f"the body broke off: {type(error).__name__}"), task)
            with contextlib.suppress(DockyardError):
                await task
            raise
        return cast("T", await task)

    async def _put(self, part: bytes | Exception, task: asyncio.Future[Any]) -> None:
        putting = asyncio.ensure_future(self._queue.put(part))
        await asyncio.wait((putting, task), return_when=asyncio.FIRST_COMPLETED)
        if not putting.done():
            putting.cancel()
