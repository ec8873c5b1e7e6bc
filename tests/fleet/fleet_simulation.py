"""A simulator that drives the schedule with a clock of its own: loads take time, callers hold what they got."""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, field

from dockyard.fleet.schedule import Evict, Grant, Load, Refuse, Schedule


@dataclass(frozen=True)
class Model:
    need: int
    actual: int
    load: float = 2.0
    end: float = 0.5
    pinned: bool = False


@dataclass(frozen=True)
class Arrival:
    at: float
    key: str
    hold: float
    patience: float | None = None
    """The caller gives up after this."""


@dataclass
class Outcome:
    waits: list[float] = field(default_factory=list)
    granted: int = 0
    refused: int = 0
    gave_up: int = 0
    loads: int = 0
    evictions: int = 0
    peak: int = 0
    ended: float = 0.0


class World:
    """Runs a trace and asserts, after every step, what must never happen."""

    def __init__(self, budget: int, models: dict[str, Model], patience: float = 10.0) -> None:
        self.schedule = Schedule(budget, patience=patience)
        self.models = models
        self.exact = all(model.actual <= model.need for model in models.values())
        self.outcome = Outcome()
        self._events: list[tuple[float, int, str, object]] = []
        self._order = itertools.count()
        self._arrivals: dict[int, Arrival] = {}
        self._learned: dict[str, int] = {}
        self._processes: dict[str, str] = {}
        for key, model in models.items():
            if model.pinned:
                self.schedule.pin(key)

    def run(self, trace: list[Arrival]) -> Outcome:
        for ticket, arrival in enumerate(trace):
            self._arrivals[ticket] = arrival
            self._at(arrival.at, "arrive", ticket)
        steps = 0
        while self._events:
            now, _, kind, what = heapq.heappop(self._events)
            getattr(self, f"_{kind}")(now, what)
            self._step(now)
            steps += 1
            assert steps < 200 * (len(trace) + 10), "the schedule makes no progress"
            self.outcome.ended = now
        answered = self.outcome.granted + self.outcome.refused + self.outcome.gave_up
        assert answered == len(trace), "somebody was forgotten"
        assert not self.schedule.wanted
        return self.outcome

    def _at(self, time: float, kind: str, what: object) -> None:
        heapq.heappush(self._events, (time, next(self._order), kind, what))

    def _arrive(self, now: float, ticket: int) -> None:
        arrival = self._arrivals[ticket]
        resident = self.schedule.residents.get(arrival.key)
        if resident is not None and self.schedule.admit(resident, now):
            self._granted(ticket, now)
            return
        self.schedule.ask(ticket, arrival.key, self.models[arrival.key].need, now)
        if arrival.patience is not None:
            self._at(now + arrival.patience, "give_up", ticket)

    def _give_up(self, now: float, ticket: int) -> None:
        if ticket in self._arrivals:
            self.schedule.cancel(ticket)
            del self._arrivals[ticket]
            self.outcome.gave_up += 1

    def _granted(self, ticket: int, now: float) -> None:
        arrival = self._arrivals.pop(ticket)
        assert self._processes.get(arrival.key) == "ready", "granted a model that is not loaded"
        self.outcome.granted += 1
        self.outcome.waits.append(now - arrival.at)
        self._at(now + arrival.hold, "release", (self.schedule.residents[arrival.key], arrival.hold))

    def _release(self, now: float, what: tuple) -> None:
        resident, seconds = what
        assert self._processes[resident.key] == "ready", "evicted while in use"
        self.schedule.served(seconds)
        self.schedule.release(resident, now)

    def _loaded(self, now: float, key: str) -> None:
        self._processes[key] = "ready"
        self._learned[key] = self.models[key].actual
        self.schedule.loaded(key, self.models[key].actual, self.models[key].load)

    def _ended(self, now: float, key: str) -> None:
        del self._processes[key]
        self.schedule.gone(key)

    def _wake(self, now: float, what: object) -> None:
        pass

    def _step(self, now: float) -> None:
        for command in self.schedule.step(now):
            match command:
                case Grant(ticket, _):
                    self._granted(ticket, now)
                case Load(key):
                    assert key not in self._processes, "two processes of one model"
                    self._processes[key] = "loading"
                    self.outcome.loads += 1
                    self._at(now + self.models[key].load, "loaded", key)
                case Evict(key):
                    assert self._processes[key] == "ready"
                    assert self.schedule.residents[key].busy == 0, "evicted while in use"
                    assert not self.models[key].pinned or not self.exact, "evicted though pinned"
                    self._processes[key] = "ending"
                    self.outcome.evictions += 1
                    self._at(now + self.models[key].end, "ended", key)
                case Refuse(ticket, key, refusal):
                    assert refusal.need > refusal.limit
                    del self._arrivals[ticket]
                    self.outcome.refused += 1
        self._check(now)
        wake = self.schedule.next_wake(now)
        if wake is not None:
            self._at(wake, "wake", None)

    def _check(self, now: float) -> None:
        ledger, residents = self.schedule.ledger, self.schedule.residents.values()
        self.outcome.peak = max(self.outcome.peak, ledger.charged)
        if self.exact:
            assert ledger.charged <= ledger.budget, "over-committed"
        assert set(self._processes) == set(self.schedule.residents)
        if any(r.leaving for r in residents):
            return
        oldest = min((a.at for t, a in self._arrivals.items() if a.at <= now), default=now)
        if now - oldest >= self.schedule.patience:
            return
        # Work is conserved: what fits, or fits after evicting the idle, does not wait while all are patient.
        idle = sum(ledger.of(r.key) for r in residents if not (r.busy or r.loading or r.pinned))
        for key in self.schedule.wanted:
            resident = self.schedule.residents.get(key)
            if resident is not None:
                assert resident.loading, "waits for a model that is ready"
            else:
                need = max(self.models[key].need, self._learned.get(key, 0))
                assert need > ledger.free + idle, "waits though it fits"
