"""The replicas of one model: what they are, how they are to be loaded and, while they are, what runs them."""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from dockyard.fleet.lease import Traffic
from dockyard.fleet.limits import Limits
from dockyard.fleet.pool import Replica as Wanted
from dockyard.fleet.pool import Resident
from dockyard.fleet.prepare import Plan, Prepared
from dockyard.fleet.restarts import RestartPolicy, Restarts
from dockyard.fleet.runner import Runner, Started
from dockyard.fleet.schedule import Schedule
from dockyard.types import Adapter, Kind, LoadedModel

if TYPE_CHECKING:
    from dockyard.engines import LoadPlan


class Group:
    """One model in one mode, with one replica or several. Mutable, and owned by the fleet's event loop."""

    def __init__(self, prepared: Prepared, schedule: Schedule, make: Callable[[Group, Plan], Replica]) -> None:
        self.key = prepared.key
        self.names: set[str] = set()
        self.pool = schedule.pool(prepared.key)
        self.replicas: dict[str, Replica] = {}
        self._schedule = schedule
        self._make = make
        self.keep_alive = 0.0
        self.take(prepared)

    def take(self, prepared: Prepared) -> None:
        """Plans for the next loads; a replica that is loaded goes on as it is."""
        self.files = prepared.files
        self.mode = prepared.mode
        self.options = prepared.options
        self.serves = frozenset[Kind]().union(*(plan.serves for plan in prepared.plans))
        for plan in prepared.plans:
            replica = self.replicas.get(plan.key)
            if replica is None:
                self.replicas[plan.key] = self._make(self, plan)
            else:
                replica.take(plan)
        if not self.loaded:  # what a request has set holds as long as it is loaded
            self.kept(prepared.keep_alive)
        self.reshape()

    def reshape(self) -> None:
        """Tell the schedule what is to be loaded, in this order."""
        self._schedule.pool(self.key, [replica.wanted for replica in self.replicas.values()])

    @property
    def loaded(self) -> bool:
        return any(replica.resident is not None for replica in self.replicas.values())

    def answers_to(self, name: str) -> bool:
        return name in self.names or name in (self.files.reference, self.files.digest)

    def kept(self, seconds: float, *, unpin: bool = True) -> None:
        """From now on it stays loaded so long after its last use; a negative number pins it.

        Where ``unpin`` is False, what is pinned stays so, and keeps its time.
        """
        if not unpin and any(self._schedule.loads.pinned(key) for key in self.replicas):
            return
        was, self.keep_alive = self.keep_alive, seconds
        if seconds < 0 or was < 0:
            for replica in self.replicas.values():
                self._schedule.loads.pin(replica.key, seconds < 0)


class Replica:
    """Mutable, and owned by the fleet's event loop. ``resident`` is None while it holds no memory."""

    def __init__(self, group: Group, plan: Plan, schedule: Schedule, policy: RestartPolicy, logs: Path) -> None:
        self.group = group
        self.key = plan.key
        self.log_path = logs / f"{hashlib.sha256(plan.key.encode()).hexdigest()[:16]}.log"
        self.health = Restarts(policy)
        self.restarts = 0
        self.traffic = Traffic()
        self.runner: Runner | None = None
        self.resident: Resident | None = None
        self.task: asyncio.Task[None] | None = None
        """Loads or ends the runner."""
        self.limits = Limits(None, None)
        self.unloaded = asyncio.Event()
        self.unloaded.set()
        self._schedule = schedule
        self._started: Started | None = None
        self._loaded_at: float | None = None
        self.take(plan)

    def take(self, plan: Plan) -> None:
        """The plan for the next load; what is loaded stays as it is."""
        self._next = plan
        if self.resident is None:
            self._adopt()

    def _adopt(self) -> None:
        self.plan: LoadPlan = self._next.load
        self.why = self._next.why
        self._adapters = self._next.adapters
        self._capacity = self._next.capacity

    def knows(self, adapter: Adapter) -> bool:
        """Whether requests may choose this adapter without loading the model anew."""
        return self.resident is None or adapter.digest in self._adapters or adapter.digest not in self._next.adapters

    @property
    def reference(self) -> str:
        return self.group.files.reference

    @property
    def wanted(self) -> Wanted:
        """What the schedule needs to know of a load."""
        predicted = self.plan.predicted
        return Wanted(
            key=self.key,
            need=predicted.total,
            floor=predicted.weights + predicted.kv_cache,
            engine=self.plan.engine,
        )

    def begin(self, resident: Resident) -> None:
        self.resident = resident
        self.traffic = Traffic()
        self.unloaded.clear()

    def ready(self, started: Started) -> int:
        """Note how the load came out; returns how many requests it takes together."""
        self._started = started
        self._loaded_at = time.time()
        return self._capacity or started.plan.parallel

    def lost(self) -> None:
        if self.traffic.progressed:
            self.health.progressed()
        self.traffic = Traffic()
        self.resident = None
        self.runner = None
        self._started = None
        self._loaded_at = None
        self.limits.lift()
        self.limits = Limits(None, None)
        if self._next.load is not self.plan:
            self._adopt()
            self.group.reshape()
        self.unloaded.set()

    @property
    def live(self) -> bool:
        """Whether what runs the model can take a request. A process dies before anyone is told of it."""
        return self.runner is not None and self.runner.alive

    @property
    def state(self) -> str:
        if self.resident is not None:
            if self.resident.loading:
                return "loading"
            return "draining" if self.resident.leaving else "ready"
        if self.health.open_for(time.monotonic()) > 0:
            return "failed"
        waiting = self._schedule.loads.is_wanted(self.key)
        if waiting and self.health.failures:
            return "restarting"
        return "loading" if waiting else "unloaded"

    def expires(self) -> float | None:
        """Monotonic seconds at which an unused model is unloaded; None: never, or not as long as it is used."""
        resident, keep = self.resident, self.group.keep_alive
        if resident is None or resident.loading or resident.busy or resident.pinned or keep < 0 or math.isinf(keep):
            return None
        return resident.last_used + keep

    def row(self) -> LoadedModel:
        """A row of ``dockyard ps`` as of now."""
        started, resident, runner = self._started, self.resident, self.runner
        plan = started.plan if started is not None else self.plan
        pool, files = self.group.pool, self.group.files
        wait = self._schedule.loads.waiting(self.key)
        first = next(iter(self.group.replicas)) == self.key
        waiting = len(pool.waiting) + len(pool.batch) + len(pool.visitors) if first else 0
        since = time.time() - time.monotonic()
        expires = self.expires()
        return LoadedModel(
            reference=files.reference,
            digest=files.digest,
            engine=plan.engine,
            state=self.state,
            pid=runner.pid if runner is not None else None,
            context=plan.context,
            parallel=plan.parallel,
            predicted=plan.predicted,
            measured=self._measured(),
            active=min(self.traffic.open, plan.parallel),
            queued=waiting + max(0, self.traffic.open - plan.parallel),
            loaded_at=self._loaded_at,
            load_seconds=started.seconds if started is not None else None,
            last_used=since + resident.last_used if resident is not None else None,
            expires_at=since + expires if expires is not None else None,
            restarts=self.restarts,
            reason=f"{wait.reason} (place {wait.place}, about {wait.estimate:.0f} s)" if wait else self._reason(),
            mode=self.group.mode,
            limits=self.limits.text,
        )

    def _measured(self) -> int | None:
        if self.runner is None or self._started is None:
            return None
        now = self.runner.rss()
        return now if now is not None else self._started.measured

    def _reason(self) -> str:
        if self.resident is None and self.health.failures:
            return self.health.last
        return self.why
