"""May a model be loaded now, after which evictions, later, or never? Pure functions over snapshots.

The rules:

- A want is a model that somebody waits for. Wants are served in turn, fairly between the callers; one that comes later
  may overtake only into memory that the earlier do not need. Overdue wants come before all others, oldest first.
- Only idle, unpinned models are evicted, least recently used first, and only if that lets the want be loaded at once.
- A want that waited longer than ``patience`` is overdue. For it as many models as needed are *held*: they finish what
  they serve, get nothing new, and leave. So nobody starves behind a model that is never idle, and until then requests
  for a model in memory go first, which saves swaps.
- A batch want, for which only batch work waits, comes last, holds nobody, and evicts only what was idle for
  ``patience``.
- What does not fit an otherwise empty machine is refused, with the numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec


class Resident(msgspec.Struct, frozen=True):
    """A model in memory. ``busy`` counts its leases; ``leaving`` ones are on their way out and get nothing new."""

    key: str
    charged: int
    busy: int = 0
    pinned: bool = False
    last_used: float = 0.0
    loading: bool = False
    leaving: bool = False

    @property
    def idle(self) -> bool:
        return self.busy == 0 and not self.loading and not self.leaving


class Want(msgspec.Struct, frozen=True):
    """A model that should be loaded, in bytes of ``need``, since when; ``order`` decides between equals.

    ``turn`` is where its callers' turn starts (see ``fairness``): the least goes first.

    ``claimed``: models are leaving, and what they leave is for it; ``hold``: models held for it so far;
    ``not_before``: a restart backs off until then; ``background``: nobody waits, so it may take only free memory.
    """

    key: str
    need: int
    since: float
    claimed: bool = False
    hold: frozenset[str] = frozenset()
    not_before: float = 0.0
    background: bool = False
    batch: bool = False
    turn: float = 0.0
    order: int = 0

    @property
    def spare(self) -> bool:
        """Whether it takes only what others leave."""
        return self.background or self.batch


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that a decision depends on.

    ``ceiling`` is what the machine could give to models now if all of ours were gone, other processes and a safety
    reserve considered. ``load_seconds`` and ``busy_seconds`` are how long a load and a request usually take.
    """

    budget: int
    ceiling: int
    now: float
    patience: float
    residents: Sequence[Resident] = ()
    wants: Sequence[Want] = ()
    load_seconds: float = 2.0
    busy_seconds: float = 2.0

    @property
    def limit(self) -> int:
        return min(self.budget, self.ceiling)


class Load(msgspec.Struct, frozen=True):
    """It fits: reserve and load now."""


class Evict(msgspec.Struct, frozen=True):
    """It will fit once these idle models are gone."""

    keys: tuple[str, ...]


class Wait(msgspec.Struct, frozen=True):
    """Not now. ``place`` counts from 1, ``estimate`` is seconds.

    ``hold`` names the models that must get nothing new; those of them that are idle can leave at once. ``soon``: what
    is leaving anyway makes enough room.
    """

    place: int
    estimate: float
    reason: str
    hold: frozenset[str] = frozenset()
    soon: bool = False


class Refuse(msgspec.Struct, frozen=True):
    """It can't fit, whoever leaves. ``limit`` is what it is measured against, ``cause`` what sets that limit."""

    need: int
    limit: int
    cause: Literal["budget", "pinned", "machine"]


Decision = Load | Evict | Wait | Refuse


def decide(state: State, want: Want) -> Decision:
    """What to do about one of ``state.wants`` now. A resident model that is wanted is the caller's to serve."""
    if refusal := _impossible(state, want):
        return refusal
    if state.now < want.not_before:
        return Wait(_place(state, want), want.not_before - state.now, "restarting after a crash")
    if any(resident.key == want.key for resident in state.residents):
        return Wait(_place(state, want), state.busy_seconds, "its last process is being unloaded")
    older = [other for other in state.wants if _claims(state, other) and before(state, other, want)]
    going = frozenset[str]().union(*(other.hold for other in older))
    stay = [r for r in state.residents if not r.leaving and r.key not in going]
    free = state.limit - sum(r.charged for r in state.residents)
    # Room is what will be free for this want once those that leave or are held have gone and the older are served.
    room = state.limit - sum(r.charged for r in stay) - sum(other.need for other in older)
    if want.need <= min(room, free):
        return Load()
    hold = frozenset[str]()
    if want.need > room and not want.background:
        idle = [r for r in _idle(stay) if not want.batch or r.last_used <= state.now - state.patience]
        enough = _enough(idle, want.need - room)
        if enough:
            return Evict(enough)
        if overdue(state, want) and not want.batch:
            hold = _hold(want, stay, want.need - room)
    why = _why(state, want, free, bool(older))
    return Wait(_place(state, want), estimate(state, want), why, hold, soon=want.need <= room)


