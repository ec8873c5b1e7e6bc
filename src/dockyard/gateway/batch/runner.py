"""Drives all batches of one home: checks them, runs their lines in what interactive work leaves, writes their files.

A line that is finished is recorded before it counts as done, so that a crash at any moment costs at most the lines that
were under way. Only one process of a home runs batches: the others wait for its lock.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path

import msgspec

from dockyard.errors import (
    DockyardError,
    EngineError,
    EngineUnavailable,
    InsufficientMemory,
    Overloaded,
    Preempted,
    RateLimited,
)
from dockyard.gateway.batch import lines as wording
from dockyard.gateway.batch.lines import Checked, Line
from dockyard.gateway.batch.share import Share, pick, room
from dockyard.gateway.batch.work import ENDING, Work, expired, finish
from dockyard.state.batches import Batch, Batches, Finished
from dockyard.types import LoadedModel, Principal

log = logging.getLogger(__name__)

LOCK_SECONDS = 2.0
LOOK_SECONDS = 1.0
"""How often batches are looked at for having expired or been cancelled by another process."""
IDLE_SECONDS = 5.0
"""How often it is looked whether another process made one."""
GATHER_SECONDS = 0.02
"""Lines that end within this time are recorded together."""
RECORD_SECONDS = 10.0
"""Longest that the end of the server waits for a database that does not answer."""
TRIES = 3
"""Times that a line is tried whose worker crashed or whose model could not be loaded."""


class Answered(msgspec.Struct, frozen=True):
    """A line's answer: the request's id, and the body that the endpoint would have sent."""

    request: str
    body: bytes


class Doors(msgspec.Struct, frozen=True, kw_only=True):
    """What the runner asks of the rest of the server.

    ``ask`` answers a body sent to an endpoint, for a principal, on the batch lane; ``principal`` finds one by name and
    raises Unauthorized if there is none any more; ``known`` raises ModelNotFound for a model that could not be asked;
    ``told`` makes a failed answer's body; ``models`` are those that are loaded; ``stopping``: begin nothing more.
    """

    ask: Callable[[str, bytes, Principal], Awaitable[Answered]]
    principal: Callable[[str], Awaitable[Principal]]
    known: Callable[[str, str], Awaitable[None]]
    told: Callable[[DockyardError], bytes]
    models: Callable[[], Iterable[LoadedModel]]
    stopping: Callable[[], bool]


class Runner:
    """``run`` goes on until it is cancelled; ``wake`` tells it that a batch was made or cancelled."""

    def __init__(self, batches: Batches, doors: Doors, *, lock: Path | None, most: int, longest: int) -> None:
        self._batches = batches
        self._doors = doors
        self._lock = lock
        self._most = most
        self._longest = longest
        self._works: dict[str, Work] = {}
        self._finished: list[tuple[Work, Finished]] = []
        self._recording: asyncio.Task[None] | None = None
        self._awake = asyncio.Event()
        self._news = True
        self._pause = 0.0

    def wake(self) -> None:
        self._news = True
        self._awake.set()

    async def run(self) -> None:
        if self._lock is None:
            await self._drive()
            return
        from filelock import FileLock, Timeout

        self._lock.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self._lock)
        while True:
            try:
                lock.acquire(timeout=0)
                break
            except Timeout:
                await asyncio.sleep(LOCK_SECONDS)
        try:
            await self._drive()
        finally:
            lock.release()

    async def _drive(self) -> None:
        look = 0.0
        try:
            while True:
                self._awake.clear()
                try:
                    if self._news or time.monotonic() >= look or any(work.over for work in self._works.values()):
                        self._news = False
                        await self._look()
                        look = time.monotonic() + (LOOK_SECONDS if self._works else IDLE_SECONDS)
                    self._begin()
                except Exception:  # the database may be busy or away; the batches are still there when it is back
                    log.exception("batches stand still for a moment")
                    self._pause = look = time.monotonic() + LOOK_SECONDS
                await self._wait(look)
        finally:
            tasks = [task for work in self._works.values() for task in work.running]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._recorded()

    async def _wait(self, look: float) -> None:
        """Until there is something to do."""
        now = time.monotonic()
        until = min(look, self._pause) if self._pause > now else look
        try:
            async with asyncio.timeout(max(0.01, until - now)):
                await self._awake.wait()
        except TimeoutError:
            pass

    async def _look(self) -> None:
        """Take up batches that are new, stop those that have to end, and finish those that are over."""
        for batch in await self._batches.open():
            work = self._works.get(batch.id)
            if work is None:
                work = await self._take(batch)
                if work is None:
                    continue
                self._works[batch.id] = work
            if work.stopped is None and batch.status == "cancelling":
                work.stop("cancelled")
            elif work.stopped is None and expired(batch) and not work.over:
                work.stop("expired")
        for id, work in list(self._works.items()):
            if work.over and not self._doors.stopping():
                await self._recorded()
                await finish(self._batches, work)
                del self._works[id]

    async def _take(self, batch: Batch) -> Work | None:
        """A batch's lines, checked; None if they are no good, which its status then tells."""
        path = self._batches.files.path(batch.input)
        try:
            found = await asyncio.to_thread(wording.check, path, batch.endpoint, self._longest)
        except OSError as error:
            found = Checked(errors=[wording.problem("file_unreadable", f"the input can't be read: {error.strerror}")])
        if batch.status == "validating":
            for model, line in found.models.items() if not found.errors else ():
                try:
                    await self._doors.known(batch.endpoint, model)
                except DockyardError as error:
                    text = f"{error.message}; {error.hint}" if error.hint else error.message
                    found.errors.append(wording.problem(error.code, text, line=line, param="body.model"))
        now = int(time.time())
        if found.errors:
            await self._batches.change(
                batch.id, ("validating", *ENDING), "failed", times={"failed_at": now}, errors=found.errors
            )
            return None
        total, model = len(found.lines), next(iter(found.models))
        times = {"in_progress_at": now}
        await self._batches.change(batch.id, ("validating",), "in_progress", total=total, model=model, times=times)
        # It may have been cancelled before its lines were counted.
        await self._batches.change(batch.id, ("cancelling",), "cancelling", total=total, model=model)
        return Work(await self._batches.get(batch.id), found.lines, await self._batches.done(batch.id))

    def _begin(self) -> None:
        """Start as many lines as there is room for, fairly."""
        if self._doors.stopping() or time.monotonic() < self._pause:
            return
        under_way = sum(len(work.running) for work in self._works.values())
        for _ in range(room(self._doors.models(), self._most) - under_way):
            able = [work for work in self._works.values() if work.waiting and work.stopped is None]
            place = pick([Share(work.batch.key, len(work.running), work.started) for work in able])
            if place is None:
                return
            work = able[place]
            line = work.waiting.popleft()
            work.started = time.monotonic()
            task = asyncio.get_running_loop().create_task(self._run(work, line))
            work.running[task] = line
            task.add_done_callback(partial(self._ended, work))

    def _ended(self, work: Work, task: asyncio.Task[None]) -> None:
        work.running.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a line of %s was lost on its way and is tried again", work.batch.id, exc_info=error)
        self._awake.set()

    async def _run(self, work: Work, line: Line) -> None:
        """Answer one line and record it, or put it back."""
        batch, doors = work.batch, self._doors
        try:
            text = await asyncio.to_thread(work.text, self._batches.files, line)
            answer = await doors.ask(batch.endpoint, wording.body_of(text), await doors.principal(batch.key))
            ok, body = True, wording.answered(batch.id, line, 200, answer.request, answer.body)
        except asyncio.CancelledError:
            work.waiting.appendleft(line)
            raise
        except DockyardError as error:
            if self._again(work, line, error):
                work.waiting.appendleft(line)
                return
            ok, body = False, wording.answered(batch.id, line, error.status, "", doors.told(error))
        except Exception:
            log.exception("line %d of %s failed", line.number, batch.id)
            failed = DockyardError("the server failed on this request", hint="its log says why")
            ok, body = False, wording.answered(batch.id, line, failed.status, "", doors.told(failed))
        await self._record(work, Finished(batch=batch.id, line=line.number, ok=ok, body=body))

    def _again(self, work: Work, line: Line, error: DockyardError) -> bool:
        """Whether a failed line is to be tried again; what is no fault of the line's costs it no try."""
        now = time.monotonic()
        if isinstance(error, Preempted):
            return True
        if isinstance(error, Overloaded | RateLimited) and not isinstance(error, InsufficientMemory):
            self._pause = now + (error.retry_after or 1.0)
            return True
        if isinstance(error, EngineError | InsufficientMemory) and not isinstance(error, EngineUnavailable):
            tries = work.tries[line.number] = work.tries.get(line.number, 0) + 1
            self._pause = now + (error.retry_after or 1.0)
            return tries < TRIES
        return False

    async def _record(self, work: Work, finished: Finished) -> None:
        """Keep a line for good; returns when it is."""
        self._finished.append((work, finished))
        if self._recording is None or self._recording.done():
            self._recording = asyncio.get_running_loop().create_task(self._write())
        await asyncio.shield(self._recording)

    async def _recorded(self) -> None:
        """Wait until what is finished has been kept."""
        if self._recording is not None:
            await asyncio.wait({self._recording}, timeout=RECORD_SECONDS)

    async def _write(self) -> None:
        await asyncio.sleep(GATHER_SECONDS)
        while self._finished:
            some, self._finished = self._finished, []
            while True:
                try:
                    await self._batches.record([finished for _, finished in some])
                    break
                except Exception:  # answers must not be lost because the database is away
                    log.exception("%d finished lines could not be recorded yet", len(some))
                    await asyncio.sleep(LOOK_SECONDS)
            for work, finished in some:
                work.done.add(finished.line)
