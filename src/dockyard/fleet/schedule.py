"""Which model is in memory, who uses it and who waits: the fleet's state machine, without any I/O.

A driver tells it what happened (``ask``, ``loaded``, ``gone``, ``release`` …) and then calls ``step``, which returns
what to do next. The fleet drives it with processes and a clock, the tests with a simulator.
"""

from __future__ import annotations

import msgspec

from dockyard.fleet import admission
from dockyard.fleet.ledger import Ledger


class Grant(msgspec.Struct, frozen=True):
    """The ticket's model is loaded and one lease of it is counted for the ticket."""

    ticket: int
    key: str


class Load(msgspec.Struct, frozen=True):
    """Memory is reserved: load the model, then report ``loaded`` or ``gone``."""

    key: str


class Evict(msgspec.Struct, frozen=True):
    """Nobody uses the model: end its process, then report ``gone``."""

    key: str


class Refuse(msgspec.Struct, frozen=True):
    """The ticket's model can't fit."""

    ticket: int
    key: str
    refusal: admission.Refuse


Command = Grant | Load | Evict | Refuse


class Resident:
    """A model that holds memory, from the start of its load to the end of its process. ``busy`` counts its leases."""

    __slots__ = ("busy", "fresh", "key", "last_used", "leaving", "loading", "pinned", "told")

    def __init__(self, key: str, *, pinned: bool, now: float) -> None:
        self.key = key
        self.busy = 0
        self.pinned = pinned
        self.last_used = now
        self.loading = True
        self.leaving = False
        self.fresh = True
        """Loaded, but no lease of it was granted yet."""
        self.told = False
        """The driver was told to evict it."""


class _Want:
    __slots__ = ("background", "claimed", "hold", "key", "need", "not_before", "since", "tickets", "waiting")

    def __init__(self, key: str, need: int, now: float) -> None:
        self.key = key
        self.need = need
        self.since = now
        self.tickets: dict[int, float] = {}
        self.claimed = False
        self.hold: frozenset[str] = frozenset()
        self.not_before = 0.0
        self.background = False
        self.waiting: admission.Wait | None = None

    def snapshot(self) -> admission.Want:
        since = next(iter(self.tickets.values()), self.since)
        return admission.Want(
            key=self.key,
            need=self.need,
            since=since,
            claimed=self.claimed,
            hold=self.hold,
            not_before=self.not_before,
            background=self.background and not self.tickets,
            order=next(iter(self.tickets), 0),
        )


