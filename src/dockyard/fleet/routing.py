"""Which replica of a model takes the next request. Pure.

The order in which a model's engines are named says what they are for: the first is the quickest for a single stream,
the last the best for a crowd. A request that finds the model idle goes to the first; one that finds company goes to the
last. As long as anything is under way newcomers join the crowd, so the two do not take turns on the same cores.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec


class Seats(msgspec.Struct, frozen=True):
    """A replica that is ready: its engine, requests under way on it, and how many it takes together."""

    engine: str
    active: int
    capacity: int

    @property
    def free(self) -> bool:
        return self.active < self.capacity


def route(replicas: Sequence[Seats], order: Sequence[str] = (), *, company: bool = False) -> int | None:
    """The index of the replica to use, or None if no slot is free. ``order`` names the engines, also those not ready.

    ``company`` says that others have come at the same time, and are about to be given theirs.

    Of several replicas on the engine chosen the least loaded is used; if that engine has no free slot, any other.
    """
    free = [index for index, seats in enumerate(replicas) if seats.free]
    if not free:
        return None
    names = list(dict.fromkeys([*order, *(seats.engine for seats in replicas)]))
    alone = not company and not any(seats.active for seats in replicas)

    def rank(index: int) -> tuple[int, float, int]:
        seats = replicas[index]
        place = names.index(seats.engine)
        return (place if alone else -place, seats.active / seats.capacity, index)

    return min(free, key=rank)
