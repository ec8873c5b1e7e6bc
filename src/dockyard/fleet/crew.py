"""The schedule's decisions carried out with processes: loads, ends, restarts, leases handed out and taken back."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine
from typing import Any

from dockyard.engines import Engine
from dockyard.errors import DockyardError, LoadFailed
from dockyard.fleet import commands, refusals
from dockyard.fleet.last_words import trouble
from dockyard.fleet.lease import Book, Lease
from dockyard.fleet.limits import Limits
from dockyard.fleet.machine import Machine, resident, size
from dockyard.fleet.pool import Resident
from dockyard.fleet.prepare import Parts, Plan, Prepared
from dockyard.fleet.replica import Group, Replica
from dockyard.fleet.restarts import RestartPolicy
from dockyard.fleet.runner import Runner
from dockyard.fleet.schedule import Schedule
from dockyard.settings import Settings
from dockyard.types import Adapter, Lane

MEASURE_EVERY = 0.05


class Waiting:
    """A caller of ``lease`` or ``preload`` who waits, and for what."""

    __slots__ = ("adapter", "future", "group", "key", "lane")

    def __init__(self, group: Group, key: str, lane: Lane, adapter: Adapter | None) -> None:
        self.group = group
        self.key = key
        self.lane = lane
        self.adapter = adapter
        self.future: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()

    def fail(self, error: DockyardError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Crew:
    """Groups, their replicas, and what runs them. All methods belong to one event loop."""

    def __init__(
        self,
        settings: Settings,
        machine: Machine,
        schedule: Schedule,
        parts: Parts,
        policy: RestartPolicy,
        forget: Callable[[], None],
    ) -> None:
        self.settings = settings
        self.machine = machine
        self.schedule = schedule
        self.groups: dict[str, Group] = {}
        self.replicas: dict[str, Replica] = {}
        self.waiting: dict[int, Waiting] = {}
        self.closing = False
        self.freed = asyncio.Event()
        self.book = Book(self._finished, self._released)
        self.tickets = itertools.count(1)
        self._parts = parts
        self._policy = policy
        self._forget_names = forget
        self._lent: dict[int, Lease] = {}
        self._background: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._measured_at = 0.0

    def adopt(self, prepared: Prepared) -> Group:
        """The group of what was prepared; if it is known, its next loads are by these plans."""
        group = self.groups.get(prepared.key)
        if group is None:
            group = self.groups[prepared.key] = Group(prepared, self.schedule, self._make)
        else:
            group.take(prepared)
        return group

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def stop(self, others: list[asyncio.Task[Any]]) -> None:
        """Cancel what is under way and end every worker."""
        pending = [task for task in (*self._background, *others) if not task.done()]
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        runners = [replica.runner for replica in self.replicas.values() if replica.runner is not None]
        await asyncio.gather(*(runner.stop(0.0) for runner in runners))
        for replica in self.replicas.values():
            self._forget(replica, replica.resident)

    def halt(self) -> None:
        """Decide nothing more, refuse all who wait, and let batch work go: it is not waited for."""
        self.closing = True
        if self._timer is not None:
            self._timer.cancel()
        for waiting in self.waiting.values():
            waiting.fail(refusals.closing())
        self.schedule.lanes.clear(time.monotonic())
        for lease in self._lent.values():
            lease.revoke()

    @property
    def busy(self) -> bool:
        return any(held.busy for held in self.schedule.residents.values())

    def measure(self) -> None:
        """Look at what the machine could give to models now, unless that was done a moment ago."""
        now = time.monotonic()
        if now < self._measured_at + MEASURE_EVERY:
            return
        self._measured_at = now
        ours = 0
        for replica in self.replicas.values():
            if replica.runner is not None:
                ours += replica.runner.rss() or resident(replica.runner.pid)
        self.schedule.loads.ceiling = self.machine.ceiling(ours)

    def step(self) -> None:
        """Ask the schedule what to do now, and do it."""
        if self.closing:
            return
        now = time.monotonic()
        if self.waiting:
            self.measure()
        for command in self.schedule.step(now):
            self._obey(command)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        wake = self.schedule.next_wake(now)
        if wake is not None:
            self._timer = asyncio.get_running_loop().call_later(min(1.0, max(0.001, wake - now)), self.step)

    async def end(self, replica: Replica) -> None:
        """End a replica's process, whatever it does."""
        held, runner = replica.resident, replica.runner
        if runner is not None:
            await runner.stop(0.0)
        self._forget(replica, held)
        self.step()

    async def tick(self) -> None:
        """Unload what nobody used for long, watch what models really take, and complete groups; for ever."""
        keep = self.settings.idle_seconds
        while True:
            await asyncio.sleep(min(1.0, max(0.02, keep / 4)) if keep > 0 else 1.0)
            now = time.monotonic()
            changed = False
            for replica in self.replicas.values():
                expires = replica.expires()
                if expires is not None and now >= expires:
                    self.schedule.loads.retire(replica.key)
                    changed = True
                rss = replica.runner.rss() if replica.runner is not None else None
                changed |= rss is not None and self.schedule.loads.measured(replica.key, rss)
                if rss is not None and replica.limits.watched is not None and rss > replica.limits.watched:
                    self._over(replica, rss)
            for group in self.groups.values():
                changed |= self._complete(group, now)
            if changed:
                self.step()

    def _make(self, group: Group, plan: Plan) -> Replica:
        logs = self.settings.home_path / "logs"
        replica = self.replicas[plan.key] = Replica(group, plan, self.schedule, self._policy, logs)
        return replica

    # leases

    def _finished(self, lease: Lease) -> None:
        """An answer has ended: its slot is free, though the lease may be held on."""
        now = time.monotonic()
        if lease.ticket is not None:
            self._lent.pop(lease.ticket, None)
            changed = self.schedule.finish(lease.ticket, now)
        else:
            charged, lease.charged = lease.charged or 0.0, None
            changed = self.schedule.done(lease.resident, lease.key, charged, now - lease.begun, now)
        if lease.replica.traffic.broken >= self._policy.breaker:
            self._unwell(lease.replica, lease.resident)
        if changed:
            self.step()

    def _released(self, lease: Lease) -> None:
        now = time.monotonic()
        if (stream := lease.unfinished) is not None:
            self.spawn(stream.aclose())
        changed = False
        held = lease.resident
        if lease.ticket is not None:
            self._lent.pop(lease.ticket, None)
            changed = self.schedule.finish(lease.ticket, now)
        else:
            if lease.charged is not None:
                charged, lease.charged = lease.charged, None
                changed = self.schedule.done(held, lease.key, charged, now - lease.begun, now)
            changed |= self.schedule.release(held, now)
        self.freed.set()
        if lease.replica.group.keep_alive == 0 and held.busy == 0 and not held.pinned:
            held.leaving = changed = True
        if changed:
            self.step()

    # carrying out

    def _obey(self, command: commands.Command) -> None:
        match command:
            case commands.Load(key):
                replica = self.replicas[key]
                replica.begin(self.schedule.residents[key])
                replica.task = self.spawn(self._load(replica))
            case commands.Evict(key):
                replica = self.replicas[key]
                replica.task = self.spawn(self.end(replica))
            case commands.Grant():
                self._grant(command)
            case commands.Preempt(ticket):
                if (lent := self._lent.pop(ticket, None)) is not None:
                    lent.revoke()
            case commands.Refuse(ticket, key, refusal):
                self.waiting[ticket].fail(refusals.too_large(self.replicas[key], refusal, self.machine))

    def _grant(self, grant: commands.Grant) -> None:
        replica, waiting = self.replicas[grant.key], self.waiting[grant.ticket]
        batch = grant.ticket if waiting.lane == "batch" else None
        lease = Lease(
            replica,
            self.schedule.residents[grant.key],
            self.book,
            key=waiting.key,
            charged=grant.charged if batch is None else None,
            adapter=waiting.adapter,
            batch=batch,
        )
        if batch is not None:
            self._lent[batch] = lease
        if waiting.future.done():  # its caller has been cancelled, and does not know of it yet
            asyncio.get_running_loop().call_soon(lease.release)
        else:
            waiting.future.set_result(lease)

    async def _load(self, replica: Replica) -> None:
        held = replica.resident
        try:
            engine = self._parts.engine(replica.plan.engine)
            runner = self._runner(replica, engine)
            replica.runner = runner
            started = await runner.start()
        except asyncio.CancelledError:
            self._forget(replica, held)
            raise
        except Exception as error:  # noqa: BLE001 - an engine's own failure becomes an answer to those who wait
            failure = error if isinstance(error, DockyardError) else LoadFailed(f"{replica.reference}: {error}")
            self._forget(replica, held)
            self._forget_names()  # its files may be what is wrong
            now = time.monotonic()
            replica.health.failed(now, failure.message)
            self.schedule.loads.back_off(replica.key, replica.health.until)
            self._fail(replica, failure)
        else:
            capacity = replica.ready(started)
            now = time.monotonic()
            self.schedule.loads.loaded(replica.key, started.measured, started.seconds, now, capacity=capacity)
            self.spawn(self._watch(replica, runner, held))
            self._complete(replica.group, now)
        self.step()

    def _runner(self, replica: Replica, engine: Engine) -> Runner:
        options = replica.group.options
        arguments = (engine, replica.group.files, replica.plan, self.settings, replica.log_path)
        if options.cpus is None and options.memory is None:
            return self._parts.runner(*arguments)
        replica.limits = Limits(options.cpus, options.memory)
        return self._parts.runner(*arguments, begun=replica.limits.apply)

    async def _watch(self, replica: Replica, runner: Runner, held: Resident | None) -> None:
        """Wait for the end of a loaded model's process; if it was a crash, see to the restart."""
        ended = await runner.wait_exit()
        if ended.expected or held is None or self.schedule.residents.get(replica.key) is not held:
            return
        tail = "\n".join(trouble(ended)[-5:])
        why = f"the worker of {replica.reference} crashed: {ended.reason}" + (f"\n{tail}" if tail else "")
        self._forget(replica, held)
        self._crashed(replica, why, restart=not held.leaving)
        self.step()

    def _unwell(self, replica: Replica, held: Resident | None) -> None:
        """A replica that lives but fails one request after the other is replaced, once nobody uses it."""
        if held is not None and self.schedule.residents.get(replica.key) is held and not held.leaving:
            why = f"{replica.traffic.broken} requests in a row failed on {replica.reference}"
            self.spawn(self._replace(replica, held, why))

    def _over(self, replica: Replica, rss: int) -> None:
        """A replica took more memory than it may, where the kernel could not be told to prevent that: it goes now."""
        limit, held = replica.limits.watched or 0, replica.resident
        if held is not None and not held.leaving:
            why = f"{replica.reference} took {size(rss)}, and its own limit is {size(limit)}"
            self.spawn(self._replace(replica, held, why))
            replica.task = self.spawn(self.end(replica))

    async def _replace(self, replica: Replica, held: Resident, why: str) -> None:
        """Unload a replica and treat that as a crash of it."""
        held.leaving = True
        self.step()
        await replica.unloaded.wait()
        self._crashed(replica, why)
        self.step()

    def _crashed(self, replica: Replica, why: str, *, restart: bool = True) -> None:
        now = time.monotonic()
        replica.restarts += 1
        replica.health.failed(now, why)
        self.schedule.loads.back_off(replica.key, replica.health.until)
        if (seconds := replica.health.open_for(now)) > 0:
            self._fail(replica, refusals.broken(replica, seconds))
        elif restart:
            self.schedule.loads.recall(replica.group.pool, now)

    def _complete(self, group: Group, now: float) -> bool:
        """Load the replicas that a group in use lacks, if there is room for them."""
        if len(group.replicas) < 2 or not group.pool.present or not group.pool.missing():
            return False
        self.schedule.loads.recall(group.pool, now)
        return True

    def _forget(self, replica: Replica, held: Resident | None) -> None:
        """The replica holds no memory any more. Does nothing if that was known, or another process has taken over."""
        if held is not None and self.schedule.residents.get(replica.key) is held:
            self.schedule.gone(replica.key, time.monotonic())
            replica.lost()

    def _fail(self, replica: Replica, error: DockyardError) -> None:
        for ticket in self.schedule.failed(replica.group.pool, replica.key, time.monotonic()):
            self.waiting[ticket].fail(error)
