"""Warm sessions: one for each server and owner, started when first used, ended when idle, replaced when dead.

Each session lives in a task of its own, which opens the runner's transport and closes it again; closing kills the whole
process tree, whoever asked for it and whatever state it is in. A server that fails to start is tried again after a
pause that doubles.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from dockyard.errors import DockyardError, Overloaded
from dockyard.tools.bridge import Asking
from dockyard.tools.catalog.settle import require
from dockyard.tools.model import Runner, Server, ToolFailed
from dockyard.types import Json

log = logging.getLogger(__name__)

IDLE_SECONDS = 600.0
LIST_SECONDS = 20.0
SWEEP_SECONDS = 5.0
START_SECONDS = 60.0
PROBE_SECONDS = 5.0
"""How long a server may take to say whether it speaks the newer era, before the older one is tried."""
PING_SECONDS = 5.0
END_SECONDS = 10.0
MOST_SESSIONS = 8
"""Of one server at once, for all owners together."""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
MOST_RECORDS = 4096
"""Servers that are remembered; requests may bring servers of their own, and must not fill the memory with them."""
PATIENCE_SECONDS = 2.0
"""How long a call waits for a server that is pausing before it is told to come back."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds and counts of a pool; other values are for tests, and ``list_seconds`` for those who wait themselves."""

    idle_seconds: float = IDLE_SECONDS
    list_seconds: float = LIST_SECONDS
    """How long a listing of all servers waits for one of them, where a client waits for the answer."""
    most: int = MOST_SESSIONS
    first_pause: float = FIRST_PAUSE
    start_seconds: float = START_SECONDS
    probe_seconds: float = PROBE_SECONDS
    ping_seconds: float = PING_SECONDS


class Record(msgspec.Struct, kw_only=True):
    """What is remembered of a server over its sessions."""

    server: Server
    starts: int = 0
    calls: int = 0
    failures: int = 0
    """Starts in a row that served nothing."""
    resting: float = 0.0
    """Monotonic time before which it is not started again."""
    reason: str = ""
    era: Any = None
    asks: bool = False
    """It asks clients back, and in its era nothing says whose call a question belongs to."""


class Warm:
    """One session with a server. ``link`` is there once it is ready."""

    def __init__(self, record: Record, owner: str) -> None:
        self.record = record
        self.server = record.server
        self.owner = owner
        self.link: Any = None
        self.used = time.monotonic()
        self.calls: list[Asking] = []
        self.pinned = 0
        """Subscriptions that keep it from ending when idle."""
        self.served = 0
        self.levels: dict[str, str] = {}
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.stop = asyncio.Event()
        self.task: asyncio.Task[None] | None = None
        self.pinging: asyncio.Task[None] | None = None

    @property
    def alive(self) -> bool:
        over = self.link is not None and self.link.ended.is_set()
        return not over and not self.stop.is_set() and self.task is not None and not self.task.done()

    def free_for(self, key: str) -> bool:
        """Whether a question of its server could only be for the caller of this key."""
        return not self.record.asks or all(one.key == key or not one.key for one in self.calls)


