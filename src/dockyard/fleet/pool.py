"""The replicas of one model: their slots, and who waits for one. Pure bookkeeping."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from dockyard.fleet.fairness import FairQueue
from dockyard.fleet.routing import Seats, route

EVER = 1 << 30
"""The capacity of a model that does not bound how many requests it takes together."""


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """What a load of one replica would take, in bytes; ``floor`` of them for certain. ``engine`` is for routing."""

    key: str
    need: int
    floor: int = 0
    engine: str = ""


class Resident:
    """A replica that holds memory, from the start of its load to the end of its process.

    ``busy`` counts its leases, ``active`` the slots that interactive ones have and ``batch`` those of batch work, which
    it lends them as long as nobody else wants any. Times are the schedule's.
    """

    __slots__ = (
        "active", "batch", "busy", "capacity", "engine", "fresh", "held", "key", "last_used", "leaving", "loaded_at",
        "loading", "pinned", "pool", "told",
    )  # fmt: skip

    def __init__(self, replica: Replica, pool: Pool, *, pinned: bool, now: float) -> None:
        self.key = replica.key
        self.engine = replica.engine
        self.pool = pool
        self.capacity = 1
        self.busy = 0
        self.active = 0
        self.batch = 0
        self.pinned = pinned
        self.last_used = now
        self.loaded_at = now
        self.loading = True
        self.leaving = False
        self.held = False
        """Gets nothing new, because a model that waited too long needs its memory."""
        self.fresh = True
        """Loaded, but no lease of it was granted yet."""
        self.told = False
        """The driver was told to evict it."""

    @property
    def ready(self) -> bool:
        return not self.loading and not self.leaving

    @property
    def working(self) -> int:
        """Leases that nothing may be taken from."""
        return self.busy - self.batch


class Pool:
    """One model in one mode. ``replicas`` are those that it should have; ``members`` those that hold memory.

    ``waiting`` and ``batch`` queue for slots, ``visitors`` wait for the model to be loaded and want no slot.
    ``seconds`` is how long a slot is usually held.
    """

    __slots__ = (
        "arriving", "batch", "company", "failed", "key", "members", "order", "replicas", "seconds", "turns", "visitors",
        "waiting",
    )  # fmt: skip

    def __init__(self, key: str) -> None:
        self.key = key
        self.replicas: tuple[Replica, ...] = ()
        self.order: tuple[str, ...] = ()
        self.members: dict[str, Resident] = {}
        self.waiting = FairQueue()
        self.batch = FairQueue()
        self.visitors: dict[int, float] = {}
        self.arriving = 0
        """Requests that came to an idle model of several engines within the same moment."""
        self.company = False
        """Whether the one that is given its place now is one of several."""
        self.seconds = 2.0
        self.failed: set[str] = set()
        """Replicas whose load failed since one was last ready."""
        self.turns: dict[str, float] = {}
        """For each key that waits for a load: where its turn starts among all loads."""

    def shape(self, replicas: Iterable[Replica]) -> None:
        """What the replicas shall be from the next load on; the first is loaded first."""
        self.replicas = tuple(replicas)
        self.order = tuple(dict.fromkeys(replica.engine for replica in self.replicas))

    @property
    def undecided(self) -> bool:
        """Idle, and which engine is best depends on how many come together."""
        return len(self.order) > 1 and not any(member.active for member in self.members.values())

    @property
    def pending(self) -> bool:
        return bool(len(self.waiting) or len(self.batch) or self.visitors)

    @property
    def wanted(self) -> bool:
        """Whether somebody waits who is not of the batch lane."""
        return bool(len(self.waiting) or self.visitors)

    @property
    def present(self) -> bool:
        """Whether a replica is loaded or being loaded, and stays."""
        return any(not member.leaving for member in self.members.values())

    @property
    def capacity(self) -> int:
        return sum(member.capacity for member in self.members.values() if member.ready)

    def next_replica(self) -> Replica | None:
        """The replica to load for those who wait; None if all have failed."""
        return next((replica for replica in self.replicas if replica.key not in self.failed), None)

    def missing(self) -> list[Replica]:
        """Replicas that it should have besides those it has."""
        return [r for r in self.replicas if r.key not in self.members and r.key not in self.failed]

    def seat(self) -> Resident | None:
        """The replica that takes the next interactive request, if one has a free slot and may be given new ones."""
        if len(self.members) == 1:  # the hot path
            (member,) = self.members.values()
            if member.loading or member.leaving or member.held or member.active >= member.capacity:
                return None
            return member
        return self.choose([m for m in self.members.values() if m.ready and not m.held])

    def choose(self, among: list[Resident], *, batch: bool = False) -> Resident | None:
        """The replica to use of these. A slot lent to batch work is free for all but batch work."""
        seats = [Seats(m.engine, m.active + (m.batch if batch else 0), m.capacity) for m in among]
        index = route(seats, self.order, company=self.company)
        return among[index] if index is not None else None

    def since(self) -> tuple[float, int]:
        """Since when the one who waits longest does, and their ticket; batch work counts only if nobody else waits."""
        times = [(since, ticket) for ticket, since in self.visitors.items()]
        if (oldest := self.waiting.oldest) is not None:
            times.append(oldest)
        if not times and (oldest := self.batch.oldest) is not None:
            times.append(oldest)
        return min(times, default=(0.0, 0))
