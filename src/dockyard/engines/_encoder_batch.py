"""Which texts of which requests go through an encoder together: pure choice, and the lanes that carry it out.

A lane is a thread with one core: measured with bge-small on two cores, as many texts a second as batches across cores,
and no padding. Batches pay for short texts only (14 tokens: 1.7 times as many in float32), and cost from 300 tokens
on, so a batch is bounded by its tokens.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

BATCH_TOKENS = 512
"""Tokens of one batch, padding included; a longer text goes alone."""

SIMILAR = 1.25
"""A text joins a batch whose longest is at most so many times its length: the rest would be padding."""

MAX_BATCH = 32


class Item(msgspec.Struct, frozen=True):
    """One text as token ids; ``types`` tells the second of a pair from the first."""

    ids: list[int]
    types: list[int]


class Work:
    """The texts of one request: those that wait, by place, and results as they come."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self.waiting = deque(sorted(range(len(items)), key=lambda place: len(items[place].ids)))
        self.results: list[Any] = [None] * len(items)
        self.left = len(items)
        self.error: BaseException | None = None


def pick(works: Sequence[Work], most: int, lanes: int) -> list[tuple[Work, int]]:
    """Take the next batch out of ``works``, the request whose turn it is first; [] where nothing waits.

    The first text is the shortest of the first request; others join in the order of requests, each with its texts of
    about that length, until there are ``most`` or ``BATCH_TOKENS`` or a lane's fair share of all that waits.
    """
    total = sum(len(work.waiting) for work in works)
    most = min(most, -(-total // lanes))
    taken: list[tuple[Work, int]] = []
    least = longest = 0
    for work in works:
        while work.waiting and len(taken) < most:
            place = work.waiting[0]
            length = len(work.items[place].ids)
            low, high = min(least or length, length), max(longest, length)
            if taken and (high > SIMILAR * low or high * (len(taken) + 1) > BATCH_TOKENS):
                break
            least, longest = low, high
            taken.append((work, work.waiting.popleft()))
    return taken


class Lanes:
    """Threads that run batches. ``run`` blocks until a request's texts are through, and may be called by many."""

    def __init__(self, count: int, most: int, infer: Callable[[list[Item]], Sequence[Any]]) -> None:
        self._most = most
        self._count = count
        self._infer = infer
        self._works: deque[Work] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._threads = [threading.Thread(target=self._loop, name=f"lane {n}", daemon=True) for n in range(count)]
        for thread in self._threads:
            thread.start()

    def run(self, items: Sequence[Item], unwanted: Callable[[], bool]) -> list[Any] | None:
        """One result for each item, in their order; None once ``unwanted`` says so. Raises what ``infer`` raised."""
        work = Work(items)
        with self._changed:
            self._works.append(work)
            self._changed.notify_all()
            while work.left and work.error is None and not self._closed:
                self._changed.wait(0.05)
                if unwanted():
                    work.waiting.clear()
                    return None
        if work.error is not None:
            raise work.error
        return work.results if not work.left else None

    def close(self) -> None:
        """What runs comes to its end; what waits does not begin."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(5.0)

    def _next(self) -> list[tuple[Work, int]]:
        """Wait for a batch; the request that was served goes behind the others. [] at the end."""
        with self._changed:
            while not self._closed:
                while self._works and not self._works[0].waiting:
                    self._works.popleft()
                if batch := pick(self._works, self._most, self._count):
                    self._works.rotate(-1)
                    return batch
                self._changed.wait()
        return []

    def _loop(self) -> None:
        while batch := self._next():
            found: Sequence[Any] = ()
            error: BaseException | None = None
            try:
                found = self._infer([work.items[place] for work, place in batch])
            except Exception as raised:  # noqa: BLE001 - whatever the runtime throws ends the requests of this batch
                error = raised
            with self._changed:
                for number, (work, place) in enumerate(batch):
                    work.left -= 1
                    if error is not None:
                        work.error = error
                        work.waiting.clear()
                    else:
                        work.results[place] = found[number]
                self._changed.notify_all()