def overdue(state: State, want: Want) -> bool:
    return state.now - max(want.since, want.not_before) >= state.patience


def estimate(state: State, want: Want) -> float:
    """Seconds until it may be loaded, from what loads and requests usually take."""
    patience = max(0.0, want.since + state.patience - state.now)
    return min(patience, state.busy_seconds) + _place(state, want) * state.load_seconds


def victims(residents: Iterable[Resident], shortfall: int) -> tuple[str, ...]:
    """The idle, unpinned models to evict, least recently used first, to free ``shortfall`` bytes or all they can."""
    idle = _idle(residents)
    return _enough(idle, shortfall) or tuple(r.key for r in idle)


def _impossible(state: State, want: Want) -> Refuse | None:
    if want.need > state.budget:
        return Refuse(want.need, state.budget, "budget")
    pinned = sum(r.charged for r in state.residents if r.pinned and r.key != want.key)
    if want.need > state.budget - pinned:
        return Refuse(want.need, state.budget - pinned, "pinned")
    if want.need > state.ceiling - pinned:
        return Refuse(want.need, max(0, state.ceiling - pinned), "machine")
    return None


def turn(state: State, want: Want) -> tuple[bool, bool, float, float, int, str]:
    """What wants are served by, the least first."""
    late = overdue(state, want)
    return (want.spare, not late, want.since if late else want.turn, want.since, want.order, want.key)


def before(state: State, first: Want, second: Want) -> bool:
    return turn(state, first) < turn(state, second)


def _claims(state: State, want: Want) -> bool:
    """Whether others must leave this want the memory that it needs."""
    if want.spare or state.now < want.not_before:
        return False
    return want.claimed or overdue(state, want)


def _place(state: State, want: Want) -> int:
    return 1 + sum(before(state, other, want) for other in state.wants if not other.spare)


def _idle(residents: Iterable[Resident]) -> list[Resident]:
    return sorted((r for r in residents if r.idle and not r.pinned), key=lambda r: r.last_used)


def _enough(candidates: Sequence[Resident], shortfall: int) -> tuple[str, ...]:
    """The fewest of the first candidates that free ``shortfall`` bytes; none if all of them do not."""
    taken: list[Resident] = []
    freed = 0
    for resident in candidates:
        if freed >= shortfall:
            break
        taken.append(resident)
        freed += resident.charged
    if freed < shortfall:
        return ()
    for resident in tuple(taken):
        if freed - resident.charged >= shortfall:
            taken.remove(resident)
            freed -= resident.charged
    return tuple(r.key for r in taken)


def _hold(want: Want, stay: Sequence[Resident], shortfall: int) -> frozenset[str]:
    """Those held already stay held (a set that changed its mind could starve the want); then idle, then least used."""
    candidates = sorted(
        (r for r in stay if not r.pinned), key=lambda r: (r.key not in want.hold, not r.idle, r.last_used)
    )
    taken: set[str] = set()
    for resident in candidates:
        if shortfall <= 0:
            break
        taken.add(resident.key)
        shortfall -= resident.charged
    return frozenset(taken)


def _why(state: State, want: Want, free: int, older: bool) -> str:
    if older:
        return "models asked for earlier come first"
    if state.ceiling < state.budget and want.need <= free + state.budget - state.ceiling:
        return "other processes hold the machine's memory"
    return f"waiting for memory: {max(0, free) >> 20} of {want.need >> 20} MiB are free and other models are in use"
