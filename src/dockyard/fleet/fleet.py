"""The fleet: the schedule's decisions carried out with processes, and its doors to the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import time
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dockyard.errors import DockyardError, LoadFailed
from dockyard.fleet import logs, refusals, schedule, tuned
from dockyard.fleet.configuration import Configuration, Entry
from dockyard.fleet.last_words import trouble
from dockyard.fleet.lease import Lease
from dockyard.fleet.machine import Machine, resident
from dockyard.fleet.prepare import Names, Parts, Prepared, prepare
from dockyard.fleet.replica import Replica
from dockyard.fleet.restarts import RestartPolicy
from dockyard.fleet.runner import Runner
from dockyard.fleet.schedule import Schedule
from dockyard.hardware import Hardware
from dockyard.settings import Settings
from dockyard.types import Kind, Lane, LoadedModel, LoadOptions

if TYPE_CHECKING:
    from dockyard.artifact.store import Store

PATIENCE = 10.0
MEASURE_EVERY = 0.05


class Fleet:
    """Models loaded on this machine. All methods belong to the event loop that called ``start``.

    ``hardware`` given: that is the machine and nothing is measured. ``parts`` are the doors to files, engines and
    processes.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store | None,
        *,
        hardware: Hardware | None = None,
        parts: Parts | None = None,
        restarts: RestartPolicy | None = None,
    ) -> None:
        self.settings = settings
        self.machine = Machine(settings, hardware)
        self.schedule = Schedule(self.machine.budget, patience=min(PATIENCE, settings.queue_seconds / 4))
        self._parts = parts or Parts()
        self._policy = restarts or RestartPolicy()
        self._names = Names(store, self._parts)
        self._options: dict[str, LoadOptions] = {}
        self._configuration = Configuration(settings.home_path)
        self._replicas: dict[str, Replica] = {}
        self._routes: dict[tuple[str, Kind], Replica] = {}
        self._version: object = None
        self._preparing: dict[tuple[str, Kind | None], asyncio.Task[Prepared]] = {}
        self._tickets = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Lease]] = {}
        self._background: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._freed = asyncio.Event()
        self._measured_at = 0.0

    async def start(self) -> None:
        """Begin to unload idle models and to watch memory. Loads nothing."""
        self._spawn(self._tick())

    async def close(self, drain: float = 10.0) -> None:
        """Refuse what waits, let answers under way finish for up to ``drain`` seconds, end every worker. Idempotent."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(refusals.closing())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, drain)):
                while self._busy():
                    self._freed.clear()
                    await self._freed.wait()
        pending = [task for task in (*self._background, *self._preparing.values()) if not task.done()]
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        runners = [replica.runner for replica in self._replicas.values() if replica.runner is not None]
        await asyncio.gather(*(runner.stop(0.0) for runner in runners))
        for replica in self._replicas.values():
            self._forget(replica, replica.resident)
        self._routes.clear()

    async def lease(
        self,
        name: str,
        kind: Kind = "chat",
        *,
        lane: Lane = "interactive",
        key: str = "",
        keep_alive: float | None = None,
    ) -> Lease:
        """The right to use a model, loaded if need be. Release it, whatever happens.

        ``key`` names the caller, between whom slots are shared fairly. A lease of the batch lane waits as long as it
        takes, and its answer ends with Preempted when interactive work needs the machine. ``keep_alive`` is how long
        the model stays loaded after this use: 0 unloads it, a negative number keeps it.

        Raises ModelNotFound, UnsupportedFormat, InsufficientMemory, LoadFailed, WorkerCrashed (it crashes again and
        again), or Overloaded (waited ``queue_seconds``, or shutting down).
        """
        replica = self._routes.get((name, kind))
        if replica is not None and (held := replica.resident) is not None and replica.live and self._current(replica):
            now = time.monotonic()
            if not self._closing and self.schedule.admit(held, now):
                return Lease(replica, held, now, self._released)
        return await self._wait_for(name, kind)

    def models(self) -> list[LoadedModel]:
        """The models that are loaded, being loaded, waited for or failed."""
        return [replica.row() for replica in self._replicas.values() if replica.state != "unloaded"]

    async def preload(self, name: str, options: LoadOptions | None = None, *, pin: bool = False) -> None:
        """Load a model before it is asked for. With ``options`` it is loaded anew if it runs otherwise.

        The options hold for later loads of the model too. A pinned one is not evicted and not unloaded when idle.
        """
        files = await self._names.files(name)
        if options is not None and options != self._options.get(files.digest, LoadOptions()):
            self._options[files.digest] = options
            await self.unload(name)
        lease = await self._wait_for(name, None)
        if pin:
            self.schedule.pin(lease.replica.key)
        lease.release()

    async def configure(self, name: str, options: LoadOptions) -> LoadOptions:
        """Keep options for a model, merged into those that it has; returns the result, which later loads use.

        Raises ModelNotFound, and SettingsError if the file of configurations can't be read.
        """
        files = await self._names.files(name)
        return await asyncio.to_thread(self._configuration.set, files.digest, files.reference, options)

    async def configuration(self, name: str) -> LoadOptions | None:
        """The options kept for a model; None where there are none."""
        files = await self._names.files(name)
        return self._configuration.get(files.digest, files.reference)

    def configurations(self) -> list[Entry]:
        """All models with options of their own."""
        return self._configuration.all()

    async def unload(self, name: str | None = None, *, drain: float = 60.0) -> int:
        """Unload a model, or all; returns how many there were. Those in use finish first, for up to ``drain`` seconds.

        Raises ModelNotFound for a name that is neither loaded nor stored.
        """
        chosen = [replica for replica in self._replicas.values() if replica.resident is not None]
        if name is not None:
            found = [replica for replica in chosen if replica.answers_to(name)]
            digest = "" if found else (await self._names.files(name)).digest
            chosen = found or [replica for replica in chosen if replica.files.digest == digest]
        for replica in chosen:
            self.schedule.pin(replica.key, False)
            self.schedule.retire(replica.key)
        self._step()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain):
                await asyncio.gather(*(replica.unloaded.wait() for replica in chosen))
        await asyncio.gather(*(self._end(r) for r in chosen if r.resident is not None and r.resident.leaving))
        return len(chosen)

    def logs(self, name: str | None = None, lines: int = 200) -> list[str]:
        """The last lines that a model's workers logged; of all models, each line after its model's name.

        Reads files, and may be called in a thread.
        """
        return [prefix + line for path, prefix in self._log_files(name).items() for line in logs.tail(path, lines)]

    def follow(self, name: str | None = None) -> AsyncIterator[str]:
        """New lines as they are logged, until the iterator is closed."""
        return logs.follow(lambda: self._log_files(name))

    def _log_files(self, name: str | None) -> dict[Path, str]:
        if name is None:
            return {r.log_path: f"{r.files.reference}: " for r in list(self._replicas.values())}
        return {r.log_path: "" for r in list(self._replicas.values()) if r.answers_to(name)}

    # leases

    def _current(self, replica: Replica) -> bool:
        """Whether names still mean what they meant; else all routes are forgotten."""
        if not replica.files.weights:
            return True
        version = self._names.version()
        if version == self._version:
            return True
        self._version = version
        self._routes.clear()
        return False

    async def _wait_for(self, name: str, kind: Kind | None) -> Lease:
        if self._closing:
            raise refusals.closing()
        version = self._names.version()
        replica = self._adopt(await self._prepared(name, kind))
        if replica.resident is not None and not replica.resident.loading and not replica.live:
            await replica.unloaded.wait()  # its process is dead or about to be, and that is being seen to
        if self._closing:
            raise refusals.closing()
        now = time.monotonic()
        if (seconds := replica.health.open_for(now)) > 0 and replica.resident is None:
            raise refusals.broken(replica, seconds)
        ticket = next(self._tickets)
        future: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        self._waiting[ticket] = future
        self.schedule.ask(ticket, replica.key, replica.need, now, floor=replica.floor)
        self.schedule.back_off(replica.key, replica.health.until)
        lease: Lease | None = None
        try:
            self._step()
            async with asyncio.timeout(self.settings.queue_seconds):
                lease = await future
        except TimeoutError:
            wait = self.schedule.waiting(replica.key)[1]
            waited = self.settings.queue_seconds
            raise refusals.too_long(replica, waited, wait, self.schedule.load_seconds) from None
        finally:
            self._waiting.pop(ticket, None)
            self.schedule.cancel(ticket)
            if lease is None and future.done() and not future.cancelled() and future.exception() is None:
                future.result().release()
        replica.names.add(name)
        if kind is not None:
            if version != self._version:
                self._version = version
                self._routes.clear()
            self._routes[name, kind] = replica
        return lease

    async def _prepared(self, name: str, kind: Kind | None) -> Prepared:
        """Plan a model once for all who ask at the same time."""
        task = self._preparing.get((name, kind))
        if task is None:
            task = asyncio.ensure_future(self._prepare(name, kind))
            self._preparing[name, kind] = task
            task.add_done_callback(lambda _: self._preparing.pop((name, kind), None))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if self._closing and task.cancelled():
                raise refusals.closing() from None
            raise

    async def _prepare(self, name: str, kind: Kind | None) -> Prepared:
        files = await self._names.files(name)
        self._measure()
        # What the machine can give changes all the time; a plan that fills it to the brim would be refused soon after.
        room = min(self.schedule.room(), int(0.95 * self.schedule.ceiling))
        options = (
            self._options.get(files.digest)
            or self._configuration.get(files.digest, files.reference)
            or tuned.read(self.settings.home_path, files.digest)
            or LoadOptions()
        )
        machine = self.machine.with_room(room)
        return await asyncio.to_thread(prepare, files, options, self.settings, machine, kind, self._parts)

    def _adopt(self, prepared: Prepared) -> Replica:
        replica = self._replicas.get(prepared.key)
        if replica is None:
            short = hashlib.sha256(prepared.key.encode()).hexdigest()[:16]
            path = self.settings.home_path / "logs" / f"{short}.log"
            replica = self._replicas[prepared.key] = Replica(prepared, self.schedule, self._policy, path)
        elif replica.resident is None:
            replica.take(prepared)
        return replica

    def _released(self, lease: Lease) -> None:
        now = time.monotonic()
        self.schedule.served(now - lease.begun)
        if (stream := lease.unfinished) is not None:
            self._spawn(stream.aclose())
        changed = self.schedule.release(lease.resident, now)
        self._freed.set()
        if lease.replica.keep_alive == 0 and lease.resident.busy == 0 and not lease.resident.pinned:
            lease.resident.leaving = changed = True
        if changed:
            self._step()

    # carrying out

    def _measure(self) -> None:
        now = time.monotonic()
        if now < self._measured_at + MEASURE_EVERY:
            return
        self._measured_at = now
        ours = 0
        for replica in self._replicas.values():
            if replica.runner is not None:
                ours += replica.runner.rss() or resident(replica.runner.pid)
        self.schedule.ceiling = self.machine.ceiling(ours)

    def _step(self) -> None:
        if self._closing:
            return
        now = time.monotonic()
        if self.schedule.wanted:
            self._measure()
        for command in self.schedule.step(now):
            self._obey(command, now)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wake = self.schedule.next_wake(now)
        if wake is not None:
            self._timer = asyncio.get_running_loop().call_later(min(1.0, max(0.001, wake - now)), self._step)

    def _obey(self, command: schedule.Command, now: float) -> None:
        replica = self._replicas[command.key]
        match command:
            case schedule.Load():
                replica.begin(self.schedule.residents[command.key])
                replica.task = self._spawn(self._load(replica))
            case schedule.Evict():
                replica.task = self._spawn(self._end(replica))
            case schedule.Grant(ticket):
                if replica.resident is not None:
                    lease = Lease(replica, replica.resident, now, self._released)
                    if self._waiting[ticket].done():  # its caller has been cancelled, and does not know of it yet
                        asyncio.get_running_loop().call_soon(lease.release)
                    else:
                        self._waiting[ticket].set_result(lease)
            case schedule.Refuse(ticket, _, refusal):
                if not self._waiting[ticket].done():
                    self._waiting[ticket].set_exception(refusals.too_large(replica, refusal, self.machine))

    async def _load(self, replica: Replica) -> None:
        held = replica.resident
        try:
            engine = self._parts.engine(replica.plan.engine)
            runner = self._parts.runner(engine, replica.files, replica.plan, self.settings, replica.log_path)
            replica.runner = runner
            started = await runner.start()
        except asyncio.CancelledError:
            self._forget(replica, held)
            raise
        except Exception as error:  # noqa: BLE001 - an engine's own failure becomes an answer to those who wait
            failure = error if isinstance(error, DockyardError) else LoadFailed(f"{replica.files.reference}: {error}")
            self._forget(replica, held)
            self._names.forget()
            replica.health.failed(time.monotonic(), failure.message)
            self._fail(replica, failure)
        else:
            replica.ready(started)
            self.schedule.loaded(replica.key, started.measured, started.seconds)
            self._spawn(self._watch(replica, runner, held))
        self._step()

    async def _watch(self, replica: Replica, runner: Runner, held: schedule.Resident | None) -> None:
        """Wait for the end of a loaded model's process; if it was a crash, see to the restart."""
        ended = await runner.wait_exit()
        if ended.expected or held is None or self.schedule.residents.get(replica.key) is not held:
            return
        tail = "\n".join(trouble(ended)[-5:])
        why = f"the worker of {replica.files.reference} crashed: {ended.reason}" + (f"\n{tail}" if tail else "")
        now = time.monotonic()
        self._forget(replica, held)
        replica.restarts += 1
        replica.health.failed(now, why)
        if (seconds := replica.health.open_for(now)) > 0:
            self._fail(replica, refusals.broken(replica, seconds))
        elif not held.leaving:
            self.schedule.recall(replica.key, replica.need, now, floor=replica.floor)
            self.schedule.back_off(replica.key, replica.health.until)
        self._step()

    async def _end(self, replica: Replica) -> None:
        held, runner = replica.resident, replica.runner
        if runner is not None:
            await runner.stop(0.0)
        self._forget(replica, held)
        self._step()

    def _busy(self) -> bool:
        return any(resident.busy for resident in self.schedule.residents.values())

    def _forget(self, replica: Replica, held: schedule.Resident | None) -> None:
        """The model holds no memory any more. Does nothing if that was known, or another process has taken over."""
        if held is not None and self.schedule.residents.get(replica.key) is held:
            self.schedule.gone(replica.key)
            replica.lost()

    def _fail(self, replica: Replica, error: DockyardError) -> None:
        for ticket in self.schedule.fail(replica.key):
            if not self._waiting[ticket].done():
                self._waiting[ticket].set_exception(error)

    async def _tick(self) -> None:
        keep = self.settings.idle_seconds
        while True:
            await asyncio.sleep(min(1.0, max(0.02, keep / 4)) if keep > 0 else 1.0)
            now = time.monotonic()
            changed = False
            for replica in self._replicas.values():
                expires = replica.expires()
                if expires is not None and now >= expires:
                    self.schedule.retire(replica.key)
                    changed = True
                rss = replica.runner.rss() if replica.runner is not None else None
                changed |= rss is not None and self.schedule.measured(replica.key, rss)
            if changed:
                self._step()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task
