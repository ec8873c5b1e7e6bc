"""Contamination: what a model is trained on must not be what it is tested with.

The rule of GPT-3 (Brown et al., 2020, appendix C): a test item is contaminated when one of its 13-grams of words, or
the whole of an item that is shorter, occurs in the training data. Beside the whole item each of its fields is looked
for, since the same question may be asked with another answer: the first from 5 words on, the others from 8.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from dockyard.ops.dataset.near import plain

WINDOW = 13
LEAST = 5
LEAST_FURTHER = 8
FORM = 0.1
"""Words that more than this share of the items have in common (and more than two) are the form of asking."""
Item = Sequence[str]
"""The texts of one evaluation item, field by field; the first is what is asked."""


class Watch:
    """The n-grams of evaluation items, to look for in texts. ``short`` are the numbers of those that have none."""

    def __init__(self, items: Iterable[Item], window: int = WINDOW) -> None:
        self.window = window
        self._known: dict[int, dict[int, list[int]]] = {}
        self._count = 0
        for number, item in enumerate(items):
            self._count += 1
            if item:
                self._know(" ".join(item), number, LEAST)
                self._know(item[0], number, LEAST)
            for text in item[1:]:
                self._know(text, number, LEAST_FURTHER)
        seen = {number for known in self._known.values() for numbers in known.values() for number in numbers}
        self.short = set(range(self._count)) - seen

    def _know(self, text: str, number: int, least: int) -> None:
        words = plain(text).split()
        size = min(self.window, len(words))
        if size >= least:
            known = self._known.setdefault(size, {})
            for at in range(len(words) - size + 1):
                numbers = known.setdefault(hash(tuple(words[at : at + size])), [])
                if not numbers or numbers[-1] != number:
                    numbers.append(number)

    def hit(self, text: str) -> int | None:
        """The number of an evaluation item that this text shares words with, or None."""
        return next((numbers[0] for numbers in self._found(text)), None)

    def hits(self, text: str) -> set[int]:
        """The numbers of all evaluation items that this text shares words with, beyond the form of asking."""
        most = max(2.0, FORM * self._count)
        return {number for numbers in self._found(text) if len(numbers) <= most for number in numbers}

    def _found(self, text: str) -> Iterator[list[int]]:
        words = plain(text).split()
        for size, known in self._known.items():
            for at in range(len(words) - size + 1):
                numbers = known.get(hash(tuple(words[at : at + size])))
                if numbers is not None:
                    yield numbers


def overlap(texts: Sequence[str], evaluation: Iterable[Item], window: int = WINDOW) -> list[tuple[int, int]]:
    """Pairs (place in ``texts``, place in ``evaluation``) that share words; each text once."""
    watch = Watch(evaluation, window)
    found = ((place, watch.hit(text)) for place, text in enumerate(texts))
    return [(place, other) for place, other in found if other is not None]