class Schedule:
    """Times are seconds of any one clock that does not go back. Keys name models, tickets name waiting callers.

    ``patience`` is how long a want waits before models in use are held back for it.
    """

    def __init__(self, budget: int, *, patience: float = 10.0) -> None:
        self.ledger = Ledger(budget)
        self.patience = patience
        self.ceiling = budget
        self.residents: dict[str, Resident] = {}
        self.load_seconds = 2.0
        self.busy_seconds = 2.0
        self._wants: dict[str, _Want] = {}
        self._of_ticket: dict[int, str] = {}
        self._held: frozenset[str] = frozenset()
        self._learned: dict[str, int] = {}
        self._pins: set[str] = set()
        self._floors: dict[str, int] = {}

    def admit(self, resident: Resident, now: float) -> bool:
        """Count a lease on a loaded model, if it may have more: the hot path."""
        if resident.loading or resident.leaving or resident.key in self._held:
            return False
        resident.busy += 1
        resident.last_used = now
        return True

    def release(self, resident: Resident, now: float) -> bool:
        """Give a lease back; True if ``step`` should be called."""
        resident.busy -= 1
        resident.last_used = now
        resident.fresh = False
        return resident.busy == 0 and (resident.leaving or bool(self._wants) or self.ledger.free < 0)

    def ask(self, ticket: int, key: str, need: int, now: float, *, floor: int = 0) -> None:
        """A caller waits for a model that is predicted to take ``need`` bytes, ``floor`` of them for certain."""
        want = self._want(key, need, floor, now)
        want.tickets[ticket] = now
        self._of_ticket[ticket] = key

    def recall(self, key: str, need: int, now: float, *, floor: int = 0) -> None:
        """Load a model again though nobody waits for it, if it fits without taking anything from others."""
        want = self._want(key, need, floor, now)
        want.background = True

    def cancel(self, ticket: int) -> None:
        """A caller waits no longer."""
        key = self._of_ticket.pop(ticket, None)
        want = self._wants.get(key) if key is not None else None
        if want is None:
            return
        want.tickets.pop(ticket, None)
        if not want.tickets and not want.background:
            self._forget(want)

    def back_off(self, key: str, until: float) -> None:
        """Don't load this model before then."""
        if key in self._wants:
            self._wants[key].not_before = until

    def fail(self, key: str) -> list[int]:
        """Nobody shall wait for this model any longer; returns their tickets."""
        want = self._wants.get(key)
        if want is None:
            return []
        tickets = list(want.tickets)
        for ticket in tickets:
            self._of_ticket.pop(ticket, None)
        self._forget(want)
        return tickets

    def loaded(self, key: str, measured: int | None, seconds: float) -> None:
        """A load ended well. ``measured`` is what it takes; None if that can't be told."""
        self.residents[key].loading = False
        self.load_seconds += 0.3 * (seconds - self.load_seconds)
        if measured is not None:
            self._learned[key] = self.ledger.correct(key, measured)

    def measured(self, key: str, size: int) -> bool:
        """A later measurement of a loaded model; True if ``step`` should be called."""
        resident = self.residents.get(key)
        if resident is None or resident.loading:
            return False
        self.ledger.correct(key, size)
        return self.ledger.free < 0

    def served(self, seconds: float) -> None:
        """A lease was held this long: what estimates are made of."""
        self.busy_seconds += 0.1 * (seconds - self.busy_seconds)

    def gone(self, key: str) -> None:
        """The model's process has ended, however that happened."""
        self.residents.pop(key, None)
        self.ledger.release(key)

    def retire(self, key: str) -> None:
        """Unload a model as soon as nobody uses it; it gets nothing new."""
        if key in self.residents:
            self.residents[key].leaving = True

    def pin(self, key: str, pinned: bool = True) -> None:
        """A pinned model is never evicted."""
        (self._pins.add if pinned else self._pins.discard)(key)
        if key in self.residents:
            self.residents[key].pinned = pinned

    def pinned(self, key: str) -> bool:
        return key in self._pins

    def waiting(self, key: str) -> tuple[int, admission.Wait | None]:
        """How many wait for a model, and what they wait for as of the last step."""
        want = self._wants.get(key)
        return (len(want.tickets), want.waiting) if want is not None else (0, None)

    def is_wanted(self, key: str) -> bool:
        return key in self._wants

    @property
    def wanted(self) -> list[str]:
        """The models that somebody waits for, in the order of asking."""
        return list(self._wants)

    def room(self) -> int:
        """Bytes that a model could get at best: everything that is not pinned."""
        pinned = sum(self.ledger.of(r.key) for r in self.residents.values() if r.pinned)
        return max(0, min(self.ledger.budget, self.ceiling) - pinned)

    def step(self, now: float) -> list[Command]:
        """All that can be done now. Until something else happens, another step changes nothing."""
        self._relieve()
        commands = self._grants(now)
        held: set[str] = set()
        for shot in sorted((w.snapshot() for w in self._wants.values()), key=lambda w: (w.since, w.order, w.key)):
            self._advance(self._wants[shot.key], now, held, commands)
        self._held = frozenset(held)
        for key in held:
            if self.residents[key].busy == 0 and not self.residents[key].loading:
                self.residents[key].leaving = True
        commands.extend(self._evictions())
        commands.extend(self._grants(now))
        return commands

    def next_wake(self, now: float) -> float | None:
        """When time alone will change a decision; None if nothing waits."""
        times: list[float] = []
        for want in self._wants.values():
            shot = want.snapshot()
            times.extend((shot.not_before, max(shot.since, shot.not_before) + self.patience))
        later = [time for time in times if time > now]
        return min(later) if later else (now + self.patience if times else None)

    def _advance(self, want: _Want, now: float, held: set[str], commands: list[Command]) -> None:
        resident = self.residents.get(want.key)
        if resident is not None and not resident.leaving:
            want.hold = frozenset()
            return
        shot = want.snapshot()
        decision = admission.decide(self._state(now), shot)
        want.hold = frozenset()
        match decision:
            case admission.Load():
                self.ledger.reserve(want.key, want.need, floor=self._floors.get(want.key, 0))
                self.residents[want.key] = Resident(want.key, pinned=want.key in self._pins, now=now)
                want.claimed = False
                commands.append(Load(want.key))
                if not want.tickets:
                    self._forget(want)
            case admission.Evict(keys):
                want.claimed = True
                for key in keys:
                    self.residents[key].leaving = True
            case admission.Wait():
                want.waiting = decision
                want.claimed = decision.soon and not shot.background
                want.hold = decision.hold
                held |= decision.hold
                if shot.background and now >= want.not_before:
                    self._forget(want)
            case admission.Refuse():
                commands.extend(Refuse(ticket, want.key, decision) for ticket in self.fail(want.key))

    def _relieve(self) -> None:
        """Measurements may have taken the ledger above its budget: idle models leave until it is not.

        If those do not suffice, what was just loaded and has served nobody goes: its callers wait again, now for the
        true size.
        """
        staying = [r for r in self.residents.values() if not r.leaving]
        over = sum(self.ledger.of(r.key) for r in staying) - self.ledger.budget
        if over <= 0:
            return
        fresh = [r for r in staying if r.fresh and r.busy == 0 and not r.loading]
        old = self._snapshots([r for r in staying if r not in fresh])
        if sum(r.charged for r in old if r.idle and not r.pinned) < over:
            for resident in fresh:
                resident.leaving = True
                over -= self.ledger.of(resident.key)
                if resident.key in self._wants:
                    self._wants[resident.key].need = self._learned.get(resident.key, 0)
        if over > 0:
            for key in admission.victims(old, over):
                self.residents[key].leaving = True

    def _evictions(self) -> list[Command]:
        found: list[Command] = []
        for resident in self.residents.values():
            if resident.leaving and resident.busy == 0 and not resident.loading and not resident.told:
                resident.told = True
                found.append(Evict(resident.key))
        return found

    def _grants(self, now: float) -> list[Command]:
        found: list[Command] = []
        for want in list(self._wants.values()):
            resident = self.residents.get(want.key)
            if resident is None or resident.loading or resident.leaving:
                continue
            # A model that is held back for others still serves those who waited for its load.
            if want.key in self._held and not resident.fresh:
                continue
            tickets = self.fail(want.key)
            found.extend(Grant(ticket, want.key) for ticket in tickets)
            resident.busy += len(tickets)
            resident.last_used = now
            resident.fresh = resident.fresh and not tickets
        return found

    def _want(self, key: str, need: int, floor: int, now: float) -> _Want:
        self._floors[key] = floor
        want = self._wants.get(key)
        if want is None:
            want = self._wants[key] = _Want(key, 0, now)
        want.need = max(need, self._learned.get(key, 0))
        return want

    def _forget(self, want: _Want) -> None:
        self._wants.pop(want.key, None)

    def _state(self, now: float) -> admission.State:
        return admission.State(
            budget=self.ledger.budget,
            ceiling=self.ceiling,
            now=now,
            patience=self.patience,
            residents=self._snapshots(list(self.residents.values())),
            # A want whose model is being loaded has its memory already.
            wants=[w.snapshot() for w in self._wants.values() if self._unserved(w.key)],
            load_seconds=self.load_seconds,
            busy_seconds=self.busy_seconds,
        )

    def _unserved(self, key: str) -> bool:
        resident = self.residents.get(key)
        return resident is None or resident.leaving

    def _snapshots(self, residents: list[Resident]) -> list[admission.Resident]:
        return [
            admission.Resident(r.key, self.ledger.of(r.key), r.busy, r.pinned, r.last_used, r.loading, r.leaving)
            for r in residents
        ]
