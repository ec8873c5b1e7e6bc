"""Which examples a question is shown: all, the first of them, or the nearest to it by words or by vectors."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from dockyard.prompt.model import Example, Prompt

Embed = Callable[[str, Sequence[str]], Awaitable[list[list[float]]]]
"""A vector of each text by a model."""
MOST_KEPT = 64
_WORD = re.compile(r"\w+")


class Chooser:
    """Chooses examples; remembers the vectors of those that it has seen."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed
        self._vectors: dict[tuple[str, str], list[list[float]]] = {}

    async def chosen(self, prompt: Prompt, said: str, key: str = "") -> tuple[Example, ...]:
        """The examples in the order in which they are shown, the nearest last: models heed what is near the question.

        ``key`` names the prompt's content, under which vectors of its examples are kept. Raises what ``embed`` does.
        """
        select, examples = prompt.select, prompt.examples
        if select is None or not examples:
            return examples
        if select.by == "first":
            return examples[: select.count]
        texts = [one.input for one in examples]
        scores = by_words(said, texts) if select.by == "words" else await self._near(select.model, said, texts, key)
        best = sorted(range(len(examples)), key=lambda place: (-scores[place], place))[: select.count]
        return tuple(examples[place] for place in reversed(best))

    async def _near(self, model: str, said: str, texts: Sequence[str], key: str) -> list[float]:
        kept = self._vectors.get((key, model)) if key else None
        if kept is None:
            kept = await self._embed(model, texts)
            if key:
                if len(self._vectors) >= MOST_KEPT:
                    self._vectors.pop(next(iter(self._vectors)), None)
                self._vectors[key, model] = kept
        (asked,) = await self._embed(model, [said])
        return [_cosine(asked, one) for one in kept]


def by_words(said: str, texts: Sequence[str]) -> list[float]:
    """How many of a text's words the question has too: the cosine of both counts, rare words counting more."""
    bags = [Counter(_WORD.findall(text.casefold())) for text in texts]
    spread = Counter(word for bag in bags for word in bag)
    weight = {word: math.log(1 + len(bags) / count) for word, count in spread.items()}
    asked = Counter(_WORD.findall(said.casefold()))

    def norm(bag: Counter[str]) -> float:
        return math.sqrt(sum((count * weight.get(word, 0.0)) ** 2 for word, count in bag.items())) or 1.0

    return [
        sum(count * asked[word] * weight[word] ** 2 for word, count in bag.items()) / (norm(bag) * norm(asked))
        for bag in bags
    ]


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    norms = math.sqrt(sum(x * x for x in one)) * math.sqrt(sum(x * x for x in other))
    return sum(x * y for x, y in zip(one, other, strict=True)) / norms if norms else 0.0
