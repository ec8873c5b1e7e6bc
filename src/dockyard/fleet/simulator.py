"""The schedule with a clock of its own and no processes: loads take time, callers hold what they got.

It asks ``Schedule`` exactly what the fleet asks it, so that random traces can be thrown at the fleet's decisions, and
it raises ``Broken`` as soon as something happens that must never happen.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from dockyard.fleet.commands import Evict, Grant, Load, Preempt, Refuse
from dockyard.fleet.pool import Pool, Replica, Resident
from dockyard.fleet.schedule import Schedule
from dockyard.types import Lane


class Broken(AssertionError):
    """A rule of the fleet did not hold."""


class Model(msgspec.Struct, frozen=True):
    """Predicted and actual size, how long it takes to load and to end, and how many requests it takes together."""

    need: int
    actual: int
    load: float = 2.0
    end: float = 0.5
    pinned: bool = False
    capacity: int = 1 << 20


class Arrival(msgspec.Struct, frozen=True):
    """A caller: when it comes, which model it wants, and for how long. It gives up after ``patience`` seconds."""

    at: float
    model: str
    hold: float
    patience: float | None = None
    key: str = ""
    lane: Lane = "interactive"


class Outcome(msgspec.Struct):
    """What became of a trace. ``waits`` and ``started`` are by the arrivals' numbers; waits of the granted only."""

    waits: dict[int, float] = {}
    started: dict[int, float] = {}
    refused: int = 0
    gave_up: int = 0
    preempted: int = 0
    loads: int = 0
    evictions: int = 0
    peak: int = 0
    ended: float = 0.0

    @property
    def granted(self) -> int:
        return len(self.waits)

    @property
    def longest(self) -> float:
        return max(self.waits.values(), default=0.0)


class _Held(msgspec.Struct):
    """A slot that a caller has."""

    ticket: int
    resident: Resident
    key: str
    charged: float
    since: float


