"""Whose line is next, and how many may be under way. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from dockyard.types import LoadedModel


class Share(msgspec.Struct, frozen=True):
    """A batch that has lines to run: its owner, how many of its lines are under way, and when one was last started."""

    key: str
    running: int
    started: float


def pick(shares: Sequence[Share]) -> int | None:
    """The place of the batch whose turn it is: of the key with the fewest lines under way, then of the batch with the
    fewest, then of the one that waited longest. None if there is none.
    """
    if not shares:
        return None
    keys: dict[str, int] = {}
    for share in shares:
        keys[share.key] = keys.get(share.key, 0) + share.running
    return min(range(len(shares)), key=lambda place: _rank(shares[place], keys, place))


def _rank(share: Share, keys: dict[str, int], place: int) -> tuple[int, int, float, int]:
    return keys[share.key], share.running, share.started, place


def room(models: Iterable[LoadedModel], most: int) -> int:
    """How many lines may be under way: one more than the loaded models decode together, so that a slot that falls free
    is taken at once. They wait in the fleet's batch lane, which says when they run.
    """
    slots = sum(model.parallel for model in models if model.state == "ready")
    return min(most, max(2, slots + 1))
