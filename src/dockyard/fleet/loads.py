"""Which replicas are in memory, which should be, and in what order they get it. Pure; ``admission`` has the rules."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from dockyard.fleet import admission
from dockyard.fleet.commands import Command, Load, Refuse
from dockyard.fleet.fairness import Shares
from dockyard.fleet.ledger import Ledger
from dockyard.fleet.pool import Pool, Replica, Resident


class _Want:
    """A replica that should be loaded, for those who wait in its pool or, ``background``, for nobody yet."""

    __slots__ = ("background", "claimed", "hold", "pool", "replica", "since", "waiting")

    def __init__(self, replica: Replica, pool: Pool, now: float, *, background: bool) -> None:
        self.replica = replica
        self.pool = pool
        self.since = now
        self.background = background
        self.claimed = False
        self.hold: frozenset[str] = frozenset()
        self.waiting: admission.Wait | None = None


class Loads:
    """``patience`` is how long a want waits before models in use are held back for it.

    ``ceiling`` is what the machine could give to models now if all of ours were gone.
    """

    def __init__(self, budget: int, *, patience: float) -> None:
        self.ledger = Ledger(budget)
        self.patience = patience
        self.ceiling = budget
        self.residents: dict[str, Resident] = {}
        self.load_seconds = 2.0
        self.busy_seconds = 2.0
        self._wants: dict[str, _Want] = {}
        self._shares = Shares()
        self._learned: dict[str, int] = {}
        self._not_before: dict[str, float] = {}
        self._pins: set[str] = set()

    # what happens

    def recall(self, pool: Pool, now: float) -> None:
        """Load what the pool lacks though nobody waits for it, if that fits without taking anything from others."""
        for replica in pool.missing():
            if replica.key not in self._wants:
                self._wants[replica.key] = _Want(replica, pool, now, background=True)

    def back_off(self, key: str, until: float) -> None:
        """Don't load this replica before then."""
        self._not_before[key] = until

    def forget(self, key: str) -> None:
        """Nobody wants this replica any more."""
        self._wants.pop(key, None)

    def loaded(self, key: str, measured: int | None, seconds: float, now: float, *, capacity: int = 1) -> None:
        """A load ended well. ``measured`` is what it takes; None if that can't be told."""
        resident = self.residents[key]
        resident.loading = False
        resident.loaded_at = now
        resident.capacity = max(1, capacity)
        resident.pool.failed.clear()
        self.load_seconds += 0.3 * (seconds - self.load_seconds)
        if measured is not None:
            self._learned[key] = self.ledger.correct(key, measured)

    def measured(self, key: str, size: int) -> bool:
        """A later measurement of a loaded replica; True if ``step`` should be called."""
        resident = self.residents.get(key)
        if resident is None or resident.loading:
            return False
        self.ledger.correct(key, size)
        return self.ledger.free < 0

    def gone(self, key: str) -> Resident | None:
        """The replica's process has ended, however that happened."""
        resident = self.residents.pop(key, None)
        self.ledger.release(key)
        if resident is not None:
            resident.pool.members.pop(key, None)
        return resident

    def retire(self, key: str) -> None:
        """Unload a replica as soon as nobody uses it; it gets nothing new."""
        if key in self.residents:
            self.residents[key].leaving = True

    def pinned(self, key: str) -> bool:
        return key in self._pins

    def pin(self, key: str, pinned: bool = True) -> None:
        """A pinned replica is never evicted."""
        (self._pins.add if pinned else self._pins.discard)(key)
        if key in self.residents:
            self.residents[key].pinned = pinned

    # what is known

    def is_wanted(self, key: str) -> bool:
        """Whether a replica is waited for and not in memory."""
        return key in self._wants and key not in self.residents

    def waiting(self, key: str) -> admission.Wait | None:
        """What the load of a replica waits for, as of the last step."""
        want = self._wants.get(key)
        return want.waiting if want is not None else None

    def room(self) -> int:
        """Bytes that a model could get at best: everything that is not pinned."""
        pinned = sum(self.ledger.of(r.key) for r in self.residents.values() if r.pinned)
        return max(0, min(self.ledger.budget, self.ceiling) - pinned)

    def preview(self, replica: Replica, now: float) -> admission.Decision:
        """What would be decided on a load of this replica if an interactive caller asked for it now."""
        want = admission.Want(key=replica.key, need=self._need(replica), since=now, turn=self._shares.clock)
        state = self._state(now)
        others = [other for other in state.wants if other.key != replica.key]
        return admission.decide(msgspec.structs.replace(state, wants=[*others, want]), want)

    def wakes(self) -> list[float]:
        """When time alone may change a decision."""
        times: list[float] = []
        for want in self._wants.values():
            shot = self._snapshot(want)
            times.extend((shot.not_before, max(shot.since, shot.not_before) + self.patience))
        return times

    # decisions

    def refresh(self, pools: Iterable[Pool], now: float) -> None:
        """Wants are what pools need for those who wait in them."""
        for pool in pools:
            if not pool.pending or pool.present:
                if pool.turns:
                    pool.turns.clear()
                continue
            replica = pool.next_replica()
            if replica is not None:
                self._take_turns(pool)
                want = self._wants.get(replica.key)
                if want is None:
                    want = self._wants[replica.key] = _Want(replica, pool, now, background=False)
                want.replica, want.background = replica, False
        for key, want in list(self._wants.items()):
            resident = self.residents.get(key)
            here = resident is not None and not resident.leaving
            # Where another replica of the model has come first nobody waits for this one any more.
            if here or (not want.background and (want.pool.present or not want.pool.pending)):
                del self._wants[key]

    def advance(self, now: float, *, batch: bool) -> tuple[list[Command], list[tuple[Pool, Refuse]]]:
        """Decide on every want in turn: what to load, and what can't be. ``batch`` work may be loaded for, or not.

        Models that must leave, or that get nothing new, are marked so.
        """
        commands: list[Command] = []
        refused: list[tuple[Pool, Refuse]] = []
        held: set[str] = set()
        if not self._wants:
            for resident in self.residents.values():
                resident.held = False
            return commands, refused
        first = self._state(now)
        shots = {shot.key: shot for shot in first.wants}
        for shot in sorted(first.wants, key=lambda want: admission.turn(first, want)):
            want = self._wants[shot.key]
            if shot.batch and not batch:
                want.waiting = admission.Wait(1, 0.0, "batch work waits until nobody else needs the machine")
                continue
            decision = admission.decide(self._state(now, shots.values()), shot)
            want.hold = frozenset()
            match decision:
                case admission.Load():
                    self._load(want, shot, now)
                    commands.append(Load(shot.key))
                case admission.Evict(keys):
                    want.claimed = not shot.spare
                    for key in keys:
                        self.residents[key].leaving = True
                case admission.Wait():
                    want.waiting = decision
                    want.claimed = decision.soon and not shot.spare
                    want.hold = decision.hold
                    held |= decision.hold
                    if shot.background and now >= shot.not_before:
                        del self._wants[shot.key]
                case admission.Refuse():
                    del self._wants[shot.key]
                    refused.append((want.pool, Refuse(0, shot.key, decision)))
            if shot.key in self._wants:
                shots[shot.key] = msgspec.structs.replace(shot, claimed=want.claimed, hold=want.hold)
            else:
                del shots[shot.key]
        for key, resident in self.residents.items():
            resident.held = key in held
            if resident.held and resident.working == 0 and not resident.loading:
                resident.leaving = True
        return commands, refused

    def _load(self, want: _Want, shot: admission.Want, now: float) -> None:
        replica, pool = want.replica, want.pool
        self.ledger.reserve(replica.key, shot.need, floor=replica.floor)
        resident = Resident(replica, pool, pinned=replica.key in self._pins, now=now)
        self.residents[replica.key] = pool.members[replica.key] = resident
        self._shares.advance(shot.turn)
        del self._wants[replica.key]

    def relieve(self) -> None:
        """Measurements may have taken the ledger above its budget: idle models leave until it is not.

        If those do not suffice, what was just loaded and has served nobody goes: its callers wait again, now for the
        true size.
        """
        staying = [r for r in self.residents.values() if not r.leaving]
        over = sum(self.ledger.of(r.key) for r in staying) - self.ledger.budget
        if over <= 0:
            return
        fresh = [r for r in staying if r.fresh and r.busy == 0 and not r.loading]
        old = self._residents(r for r in staying if r not in fresh)
        if sum(r.charged for r in old if r.idle and not r.pinned) < over:
            for resident in fresh:
                resident.leaving = True
                over -= self.ledger.of(resident.key)
        if over > 0:
            for key in admission.victims(old, over):
                self.residents[key].leaving = True

    def _take_turns(self, pool: Pool) -> None:
        """Each key's turn among the loads starts where its last one ended, however many of its requests wait here."""
        waiting = pool.waiting.keys
        for key in [key for key in pool.turns if key not in waiting]:
            del pool.turns[key]
        for key in waiting:
            if key not in pool.turns:
                pool.turns[key] = self._shares.reserve(key, 1.0)

    # snapshots for ``admission``

    def _need(self, replica: Replica) -> int:
        return max(replica.need, self._learned.get(replica.key, 0))

    def _snapshot(self, want: _Want) -> admission.Want:
        pool = want.pool
        since, order = (want.since, 0) if want.background else pool.since()
        return admission.Want(
            key=want.replica.key,
            need=self._need(want.replica),
            since=since,
            claimed=want.claimed,
            hold=want.hold,
            not_before=self._not_before.get(want.replica.key, 0.0),
            background=want.background,
            batch=not want.background and not pool.wanted,
            turn=min(pool.turns.values(), default=self._shares.clock),
            order=order,
        )

    def _state(self, now: float, shots: Iterable[admission.Want] | None = None) -> admission.State:
        return admission.State(
            budget=self.ledger.budget,
            ceiling=self.ceiling,
            now=now,
            patience=self.patience,
            residents=self._residents(self.residents.values()),
            wants=list(shots if shots is not None else map(self._snapshot, self._wants.values())),
            load_seconds=self.load_seconds,
            busy_seconds=self.busy_seconds,
        )

    def _residents(self, residents: Iterable[Resident]) -> list[admission.Resident]:
        return [
            admission.Resident(r.key, self.ledger.of(r.key), r.working, r.pinned, r.last_used, r.loading, r.leaving)
            for r in residents
        ]
