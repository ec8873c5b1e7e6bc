"""One model of the fleet: what it is, how it is to be loaded, and, while it is loaded, what runs it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from dockyard.engines import LoadPlan
from dockyard.fleet.lease import Traffic
from dockyard.fleet.prepare import Prepared
from dockyard.fleet.restarts import RestartPolicy, Restarts
from dockyard.fleet.runner import Runner, Started
from dockyard.fleet.schedule import Resident, Schedule
from dockyard.types import LoadedModel


class Replica:
    """Mutable, and owned by the fleet's event loop. ``resident`` is None while the model holds no memory."""

    def __init__(self, prepared: Prepared, schedule: Schedule, policy: RestartPolicy, log_path: Path) -> None:
        self.key = prepared.key
        self.files = prepared.files
        self.serves = prepared.serves
        self.log_path = log_path
        self.health = Restarts(policy)
        self.restarts = 0
        self.names: set[str] = set()
        self.traffic = Traffic()
        self.runner: Runner | None = None
        self.resident: Resident | None = None
        self.task: asyncio.Task[None] | None = None
        """Loads or ends the runner."""
        self.unloaded = asyncio.Event()
        self.unloaded.set()
        self._schedule = schedule
        self._started: Started | None = None
        self._loaded_at: float | None = None
        self.take(prepared)

    def take(self, prepared: Prepared) -> None:
        """The plan for the next load."""
        self.plan: LoadPlan = prepared.plan
        self.why = prepared.why
        self.keep_alive = prepared.keep_alive

    def answers_to(self, name: str) -> bool:
        return name in self.names or name in (self.files.reference, self.files.digest)

    @property
    def need(self) -> int:
        return self.plan.predicted.total

    @property
    def floor(self) -> int:
        return self.plan.predicted.weights + self.plan.predicted.kv_cache

    def begin(self, resident: Resident) -> None:
        self.resident = resident
        self.traffic = Traffic()
        self.unloaded.clear()

    def ready(self, started: Started) -> None:
        self._started = started
        self._loaded_at = time.time()

    def lost(self) -> None:
        if self.traffic.progressed:
            self.health.progressed()
        self.traffic = Traffic()
        self.resident = None
        self.runner = None
        self._started = None
        self._loaded_at = None
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
        waiting = self._schedule.is_wanted(self.key)
        if waiting and self.health.failures:
            return "restarting"
        return "loading" if waiting else "unloaded"

    def expires(self) -> float | None:
        """Monotonic seconds at which an unused model is unloaded; None: never, or not as long as it is used."""
        resident = self.resident
        if resident is None or resident.loading or resident.busy or resident.pinned or self.keep_alive < 0:
            return None
        return resident.last_used + self.keep_alive

    def row(self) -> LoadedModel:
        """A row of ``dockyard ps`` as of now."""
        started, resident, runner = self._started, self.resident, self.runner
        plan = started.plan if started is not None else self.plan
        tickets, wait = self._schedule.waiting(self.key)
        since = time.time() - time.monotonic()
        expires = self.expires()
        return LoadedModel(
            reference=self.files.reference,
            digest=self.files.digest,
            engine=plan.engine,
            state=self.state,
            pid=runner.pid if runner is not None else None,
            context=plan.context,
            parallel=plan.parallel,
            predicted=plan.predicted,
            measured=self._measured(),
            active=min(self.traffic.open, plan.parallel),
            queued=tickets + max(0, self.traffic.open - plan.parallel),
            loaded_at=self._loaded_at,
            load_seconds=started.seconds if started is not None else None,
            last_used=since + resident.last_used if resident is not None else None,
            expires_at=since + expires if expires is not None else None,
            restarts=self.restarts,
            reason=f"{wait.reason} (place {wait.place}, about {wait.estimate:.0f} s)" if wait else self._reason(),
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
