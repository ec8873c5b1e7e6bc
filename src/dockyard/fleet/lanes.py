"""Interactive work and batch work: when the latter may run, and what of it must make way. Pure.

Batch work runs while no interactive request is under way or waiting on this machine, and none was for a short while: a
model that decodes for both gives each token later, and a person notices. With a negative ``quiet`` it also runs beside
interactive work, in slots that are free, and only what stands in the way yields.

What yields still ends the step that it is in, and the newcomer waits for that. So while people are about, batch work
takes few slots: one line's step is short; that of sixteen, each with a prompt to read, takes half a second on 2 cores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dockyard.fleet.pool import Resident


ABOUT_SECONDS = 10.0
"""How long after the last interactive request the next is expected."""
SHARE = 16
"""One slot in so many is lent to batch work while people are about, but at least one."""


class Lanes:
    """``interactive`` counts requests of that lane, waiting or under way; ``running`` the slots that batch work has."""

    __slots__ = ("calm_since", "interactive", "quiet", "running", "yielded")

    def __init__(self, quiet: float) -> None:
        self.quiet = quiet
        self.interactive = 0
        self.calm_since = float("-inf")
        self.running: dict[int, Resident] = {}
        self.yielded: list[int] = []
        """Tickets of batch work that has lost its slot since the last step."""

    @property
    def beside(self) -> bool:
        return self.quiet < 0

    def left(self, now: float) -> None:
        """An interactive request ended, or waits no longer."""
        self.interactive -= 1
        if self.interactive == 0:
            self.calm_since = now

    def open(self, now: float) -> bool:
        """Whether batch work may start now."""
        return self.beside or (self.interactive == 0 and now >= self.calm_since + self.quiet)

    def opens(self, now: float) -> float | None:
        """When time alone will let batch work start, or take more; None if that takes more than time, or it may now."""
        if self.beside or self.interactive:
            return None
        return next((at for at in (self.calm_since + self.quiet, self.calm_since + ABOUT_SECONDS) if now < at), None)

    def most(self, capacity: int, now: float) -> int:
        """How many of a replica's slots batch work may have."""
        if self.beside or now >= self.calm_since + ABOUT_SECONDS:
            return capacity
        return max(1, capacity // SHARE)

    def begin(self, ticket: int, resident: Resident, now: float) -> None:
        """Batch work takes a slot."""
        resident.busy += 1
        resident.batch += 1
        resident.last_used = now
        resident.fresh = False
        self.running[ticket] = resident

    def end(self, ticket: int, now: float) -> bool:
        """Batch work gives its slot back; False if it had been taken from it."""
        resident = self.running.pop(ticket, None)
        if resident is None:
            return False
        resident.busy -= 1
        resident.batch -= 1
        resident.last_used = now
        return True

    def make_way(self, now: float, resident: Resident | None = None) -> None:
        """Interactive work has come, to ``resident`` if that is known: what must yield loses its slots at once."""
        if not self.beside:
            self.clear(now)
        elif resident is not None:
            for ticket in [t for t, r in self.running.items() if r is resident][::-1]:
                if resident.active + resident.batch <= resident.capacity:
                    break
                self._take(ticket, now)

    def clear(self, now: float, resident: Resident | None = None) -> None:
        """All batch work, or all on one model that leaves, loses its slots."""
        for ticket in [t for t, r in self.running.items() if resident is None or r is resident]:
            self._take(ticket, now)

    def _take(self, ticket: int, now: float) -> None:
        self.end(ticket, now)
        self.yielded.append(ticket)
