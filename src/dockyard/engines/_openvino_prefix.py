"""How much of a prompt comes from the prefix cache. GenAI knows and does not tell, so its rule is followed here.

A block of tokens is kept under a hash of itself and of all before it; the least recently used goes when the pool is
full. Only whole blocks are counted here, so that the figure is a lower bound: GenAI may reuse a part of one more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence

from dockyard.engines._openvino_plan import BLOCK


class Prefixes:
    """The blocks that were computed of late, at most ``blocks`` of them (0: nothing is kept)."""

    def __init__(self, blocks: int) -> None:
        self._blocks = blocks
        self._known: OrderedDict[int, None] = OrderedDict()

    def cached(self, ids: Sequence[int]) -> int:
        """Tokens of a prompt that need not be computed; the last one always is."""
        if not self._blocks:
            return 0
        count = 0
        for key in _chain(ids):
            if key not in self._known:
                break
            self._known.move_to_end(key)
            count += BLOCK
        return min(count, len(ids) - 1)

    def add(self, ids: Sequence[int]) -> None:
        """Tokens that were computed: a prompt and what was said to it."""
        if not self._blocks:
            return
        for key in _chain(ids):
            self._known[key] = None
            self._known.move_to_end(key)
        while len(self._known) > self._blocks:
            self._known.popitem(last=False)


def _chain(ids: Sequence[int]) -> Iterator[int]:
    key = 0
    for start in range(0, len(ids) - BLOCK + 1, BLOCK):
        key = hash((key, *ids[start : start + BLOCK]))
        yield key
