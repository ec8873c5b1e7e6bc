"""Whether passages hold the answer to a question, and which sentence holds it best.

A reranker is sure of a passage that is about the right thing, whether or not it says what is asked: its headings alone
earn most of the score. So sentences are judged, and each in five ways:

- under its headings, where it shows that it belongs to what the question names;
- bare, where it has to say what is asked;
- bare against the question without its names, which a bare sentence can't answer to;
- by how much nearer its vector is to the question's than those of its neighbours, which knows other words for the same;
- by how near its words come to each word of the question, which sees what is asked and not said.

The sixth input is whether the question has names: headings that repeat them earn what sentences of a document about one
thing alone do not. The six make one probability, by a logistic model that was fitted on made-up places
(``benchmarks/knowledge/answerable.py``).
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence

import msgspec

from dockyard.knowledge import asked
from dockyard.knowledge.chunkers._sentences import sentences
from dockyard.knowledge.claims import Support, names, words
from dockyard.knowledge.feed import vectors_of
from dockyard.knowledge.model import Hit, Recipe
from dockyard.knowledge.models import Models, cosine
from dockyard.knowledge.retrieve import logistic, scored

MOST_SENTENCES = 48
SHORTEST = 9
"""Characters of a sentence that may hold an answer."""
CLOSE = 8
"""Sentences that are judged in all ways: those that the reranker likes best under their headings."""
BIAS = -6.75
WEIGHTS = (0.72, -0.87, 0.75, 26.85, 8.24, -5.25)
"""The logistic model of what is measured. From 0.5 on the documents hold the answer."""
WORDS_AT_ONCE = 64
SHARED = 0.5
"""Share of the question's words that a sentence holds, from which it is quoted where no reranker judges."""


class Evidence(msgspec.Struct, frozen=True):
    """How likely the passages hold the answer, and the sentence that does best; None: none does well enough. Where a
    reranker has judged, that sentence is also the ``anchor`` on which an answer has to rest."""

    probability: float = 0.0
    best: Support | None = None
    anchor: Support | None = None


class Sentence(msgspec.Struct, frozen=True):
    """A sentence of the hit at ``place``, from ``begin`` to ``end`` of its text; ``headed``: with ``heading``."""

    place: int
    begin: int
    end: int
    bare: str
    heading: str

    @property
    def headed(self) -> str:
        return f"{self.heading}: {self.bare}" if self.heading else self.bare


Inputs = tuple[float, float, float, float, float, float]


async def evidence(hits: Sequence[Hit], models: Models, recipe: Recipe, question: str) -> Evidence:
    """What there is for an answer. Without a reranker passages count as they were found, and sentences by their
    words."""
    found = said(hits)
    if not found:
        return Evidence()
    if not recipe.reranker:
        return _by_words(hits, found, question)
    judged = await measured(found, models, recipe, question)
    chances = [logistic(BIAS + sum(map(operator.mul, WEIGHTS, inputs))) for _, inputs in judged]
    best = max(range(len(judged)), key=lambda number: (chances[number], -number))
    found_best = _support(hits, judged[best][0])
    return Evidence(chances[best], found_best, found_best)


def said(hits: Sequence[Hit]) -> list[Sentence]:
    """The sentences of the hits, as far as they are judged."""
    found = []
    for place, hit in enumerate(hits):
        for begin, end in sentences(hit.text):
            text = hit.text[begin:end]
            if len(text) >= SHORTEST:
                found.append(Sentence(place, begin, end, text, hit.heading))
    return found[:MOST_SENTENCES]


async def measured(
    found: Sequence[Sentence], models: Models, recipe: Recipe, question: str
) -> list[tuple[Sentence, Inputs]]:
    """The sentences that come closest, each with its logit under its headings, its bare logit, that against the
    question without names, by how much its cosine is above the mean of theirs, how it covers the question, and 1 if the
    question has names."""
    logits = await scored(models, recipe.reranker, question, [one.headed for one in found])
    order = sorted(range(len(found)), key=lambda number: (-logits[number], number))[:CLOSE]
    close = [found[number] for number in order]
    nameless = asked.without_names(question)
    bare = plain = await scored(models, recipe.reranker, question, [one.bare for one in close])
    if nameless != question:
        plain = await scored(models, recipe.reranker, nameless, [one.bare for one in close])
    texts = [recipe.query_prefix + question, *(recipe.passage_prefix + one.headed for one in close)]
    query, *vectors = await vectors_of(models, recipe.embedder, texts)
    near = [cosine(query, vector) for vector in vectors]
    covers = await _covers(close, models, recipe, question)
    inputs = [
        (logits[number], bare[at], plain[at], near[at] - sum(near) / len(near), covers[at], float(nameless != question))
        for at, number in enumerate(order)
    ]
    return list(zip(close, inputs, strict=True))


async def _covers(close: Sequence[Sentence], models: Models, recipe: Recipe, question: str) -> list[float]:
    """For each sentence how near its words come to those of the question."""
    wanted = [asked.asked_words(question, one.heading) for one in close]
    held = [asked.content(one.bare) for one in close]
    each = list(dict.fromkeys(itertools.chain(*wanted, *held)))
    made: dict[str, asked.Vector] = {}
    for first in range(0, len(each), WORDS_AT_ONCE):
        some = each[first : first + WORDS_AT_ONCE]
        made.update(zip(some, map(asked.unit, await vectors_of(models, recipe.embedder, some)), strict=True))
    return [
        asked.cover([made[word] for word in some], [made[word] for word in others])
        for some, others in zip(wanted, held, strict=True)
    ]


def _by_words(hits: Sequence[Hit], found: Sequence[Sentence], question: str) -> Evidence:
    wanted = set(words(question)) | names(question)
    shares = [len(wanted & set(words(one.headed))) / (len(wanted) or 1) for one in found]
    best = max(range(len(found)), key=lambda number: (shares[number], -number))
    likely = max(hit.score for hit in hits)
    return Evidence(likely, _support(hits, found[best]) if shares[best] >= SHARED else None)


def _support(hits: Sequence[Hit], found: Sentence) -> Support:
    start = hits[found.place].start
    return Support(found.place, start + found.begin, start + found.end, 1.0)
