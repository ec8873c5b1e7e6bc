"""Which model is in memory, who uses it and who waits: the fleet's state machine, without any I/O.

A driver tells it what happened (``ask``, ``loaded``, ``gone``, ``release`` …) and then calls ``step``, which returns
what to do next. The fleet drives it with processes and a clock, ``simulator`` with a clock of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dockyard.fleet.commands import Command, Evict, Grant, Preempt, Refuse
from dockyard.fleet.lanes import Lanes
from dockyard.fleet.loads import Loads
from dockyard.fleet.pool import Pool, Replica, Resident
from dockyard.types import Lane


class Outlook(msgspec.Struct, frozen=True):
    """Where a caller stands: ``place`` counts from 1, ``estimate`` is seconds. ``loaded``: it waits for a slot only."""

    place: int
    estimate: float
    reason: str
    loaded: bool


class Schedule:
    """Times are seconds of any one clock that does not go back. Tickets name waiting callers.

    ``patience`` is how long a model is waited for before others in use are held back for it, and how long a model that
    was just loaded goes on with those who waited for it though others are overdue. ``quiet`` is for ``Lanes``.
    """

    def __init__(self, budget: int, *, patience: float = 10.0, quiet: float = 0.5) -> None:
        self.loads = Loads(budget, patience=patience)
        self.lanes = Lanes(quiet)
        self.ledger = self.loads.ledger
        self.residents = self.loads.residents
        self._pools: dict[str, Pool] = {}
        self._tickets: dict[int, Pool] = {}

    def pool(self, key: str, replicas: Sequence[Replica] = ()) -> Pool:
        """The pool of a model; with ``replicas``, what it shall have from the next load on."""
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = Pool(key)
        if replicas:
            pool.shape(replicas)
        return pool

    # callers

    def admit(self, pool: Pool, key: str, now: float) -> Resident | None:
        """Give an interactive caller a slot, if one is free and nobody waits for it: the hot path.

        ``lanes.yielded`` may be filled by it; ``step`` turns that into commands.
        """
        if len(pool.waiting):
            return None
        resident = pool.seat()
        if resident is None:
            return None
        pool.waiting.charge(key, pool.seconds)
        self.lanes.interactive += 1
        self._begin(resident, now)
        return resident

    def ask(self, ticket: int, pool: Pool, now: float, *, key: str = "", lane: Lane = "interactive") -> None:
        """A caller waits for a slot, and for the model to be loaded if it is not."""
        self._tickets[ticket] = pool
        if lane == "batch":
            pool.batch.push(ticket, key, now)
            return
        pool.waiting.push(ticket, key, now)
        self.lanes.interactive += 1
        self.lanes.make_way(now)

    def visit(self, ticket: int, pool: Pool, now: float) -> None:
        """A caller waits for the model to be loaded, and wants no slot."""
        self._tickets[ticket] = pool
        pool.visitors[ticket] = now

    def cancel(self, ticket: int, now: float) -> None:
        """A caller waits no longer."""
        pool = self._tickets.pop(ticket, None)
        if pool is None:
            return
        if pool.waiting.discard(ticket):
            self.lanes.left(now)
        elif not pool.batch.discard(ticket):
            pool.visitors.pop(ticket, None)

    def done(self, resident: Resident, key: str, charged: float, seconds: float, now: float) -> bool:
        """An interactive caller needs its slot no longer, after so many seconds; True if ``step`` should be called."""
        pool = resident.pool
        resident.active -= 1
        resident.last_used = now
        pool.waiting.shares.settle(key, seconds - charged)
        pool.seconds += 0.1 * (seconds - pool.seconds)
        self.loads.busy_seconds += 0.1 * (seconds - self.loads.busy_seconds)
        self.lanes.left(now)
        return bool(len(pool.waiting)) or (self.lanes.interactive == 0 and bool(self._tickets))

    def release(self, resident: Resident, now: float) -> bool:
        """Give a lease back whose slot, if it had one, is ``done``; True if ``step`` should be called."""
        resident.busy -= 1
        resident.last_used = now
        resident.fresh = False
        return resident.busy == 0 and (resident.leaving or bool(self._tickets) or self.ledger.free < 0)

    def finish(self, ticket: int, now: float) -> bool:
        """Batch work gives slot and lease back, if it still has them; True if ``step`` should be called."""
        return self.lanes.end(ticket, now) and bool(self._tickets)

    # replicas

    def failed(self, pool: Pool, key: str, now: float) -> list[int]:
        """A replica can't be loaded. Those who wait get another one; if there is none left, returns their tickets."""
        pool.failed.add(key)
        self.loads.forget(key)
        if pool.present or pool.next_replica() is not None:
            return []
        pool.failed.clear()
        tickets = [*pool.visitors, *pool.waiting.tickets, *pool.batch.tickets]
        for ticket in tickets:
            self.cancel(ticket, now)
        return tickets

    def gone(self, key: str, now: float) -> None:
        """The replica's process has ended, however that happened."""
        resident = self.loads.gone(key)
        if resident is not None:
            self.lanes.clear(now, resident)

    # what is known

    @property
    def wanted(self) -> list[str]:
        """The pools that somebody waits in."""
        return [pool.key for pool in self._pools.values() if pool.pending]

    def outlook(self, pool: Pool, ticket: int = 0) -> Outlook:
        """Where a ticket stands. One that does not wait stands where a newcomer of a new key would."""
        place = pool.waiting.place(ticket) or len(pool.waiting.keys) + 1
        turns = place / (pool.capacity or 1) * pool.seconds
        if pool.present:
            return Outlook(place, turns, "all its slots are taken", True)
        waits = [wait for r in pool.replicas if (wait := self.loads.waiting(r.key)) is not None]
        if waits:
            return Outlook(waits[0].place, waits[0].estimate, waits[0].reason, False)
        return Outlook(place, self.loads.load_seconds, "it is not loaded", False)

    # decisions

    def step(self, now: float) -> list[Command]:
        """All that can be done now. Until something else happens, another step changes nothing."""
        self.loads.relieve()
        commands = self._grants(now)
        again = True
        while again:
            self.loads.refresh(self._pools.values(), now)
            found, refused = self.loads.advance(now, batch=self.lanes.open(now))
            commands.extend(found)
            again = False
            for pool, refuse in refused:
                tickets = self.failed(pool, refuse.key, now)
                commands.extend(Refuse(ticket, refuse.key, refuse.refusal) for ticket in tickets)
                again = again or (pool.pending and not pool.present)
        commands.extend(self._evictions(now))
        commands.extend(self._grants(now))
        commands.extend(self._loans(now))
        yielded, self.lanes.yielded = self.lanes.yielded, []
        return [*(Preempt(ticket) for ticket in yielded), *commands]

    def next_wake(self, now: float) -> float | None:
        """When time alone will change a decision; None if nothing waits."""
        times = self.loads.wakes()
        if any(len(pool.batch) for pool in self._pools.values()):
            opens = self.lanes.opens(now)
            times.append(now + self.loads.patience if opens is None else opens)
        later = [time for time in times if time > now]
        return min(later) if later else (now + self.loads.patience if times else None)

    def _begin(self, resident: Resident, now: float) -> None:
        resident.busy += 1
        resident.active += 1
        resident.last_used = now
        resident.fresh = False
        if self.lanes.running:
            self.lanes.make_way(now, resident)

    def _evictions(self, now: float) -> list[Command]:
        found: list[Command] = []
        for resident in self.residents.values():
            if resident.leaving and resident.batch:
                self.lanes.clear(now, resident)
            if resident.leaving and resident.busy == 0 and not resident.loading and not resident.told:
                resident.told = True
                found.append(Evict(resident.key))
        return found

    def _grants(self, now: float) -> list[Command]:
        found: list[Command] = []
        for pool in self._pools.values():
            if pool.members and pool.wanted:
                ready = [member for member in pool.members.values() if member.ready]
                if ready and pool.visitors:
                    found.extend(self._welcome(pool, ready[0]))
                while ready and len(pool.waiting) and (grant := self._next(pool, ready, now)) is not None:
                    found.append(grant)
        return found

    def _loans(self, now: float) -> list[Command]:
        """What is left when all others have what they can have goes to batch work, if it may run."""
        found: list[Command] = []
        if self.lanes.open(now):
            for pool in self._pools.values():
                while len(pool.batch) and not len(pool.waiting) and (grant := self._lend(pool, now)) is not None:
                    found.append(grant)
        return found

    def _welcome(self, pool: Pool, resident: Resident) -> list[Command]:
        tickets = list(pool.visitors)
        pool.visitors.clear()
        for ticket in tickets:
            del self._tickets[ticket]
        resident.busy += len(tickets)
        resident.fresh = False
        return [Grant(ticket, resident.key) for ticket in tickets]

    def _next(self, pool: Pool, ready: list[Resident], now: float) -> Grant | None:
        """Whose turn it is for a slot of this pool, if one is free.

        A model that is held back for others goes on with those who waited for its load, for a while: else models that
        are wanted by many would take turns in memory without getting anything done.
        """
        before = None
        resident = pool.choose([member for member in ready if not member.held])
        if resident is None:
            turns = [m for m in ready if m.held and (m.fresh or now < m.loaded_at + self.loads.patience)]
            resident = pool.choose(turns)
            before = resident.loaded_at if resident is not None else None
        ticket = pool.waiting.pop(pool.seconds, before) if resident is not None else None
        if resident is None or ticket is None:
            return None
        del self._tickets[ticket]
        self._begin(resident, now)
        return Grant(ticket, resident.key, pool.seconds)

    def _lend(self, pool: Pool, now: float) -> Grant | None:
        """The next of the batch lane for a slot of this pool, if one is free."""
        ready = [m for m in pool.members.values() if m.ready and not m.held]
        resident = pool.choose([m for m in ready if m.batch < self.lanes.most(m.capacity, now)], batch=True)
        ticket = pool.batch.pop(pool.seconds) if resident is not None else None
        if resident is None or ticket is None:
            return None
        del self._tickets[ticket]
        self.lanes.begin(ticket, resident, now)
        return Grant(ticket, resident.key, pool.seconds)
