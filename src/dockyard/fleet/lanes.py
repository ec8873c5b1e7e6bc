"""Interactive work and batch work: when the latter may run, and what of it must make way. Pure.

Batch work runs while no interactive request is under way or waiting on this machine, and none was for a short while: a
model that decodes for both gives each token later, and a person notices. With a negative ``quiet`` it also runs beside
interactive work, in slots that are free, and only what stands in the way yields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dockyard.fleet.pool import Resident


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
        """When time alone will let batch work start; None if that takes more than time, or it may now."""
        if self.beside or self.interactive or now >= self.calm_since + self.quiet:
            return None
        return self.calm_since + self.quiet

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
