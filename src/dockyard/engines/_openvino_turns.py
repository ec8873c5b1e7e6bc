"""Who may decode together: GenAI computes one batch with one adapter, so requests take turns by adapter.

While nobody waits for another adapter, newcomers of the running one join at once. Once somebody does, the running
group takes newcomers for ``TURN_SECONDS`` more and is then let run out; next is the group whose first request has
waited longest. So nobody waits longer than each group ahead of it takes for a turn and its longest answer.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

TURN_SECONDS = 1.0

Item = TypeVar("Item", bound=Hashable)


class _Waiting(NamedTuple, Generic[Item]):
    key: str
    item: Item
    since: float


class Turns(Generic[Item]):
    """``key`` is the group whose turn it is. No clock and no thread of its own: times are given."""

    def __init__(self, seconds: float = TURN_SECONDS) -> None:
        self.key = ""
        self._seconds = seconds
        self._begun = 0.0
        self._waiting: list[_Waiting[Item]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, key: str, item: Item, now: float) -> None:
        self._waiting.append(_Waiting(key, item, now))

    def remove(self, item: Item) -> bool:
        """Whether it was still waiting."""
        before = len(self._waiting)
        self._waiting = [each for each in self._waiting if each.item != item]
        return len(self._waiting) < before

    def items(self) -> list[Item]:
        return [each.item for each in self._waiting]

    def take(self, running: int, now: float) -> list[Item]:
        """Those who start now; ``running`` of the last ones taken are not finished. Sets ``key`` where none are."""
        if not self._waiting:
            return []
        if not running:
            self.key, self._begun = self._waiting[0].key, now
        other = next((each.since for each in self._waiting if each.key != self.key), None)
        if running and other is not None and now - max(self._begun, other) >= self._seconds:
            return []
        taken = [each.item for each in self._waiting if each.key == self.key]
        self._waiting = [each for each in self._waiting if each.key != self.key]
        return taken