class Pool:
    """All sessions. ``secrets`` gives a server's secret values; ``noted`` hears notifications, ``opened`` of starts."""

    def __init__(
        self,
        runner: Callable[[str], Runner],
        secrets: Callable[[Server], dict[str, str]],
        *,
        noted: Callable[[Warm, str, dict[str, Json]], None],
        opened: Callable[[Warm], None],
        limits: Limits | None = None,
    ) -> None:
        self._runner = runner
        self._secrets = secrets
        self._noted = noted
        self._opened = opened
        self._limits = limits or Limits()
        self._records: dict[bytes, Record] = {}
        self._warm: dict[bytes, list[Warm]] = {}
        self._sweeper: asyncio.Task[None] | None = None
        self._closed = False

    def record(self, server: Server) -> Record:
        key = _key(server)
        found = self._records.get(key)
        if found is None:
            if len(self._records) >= MOST_RECORDS:
                self._records = {one: kept for one, kept in self._records.items() if self._warm.get(one)}
                self._warm = {one: warm for one, warm in self._warm.items() if warm}
            found = self._records[key] = Record(server=server)
        return found

    def sessions(self, server: Server) -> list[Warm]:
        return [one for one in self._warm.get(_key(server), ()) if one.alive]

    def report(self, server: Server) -> dict[str, Json]:
        """How a server is, for people."""
        record = self.record(server)
        running = [one.link for one in self.sessions(server) if one.link is not None]
        failing = record.failures > 0 and not running
        return {
            "name": server.name,
            "kind": server.kind,
            "state": "ready" if running else "failed" if failing else "idle",
            "era": record.era,
            "version": running[0].version if running else None,
            "server": running[0].info if running else None,
            "pids": [link.pid for link in running if link.pid is not None],
            "sessions": len(running),
            "starts": record.starts,
            "calls": record.calls,
            "reason": record.reason if failing else "",
        }

    @contextlib.asynccontextmanager
    async def using(self, server: Server, owner: str, asking: Asking) -> AsyncIterator[Warm]:
        """A ready session, for one call. Raises ToolFailed, EngineUnavailable, Overloaded."""
        warm = await self._acquire(server, owner, asking)
        warm.calls.append(asking)
        warm.record.calls += 1
        try:
            await self._until_ready(warm)
            yield warm
            warm.served += 1
            warm.record.failures = 0
        finally:
            warm.calls.remove(asking)
            warm.used = time.monotonic()

    async def _acquire(self, server: Server, owner: str, asking: Asking) -> Warm:
        if self._closed:
            raise Overloaded("the tools are being shut down", retry_after=5)
        record = self.record(server)
        for one in self.sessions(server):
            if one.owner == owner and one.free_for(asking.key):
                if one.pinging is not None and not one.pinging.done():
                    await asyncio.wait({one.pinging})  # it may hang: then this call gets another
                if one.alive:
                    return one
        await self._rested(record)
        # Others may have started one while this call waited.
        for one in self.sessions(server):
            if one.owner == owner and one.free_for(asking.key):
                return one
        everyone = self.sessions(server)
        if len(everyone) >= self._limits.most:
            idle = [one for one in everyone if not one.calls and not one.pinned]
            if not idle:
                raise Overloaded(
                    f"server {server.name!r} has {len(everyone)} sessions, all at work",
                    hint="try again when a call has ended",
                    retry_after=2,
                )
            await self.end(min(idle, key=lambda one: one.used))
        return self._start(record, owner)

    async def _rested(self, record: Record) -> None:
        wait = record.resting - time.monotonic()
        if wait <= 0:
            return
        if wait > PATIENCE_SECONDS:
            raise ToolFailed(
                f"server {record.server.name!r} failed {record.failures} times: {record.reason}",
                hint=f"it is tried again in {wait:.0f} s",
                retry_after=wait,
            )
        await asyncio.sleep(wait)

    def _start(self, record: Record, owner: str) -> Warm:
        warm = Warm(record, owner)
        self._warm.setdefault(_key(record.server), []).append(warm)
        warm.task = asyncio.create_task(self._live(warm), name=f"tools:{record.server.name}")
        if self._sweeper is None or self._sweeper.done():
            self._sweeper = asyncio.create_task(self._sweep())
        return warm

    async def _until_ready(self, warm: Warm) -> None:
        if warm.ready.done():
            warm.ready.result()
            return
        await asyncio.shield(warm.ready)

    async def _live(self, warm: Warm) -> None:
        """The whole life of a session; the runner's context is entered and left in this task."""
        record = warm.record
        record.starts += 1
        error: DockyardError | None = None
        try:
            await self._serve(warm)
        except DockyardError as failed:
            error = failed
        except asyncio.CancelledError:
            error = ToolFailed(f"server {warm.server.name!r} was stopped")
        except Exception as failed:
            log.warning("server %r failed: %s", warm.server.name, type(failed).__name__, exc_info=failed)
            error = ToolFailed(f"server {warm.server.name!r} failed: {_plain(failed)}")
        finally:
            self._warm.get(_key(warm.server), [warm]).remove(warm)
            if not warm.ready.done():
                warm.ready.set_exception(error or ToolFailed(f"server {warm.server.name!r} ended while it started"))
                warm.ready.exception()  # there may be nobody left who waits
            if not warm.served and not warm.stop.is_set():
                record.failures += 1
                record.reason = error.message if error else "it ended without an answer"
                pause = self._limits.first_pause * 2 ** min(record.failures - 1, 10)
                record.resting = time.monotonic() + min(LONGEST_PAUSE, pause)
            warm.stop.set()

    async def _serve(self, warm: Warm) -> None:
        from dockyard.tools.sdk import Gone, Link

        record, server = warm.record, warm.server

        def noted(method: str, params: dict[str, Json]) -> None:
            self._noted(warm, method, params)

        async def asked(method: str, params: dict[str, Json]) -> dict[str, Json]:
            return await self._ask(warm, method, params)

        require(server)
        for attempt in range(2):
            connecting = self._runner(server.kind).connect(server, self._secrets(server))
            async with connecting as transport:
                link = Link(server.name, transport, asked=asked, noted=noted, era=record.era)
                serving = asyncio.create_task(link.serve())
                try:
                    async with asyncio.timeout(self._limits.start_seconds):
                        await asyncio.sleep(0)
                        await link.open(self._limits.probe_seconds)
                except Gone:
                    if warm.link is not None:
                        raise
                    if attempt == 0 and record.era is None:
                        record.era = "legacy"  # some old servers die of a question that they don't know
                        continue
                    record.era = None
                    raise ToolFailed(f"server {server.name!r} ended while it started") from None
                except TimeoutError:
                    raise ToolFailed(f"server {server.name!r} did not start in time") from None
                else:
                    record.era = link.era
                    warm.link = link
                    warm.ready.set_result(None)
                    self._opened(warm)
                    await _first(warm.stop, link.ended)
                    if not warm.stop.is_set():
                        raise Gone(f"server {server.name!r} ended by itself")
                finally:
                    serving.cancel()
                    await asyncio.gather(serving, return_exceptions=True)
            return

    async def _ask(self, warm: Warm, method: str, params: dict[str, Json]) -> dict[str, Json]:
        """A legacy server's question, for the client whose call it works on."""
        from dockyard.tools.sdk import Refusal

        able = [one for one in warm.calls if one.ask is not None]
        several = len({one.key for one in able}) > 1
        warm.record.asks = True
        if not able:
            raise Refusal(f"the client can't be asked for {method!r}", rpc=-32600)
        if several:
            # From now on each caller has a session of this server to itself.
            raise Refusal(f"{method!r}: several clients wait for this server; call again", rpc=-32603)
        answer = await able[-1].put(method, params)
        if not isinstance(answer, dict):
            raise Refusal(f"the client's answer to {method!r} is no object")
        return answer

    def doubt(self, warm: Warm) -> None:
        """It let a call wait too long: see whether it still answers anything, and end it if not."""
        if warm.pinging is None or warm.pinging.done():
            warm.pinging = asyncio.create_task(self._ping(warm))

    async def _ping(self, warm: Warm) -> None:
        from dockyard.tools.sdk import Refusal

        try:
            method = "ping" if warm.link.era == "legacy" else "server/discover"
            await warm.link.request(method, {}, seconds=self._limits.ping_seconds)
        except Refusal:
            return
        except ToolFailed as error:
            log.warning("server %r hangs and is ended: %s", warm.server.name, error.message)
            warm.record.reason = error.message
            await self.end(warm)

    async def end(self, warm: Warm) -> None:
        """End a session and wait until nothing of it is left."""
        warm.stop.set()
        if warm.task is None or warm.task is asyncio.current_task():
            return
        if not warm.ready.done():
            warm.task.cancel()
        _, pending = await asyncio.wait({warm.task}, timeout=END_SECONDS)
        if pending:
            warm.task.cancel()
            await asyncio.wait({warm.task}, timeout=END_SECONDS)

    async def _sweep(self) -> None:
        while any(self._warm.values()):
            await asyncio.sleep(min(SWEEP_SECONDS, self._limits.idle_seconds / 2))
            now = time.monotonic()
            every = [one for warm in self._warm.values() for one in warm]
            for one in every:
                if one.alive and not one.calls and not one.pinned and now - one.used > self._limits.idle_seconds:
                    one.stop.set()

    async def close(self) -> None:
        """End all of them; no new ones start."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        every = [one for warm in self._warm.values() for one in warm]
        await asyncio.gather(*(self.end(one) for one in every))


def _key(server: Server) -> bytes:
    return msgspec.json.encode(server)


def _plain(error: BaseException) -> str:
    """The innermost reason of a task group's failure."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"[:300]


async def _first(*events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for one in waiting:
            one.cancel()
