"""The fleet's doors to the gateway: leases, preloads, configuration, and what there is to say of models."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dockyard import stack as stacks
from dockyard.errors import DockyardError
from dockyard.fleet import logs, refusals, tuned
from dockyard.fleet.configuration import Configuration, Entry
from dockyard.fleet.crew import Crew, Waiting
from dockyard.fleet.explain import Explanation, explained
from dockyard.fleet.lease import Lease
from dockyard.fleet.machine import Machine
from dockyard.fleet.names import Named, Names
from dockyard.fleet.pool import Pool
from dockyard.fleet.prepare import Parts, Prepared, mode_of, prepare
from dockyard.fleet.replica import Group
from dockyard.fleet.restarts import RestartPolicy
from dockyard.fleet.schedule import Schedule
from dockyard.hardware import Hardware
from dockyard.settings import Settings
from dockyard.types import Adapter, Kind, Lane, LoadedModel, LoadOptions, Mode

if TYPE_CHECKING:
    from dockyard.artifact.store import Store

PATIENCE = 10.0
GATHER_SECONDS = 0.003


class Route(msgspec.Struct, frozen=True):
    """Where requests of one name and kind go."""

    group: Group
    adapter: Adapter | None


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
        patience = min(PATIENCE, settings.queue_seconds / 4)
        self.schedule = Schedule(self.machine.budget, patience=patience, quiet=settings.batch_quiet_seconds)
        self._parts = parts or Parts()
        self._names = Names(store, self._parts, settings)
        policy = restarts or RestartPolicy()
        self._crew = Crew(settings, self.machine, self.schedule, self._parts, policy, self._names.forget)
        self._options: dict[tuple[str, Mode], LoadOptions] = {}
        self._said = stacks.of(settings).options()
        self._configuration = Configuration(settings.home_path)
        self._routes: dict[tuple[str, Kind], Route] = {}
        self._version: object = None
        self._preparing: dict[tuple[str, Kind | Mode | None], asyncio.Task[tuple[Named, Prepared]]] = {}

    async def start(self) -> None:
        """Begin to unload idle models and to watch memory. Loads nothing."""
        self._crew.spawn(self._crew.tick())

    async def close(self, drain: float = 10.0) -> None:
        """Refuse what waits, let answers under way finish for up to ``drain`` seconds, end every worker. Idempotent."""
        crew = self._crew
        crew.halt()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, drain)):
                while crew.busy:
                    crew.freed.clear()
                    await crew.freed.wait()
        await crew.stop(list(self._preparing.values()))
        self._routes.clear()

    async def lease(
        self,
        name: str,
        kind: Kind = "chat",
        *,
        lane: Lane = "interactive",
        key: str = "",
        keep_alive: float | None = None,
        unpin: bool = True,
    ) -> Lease:
        """The right to use a model, loaded if need be, and a slot of it. Release it, whatever happens.

        ``key`` names the caller: those who wait share slots and loads fairly between keys. A lease of the batch lane
        waits as long as it takes, and its answer ends with Preempted when interactive work needs the machine.
        ``keep_alive`` is how long the model stays loaded after its last use, from now on: 0 unloads it, a negative
        number pins it. Where ``unpin`` is False it changes nothing about a model that is pinned.

        Raises ModelNotFound, UnsupportedFormat, InsufficientMemory, LoadFailed, WorkerCrashed (it crashes again and
        again), or Overloaded (waited ``queue_seconds``, or shutting down).
        """
        route = self._routes.get((name, kind))
        if route is not None and lane == "interactive" and not self._crew.closing and self._current(route.group):
            pool = route.group.pool
            if pool.undecided:
                await _gather(pool)
            held = self.schedule.admit(pool, key, time.monotonic())
            pool.company = False
            if held is not None:
                replica = self._crew.replicas[held.key]
                if self.schedule.lanes.yielded:
                    self._crew.step()
                lease = Lease(replica, held, self._crew.book, key=key, charged=pool.seconds, adapter=route.adapter)
                if replica.live:
                    if keep_alive is not None:
                        route.group.kept(keep_alive, unpin=unpin)
                    return lease
                lease.release()
        return await self._wait_for(name, kind, lane, key, keep_alive, unpin=unpin)

    async def explain(self, name: str, kind: Kind = "chat") -> Explanation:
        """What a request for a model would meet now: engine, plan, memory, who would leave for it. Loads nothing.

        Raises ModelNotFound, and what the chooser and the planning engine raise.
        """
        named, prepared = await self._prepared(name, kind)
        machine = self.machine.with_room(self.schedule.loads.room())
        refused = await asyncio.to_thread(self._parts.survey, named.files, self.settings, machine, kind)
        return explained(name, kind, named, prepared, refused, self._crew)

    def identity(self, name: str) -> str:
        """What answers by this name depend on, in a word: digests of model and adapter. May read the store."""
        return self._names.identity(name)

    def models(self) -> list[LoadedModel]:
        """The replicas that are loaded, being loaded, waited for or failed."""
        return [replica.row() for replica in self._crew.replicas.values() if replica.state != "unloaded"]

    async def preload(self, name: str, options: LoadOptions | None = None, *, pin: bool = False) -> LoadedModel:
        """Load a model before it is asked for. With ``options`` it is loaded anew if it runs otherwise.

        The options hold for later loads of the model too, unless it can't be loaded with them: where no plan can be
        made with them it stays as it is. A pinned one is not evicted and not unloaded when idle.
        """
        named = await self._names.find(name)
        mode: Mode = options.mode if options is not None else "generate"
        key = (named.files.digest, mode)
        before = self._options.get(key)
        if options is not None and options != (before or LoadOptions(mode=mode)):
            self._crew.measure()
            machine = self.machine.with_room(self.schedule.loads.ceiling)
            kind: Kind | None = None if mode == "generate" else mode
            await asyncio.to_thread(prepare, named.files, options, self.settings, machine, kind, self._parts)
            self._options[key] = options
            await self.unload(name, mode=mode)
        try:
            lease = await self._wait_for(name, None if mode == "generate" else mode, slot=False)
        except DockyardError:
            self._options.pop(key, None)
            if before is not None:
                self._options[key] = before
            raise
        if pin:
            for replica in lease.replica.group.replicas:
                self.schedule.loads.pin(replica)
        lease.release()
        return lease.model

    async def configure(self, name: str, options: LoadOptions) -> LoadOptions:
        """Keep options for a model in ``options.mode``, merged into those that it has; later loads use the result.

        Raises ModelNotFound, and SettingsError if the file of configurations can't be read.
        """
        files = (await self._names.find(name)).files
        self._options.pop((files.digest, options.mode), None)
        return await asyncio.to_thread(self._configuration.set, files.digest, files.reference, options)

    async def configuration(self, name: str, mode: Mode = "generate") -> LoadOptions | None:
        """The options kept for a model; None where there are none."""
        files = (await self._names.find(name)).files
        return self._configuration.get(files.digest, files.reference, mode)

    def configurations(self) -> list[Entry]:
        """All models with options of their own."""
        return self._configuration.all()

    async def unload(self, name: str | None = None, *, drain: float = 60.0, mode: Mode | None = None) -> int:
        """Unload a model, or all; returns how many there were. Those in use finish first, for up to ``drain`` seconds.

        ``mode`` given: only as it is loaded for that. Raises ModelNotFound for a name neither loaded nor stored.
        """
        groups = [group for group in self._crew.groups.values() if group.loaded]
        if name is not None:
            found = [group for group in groups if group.answers_to(name)]
            digest = "" if found else (await self._names.find(name)).files.digest
            groups = found or [group for group in groups if group.files.digest == digest]
        groups = [group for group in groups if mode is None or group.mode == mode]
        chosen = [replica for group in groups for replica in group.replicas.values() if replica.resident is not None]
        for replica in chosen:
            self.schedule.loads.pin(replica.key, False)
            self.schedule.loads.retire(replica.key)
        self._crew.step()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain):
                await asyncio.gather(*(replica.unloaded.wait() for replica in chosen))
        ends = [self._crew.end(r) for r in chosen if r.resident is not None and r.resident.leaving]
        await asyncio.gather(*ends)
        return len(groups)

    def logs(self, name: str | None = None, lines: int = 200) -> list[str]:
        """The last lines that a model's workers logged; of all models, each line after its model's name.

        Reads files, and may be called in a thread.
        """
        return [prefix + line for path, prefix in self._log_files(name).items() for line in logs.tail(path, lines)]

    def follow(self, name: str | None = None) -> AsyncIterator[str]:
        """New lines as they are logged, until the iterator is closed."""
        return logs.follow(lambda: self._log_files(name))

    def _log_files(self, name: str | None) -> dict[Path, str]:
        replicas = list(self._crew.replicas.values())
        if name is None:
            return {replica.log_path: f"{replica.reference}: " for replica in replicas}
        return {replica.log_path: "" for replica in replicas if replica.group.answers_to(name)}

    # leases

    def _current(self, group: Group) -> bool:
        """Whether names still mean what they meant; else all routes are forgotten."""
        if not group.files.weights:
            return True
        version = self._names.version()
        if version == self._version:
            return True
        self._version = version
        self._routes.clear()
        return False

    async def _wait_for(
        self,
        name: str,
        kind: Kind | None,
        lane: Lane = "interactive",
        key: str = "",
        keep_alive: float | None = None,
        *,
        unpin: bool = True,
        slot: bool = True,
    ) -> Lease:
        crew, schedule = self._crew, self.schedule
        if crew.closing:
            raise refusals.closing()
        version = self._names.version()
        group, adapter = await self._group(name, kind)
        for replica in group.replicas.values():
            if replica.resident is not None and not replica.resident.loading and not replica.live:
                await replica.unloaded.wait()  # its process is dead or about to be, and that is being seen to
            elif adapter is not None and not replica.knows(adapter):
                schedule.loads.retire(replica.key)
        if crew.closing:
            raise refusals.closing()
        now = time.monotonic()
        self._refuse_broken(group, now)
        if keep_alive is not None:
            group.kept(keep_alive, unpin=unpin)
        ticket = next(crew.tickets)
        waiting = crew.waiting[ticket] = Waiting(group, key, lane, adapter)
        if slot:
            schedule.ask(ticket, group.pool, now, key=key, lane=lane)
        else:
            schedule.visit(ticket, group.pool, now)
        lease: Lease | None = None
        try:
            crew.step()
            async with asyncio.timeout(self.settings.queue_seconds if lane == "interactive" else None):
                lease = await waiting.future
        except TimeoutError:
            outlook = schedule.outlook(group.pool, ticket)
            raise refusals.too_long(group, self.settings.queue_seconds, outlook) from None
        finally:
            crew.waiting.pop(ticket, None)
            schedule.cancel(ticket, time.monotonic())
            future = waiting.future
            if lease is None and future.done() and not future.cancelled() and future.exception() is None:
                future.result().release()
        group.names.add(name)
        if kind is not None:
            if version != self._version:
                self._version = version
                self._routes.clear()
            self._routes[name, kind] = Route(group, adapter)
        return lease

    async def _group(self, name: str, kind: Kind | None) -> tuple[Group, Adapter | None]:
        """Who serves a name. As long as they are in memory nothing is planned anew."""
        route = self._routes.get((name, kind)) if kind is not None else None
        if route is not None and self._current(route.group) and route.group.pool.present:
            return route.group, route.adapter
        named, prepared = await self._prepared(name, kind)
        return self._crew.adopt(prepared), named.adapter

    def _refuse_broken(self, group: Group, now: float) -> None:
        """Where the circuit of every replica is open nobody waits for one."""
        if group.loaded:
            return
        broken = [(replica.health.open_for(now), replica) for replica in group.replicas.values()]
        seconds, replica = min(broken, key=lambda pair: pair[0])
        if seconds > 0:
            raise refusals.broken(replica, seconds)

    async def _prepared(self, name: str, kind: Kind | None) -> tuple[Named, Prepared]:
        """Plan a model once for all who ask at the same time."""
        task = self._preparing.get((name, kind))
        if task is None:
            task = asyncio.ensure_future(self._prepare(name, kind))
            self._preparing[name, kind] = task
            task.add_done_callback(lambda _: self._preparing.pop((name, kind), None))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if self._crew.closing and task.cancelled():
                raise refusals.closing() from None
            raise

    async def _prepare(self, name: str, kind: Kind | None) -> tuple[Named, Prepared]:
        named = await self._names.find(name)
        if (said := self._said.get(name)) is not None:
            self._options.setdefault((named.files.digest, said.mode), said)
        self._crew.measure()
        loads = self.schedule.loads
        # What the machine can give changes all the time; a plan that fills it to the brim would be refused soon after.
        machine = self.machine.with_room(min(loads.room(), int(0.95 * loads.ceiling)))
        return named, await asyncio.to_thread(self._plan, named, kind, machine)

    def _plan(self, named: Named, kind: Kind | None, machine: Hardware) -> Prepared:
        mode = mode_of(kind, named.files.facts)
        options = self._options_of(named.files.digest, named.files.reference, mode)
        return prepare(named.files, options, self.settings, machine, kind, self._parts)

    def _options_of(self, digest: str, reference: str, mode: Mode) -> LoadOptions:
        found = self._options.get((digest, mode)) or self._configuration.get(digest, reference, mode)
        if found is None and mode == "generate":
            found = tuned.read(self.settings.home_path, digest)
        return found or LoadOptions(mode=mode)


async def _gather(pool: Pool) -> None:
    """Wait for a moment whether others come too: a lone stream and a crowd belong on different engines.

    Without it the first of a crowd would hold the quick engine, and the two would fight for the cores until it is done.
    """
    pool.arriving += 1
    try:
        await asyncio.sleep(GATHER_SECONDS)
        pool.company = pool.arriving > 1
    finally:
        pool.arriving -= 1