class Simulator:
    """Runs one trace. A batch caller that loses its slot asks again at once, for all that it wanted."""

    def __init__(self, budget: int, models: Mapping[str, Model], patience: float = 10.0, quiet: float = 0.5) -> None:
        self.schedule = Schedule(budget, patience=patience, quiet=quiet)
        self.models = models
        self.exact = all(model.actual <= model.need for model in models.values())
        self.outcome = Outcome()
        self._arrivals: list[Arrival] = []
        self._woken = -1.0
        self._events: list[tuple[float, int, str, Any]] = []
        self._order = itertools.count()
        self._waiting: dict[int, Arrival] = {}
        self._asked: dict[int, float] = {}
        self._held: dict[int, _Held] = {}
        self._pools: dict[str, Pool] = {}
        self._processes: dict[str, str] = {}
        self._learned: dict[str, int] = {}
        for name, model in models.items():
            self._pools[name] = self.schedule.pool(name, [Replica(key=name, need=model.need)])
            if model.pinned:
                self.schedule.loads.pin(name)

    def run(self, trace: Iterable[Arrival]) -> Outcome:
        """Until everybody has been served or refused. Raises Broken."""
        arrivals = list(trace)
        self._arrivals = arrivals
        for ticket, arrival in enumerate(arrivals):
            self._at(arrival.at, "arrive", ticket)
        steps = 0
        while self._events:
            now, _, kind, what = heapq.heappop(self._events)
            getattr(self, f"_{kind}")(now, what)
            self._step(now)
            steps += 1
            if steps > 400 * (len(arrivals) + 10):
                raise Broken("the schedule makes no progress")
        self.outcome.ended = max(
            (self.outcome.started[t] + arrivals[t].hold for t in self.outcome.started), default=0.0
        )
        if self.outcome.granted + self.outcome.refused + self.outcome.gave_up != len(arrivals):
            raise Broken("somebody was forgotten")
        if self.schedule.wanted or self.schedule.lanes.interactive or self.schedule.lanes.running:
            raise Broken("something is left over")
        return self.outcome

    def _at(self, time: float, kind: str, what: object) -> None:
        heapq.heappush(self._events, (time, next(self._order), kind, what))

    def _arrive(self, now: float, ticket: int) -> None:
        arrival = self._arrivals[ticket]
        pool = self._pools[arrival.model]
        self._asked[ticket] = now
        if arrival.lane == "interactive":
            charged = pool.seconds
            resident = self.schedule.admit(pool, arrival.key, now)
            if resident is not None:
                self._waiting[ticket] = arrival
                self._granted(Grant(ticket, resident.key, charged), now)
                return
        self._waiting[ticket] = arrival
        self.schedule.ask(ticket, pool, now, key=arrival.key, lane=arrival.lane)
        if arrival.patience is not None:
            self._at(now + arrival.patience, "give_up", ticket)

    def _give_up(self, now: float, ticket: int) -> None:
        if ticket in self._waiting:
            self.schedule.cancel(ticket, now)
            del self._waiting[ticket]
            self.outcome.gave_up += 1

    def _granted(self, grant: Grant, now: float) -> None:
        ticket = grant.ticket
        arrival = self._waiting.pop(ticket)
        resident = self.schedule.residents[grant.key]
        self._expect(self._processes.get(grant.key) == "ready", "granted a model that is not loaded")
        self._expect(resident.active + resident.batch <= resident.capacity or bool(resident.batch), "too many slots")
        self._expect(resident.active <= resident.capacity, "more slots than there are")
        self.outcome.waits[ticket] = now - arrival.at
        self.outcome.started[ticket] = now
        held = self._held[ticket] = _Held(ticket, resident, arrival.key, grant.charged or 0.0, now)
        self._at(now + arrival.hold, "release", held)

    def _release(self, now: float, held: _Held) -> None:
        if self._held.get(held.ticket) is not held:
            return  # it was preempted, and may hold another slot by now
        del self._held[held.ticket]
        self._expect(self._processes.get(held.resident.key) == "ready", "evicted while in use")
        if self._arrivals[held.ticket].lane == "batch":
            self.schedule.finish(held.ticket, now)
            return
        self.schedule.done(held.resident, held.key, held.charged, now - held.since, now)
        self.schedule.release(held.resident, now)

    def _preempted(self, now: float, ticket: int) -> None:
        self._expect(self._arrivals[ticket].lane == "batch", "interactive work was preempted")
        self.outcome.preempted += 1
        del self._held[ticket], self.outcome.waits[ticket], self.outcome.started[ticket]
        self._at(now, "arrive", ticket)

    def _loaded(self, now: float, key: str) -> None:
        model = self.models[key]
        self._processes[key] = "ready"
        self._learned[key] = model.actual
        self.schedule.loads.loaded(key, model.actual, model.load, now, capacity=model.capacity)

    def _ended(self, now: float, key: str) -> None:
        del self._processes[key]
        self.schedule.gone(key, now)

    def _wake(self, now: float, what: object) -> None:
        """Time has passed; ``run`` steps."""

    def _step(self, now: float) -> None:
        for command in self.schedule.step(now):
            match command:
                case Grant():
                    self._granted(command, now)
                case Preempt(ticket):
                    self._preempted(now, ticket)
                case Load(key):
                    self._expect(key not in self._processes, "two processes of one model")
                    self._processes[key] = "loading"
                    self.outcome.loads += 1
                    self._at(now + self.models[key].load, "loaded", key)
                case Evict(key):
                    self._expect(self._processes[key] == "ready", "evicted what is not loaded")
                    self._expect(not any(h.resident.key == key for h in self._held.values()), "evicted while in use")
                    self._expect(not self.models[key].pinned or not self.exact, "evicted though pinned")
                    self._processes[key] = "ending"
                    self.outcome.evictions += 1
                    self._at(now + self.models[key].end, "ended", key)
                case Refuse(ticket, _, refusal):
                    self._expect(refusal.need > refusal.limit, "refused though it fits")
                    del self._waiting[ticket]
                    self.outcome.refused += 1
        self._check(now)
        wake = self.schedule.next_wake(now)
        if wake is not None and not now < self._woken <= wake:
            self._woken = wake
            self._at(wake, "wake", None)

    def _check(self, now: float) -> None:
        schedule = self.schedule
        ledger, residents = schedule.ledger, list(schedule.residents.values())
        self.outcome.peak = max(self.outcome.peak, ledger.charged)
        self._expect(not self.exact or ledger.charged <= ledger.budget, "over-committed")
        self._expect(set(self._processes) == set(schedule.residents), "the schedule knows other processes")
        lanes = schedule.lanes
        beside = lanes.running and lanes.interactive and not lanes.beside
        self._expect(not beside, "batch work runs beside interactive work")
        interactive = {ticket: each for ticket, each in self._waiting.items() if each.lane == "interactive"}
        oldest = min((self._asked[ticket] for ticket in interactive), default=now)
        if any(r.leaving for r in residents) or now - oldest >= schedule.loads.patience:
            return
        # Work is conserved: what fits, or fits after evicting the idle, does not wait while all are patient.
        idle = sum(ledger.of(r.key) for r in residents if not (r.working or r.loading or r.pinned))
        for name in {each.model for each in interactive.values()}:
            resident = schedule.residents.get(name)
            if resident is None:
                need = max(self.models[name].need, self._learned.get(name, 0))
                self._expect(need > ledger.free + idle, "waits though it fits")
            else:
                full = resident.active >= resident.capacity
                self._expect(resident.loading or full, "waits for a model that has a free slot")

    def _expect(self, true: bool, otherwise: str) -> None:
        if not true:
            raise Broken(otherwise)


def fifo(budget: int, models: Mapping[str, Model], trace: Iterable[Arrival]) -> Outcome:
    """The same trace served strictly in the order of arrival, for comparison: nobody overtakes anybody.

    A request starts when all before it have started, its model is loaded and has a free slot; the least recently used
    idle models make room, and where there are none it waits for one to become idle.
    """
    outcome = Outcome()
    ready: dict[str, float] = {}
    ends: dict[str, list[float]] = {}
    used: dict[str, float] = {}
    now = 0.0
    for ticket, arrival in enumerate(trace):
        now = max(now, arrival.at)
        model = models[arrival.model]
        if arrival.model not in ready:
            while sum(models[name].actual for name in ready) + model.actual > budget:
                idle = [name for name in ready if max(ends[name], default=0.0) <= now]
                if not idle:
                    now = min(max(ends[name]) for name in ready)
                    continue
                gone = min(idle, key=lambda name: used[name])
                del ready[gone]
                now += models[gone].end
                outcome.evictions += 1
            ready[arrival.model] = now = now + model.load
            ends[arrival.model] = []
            outcome.loads += 1
        running = [end for end in ends[arrival.model] if end > now]
        if len(running) >= model.capacity:
            now = sorted(running)[len(running) - model.capacity]
        ends[arrival.model] = [end for end in running if end > now] + [now + arrival.hold]
        used[arrival.model] = now
        outcome.waits[ticket], outcome.started[ticket] = now - arrival.at, now
        outcome.ended = max(outcome.ended, now + arrival.hold)
        outcome.peak = max(outcome.peak, sum(models[name].actual for name in ready))
    return outcome
