"""Turns between callers: start-time fair queueing (Goyal, Vin, Cheng 1996) over the keys of those who wait. Pure.

A key's next turn starts where its last one ended, but never before the clock, which is the start of the latest turn
that anyone got. So a key that asks much waits behind itself, one that was away is owed nothing, and a lone key is FIFO.
"""

from __future__ import annotations

MOST_KEYS = 4096


class Shares:
    """What each key has had, in units of cost: seconds of a slot, or loads."""

    __slots__ = ("_ends", "clock")

    def __init__(self) -> None:
        self.clock = 0.0
        self._ends: dict[str, float] = {}

    def start(self, key: str) -> float:
        """Where the key's next turn would start."""
        return max(self.clock, self._ends.get(key, 0.0))

    def reserve(self, key: str, cost: float) -> float:
        """Give the key a turn to come; returns its start."""
        start = self.start(key)
        self._ends[key] = start + cost
        if len(self._ends) > MOST_KEYS:
            self._ends = {name: end for name, end in self._ends.items() if end > self.clock}
        return start

    def advance(self, start: float) -> None:
        """A turn with this start has begun."""
        self.clock = max(self.clock, start)

    def settle(self, key: str, difference: float) -> None:
        """A turn cost so much more, or less, than was reserved."""
        end = self._ends.get(key)
        if end is not None:
            self._ends[key] = end + difference


class FairQueue:
    """Tickets that wait, each under its caller's key and since when; popped by the keys' shares, oldest first."""

    __slots__ = ("_keys", "_lines", "shares")

    def __init__(self) -> None:
        self.shares = Shares()
        self._lines: dict[str, dict[int, float]] = {}
        self._keys: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, ticket: int) -> bool:
        return ticket in self._keys

    @property
    def tickets(self) -> list[int]:
        return list(self._keys)

    @property
    def keys(self) -> list[str]:
        """The keys that wait."""
        return list(self._lines)

    @property
    def oldest(self) -> tuple[float, int] | None:
        """Since when the one who waits longest does, and their ticket."""
        heads = [next(iter(line.items())) for line in self._lines.values()]
        return min(((since, ticket) for ticket, since in heads), default=None)

    def push(self, ticket: int, key: str, since: float) -> None:
        self._lines.setdefault(key, {})[ticket] = since
        self._keys[ticket] = key

    def charge(self, key: str, cost: float) -> None:
        """A caller is served without having waited."""
        self.shares.advance(self.shares.reserve(key, cost))

    def pop(self, cost: float, before: float | None = None) -> int | None:
        """The ticket whose turn it is, charged with ``cost``. ``before``: only among those who waited then already."""
        best: tuple[float, float, int] | None = None
        for key, line in self._lines.items():
            ticket, since = next(iter(line.items()))
            if before is None or since <= before:
                rank = (self.shares.start(key), since, ticket)
                best = rank if best is None else min(best, rank)
        if best is None:
            return None
        self.charge(self._keys[best[2]], cost)
        self.discard(best[2])
        return best[2]

    def discard(self, ticket: int) -> bool:
        """They wait no longer; False if they did not."""
        key = self._keys.pop(ticket, None)
        if key is None:
            return False
        line = self._lines[key]
        del line[ticket]
        if not line:
            del self._lines[key]
        return True

    def place(self, ticket: int) -> int:
        """How many will have had their turn when this one has, itself included; 0 for a ticket that does not wait.

        As if all turns cost the same.
        """
        key = self._keys.get(ticket)
        if key is None:
            return 0
        own = list(self._lines[key]).index(ticket)
        return own + 1 + sum(min(len(line), own + 1) for name, line in self._lines.items() if name != key)
