"""Whether passages hold the answer to a question, and which sentence holds it best.

A reranker is sure of a passage that is about the right thing, whether or not it says what is asked: its headings alone
earn most of the score. So sentences are judged, and each in three ways: under its headings, where it shows that it
belongs to what the question names; bare, where it has to say what is asked; and by how much nearer its vector is to the
question's than those of its neighbours, which knows other words for the same. The three make one probability, by a
logistic model that was fitted on made-up places (``benchmarks/knowledge/answerable.py``).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

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
"""Sentences that are judged in all three ways: those that the reranker likes best under their headings."""
BIAS, HEADED, BARE, NEARER = -3.41, 0.800, 0.356, 29.0
"""The logistic model of the two logits and the cosine. From 0.5 on the documents hold the answer."""
SHARED = 0.5
"""Share of the question's words that a sentence holds, from which it is quoted where no reranker judges."""


class Evidence(msgspec.Struct, frozen=True):
    """How likely the passages hold the answer, and the sentence that does best; None: none does well enough."""

    probability: float = 0.0
    best: Support | None = None


class Sentence(msgspec.Struct, frozen=True):
    """A sentence of the hit at ``place``, from ``begin`` to ``end`` of its text; ``headed``: with the headings."""

    place: int
    begin: int
    end: int
    bare: str
    headed: str


async def evidence(hits: Sequence[Hit], models: Models, recipe: Recipe, question: str) -> Evidence:
    """What there is for an answer. Without a reranker passages count as they were found, and sentences by their
    words."""
    found = said(hits)
    if not found:
        return Evidence()
    if not recipe.reranker:
        return _by_words(hits, found, question)
    judged = await measured(found, models, recipe, question)
    chances = [logistic(BIAS + HEADED * headed + BARE * bare + NEARER * nearer) for _, headed, bare, nearer in judged]
    best = max(range(len(judged)), key=lambda number: (chances[number], -number))
    return Evidence(chances[best], _support(hits, judged[best][0]))


def said(hits: Sequence[Hit]) -> list[Sentence]:
    """The sentences of the hits, as far as they are judged."""
    found = []
    for place, hit in enumerate(hits):
        for begin, end in sentences(hit.text):
            text = hit.text[begin:end]
            if len(text) >= SHORTEST:
                found.append(Sentence(place, begin, end, text, f"{hit.heading}: {text}" if hit.heading else text))
    return found[:MOST_SENTENCES]


async def measured(
    found: Sequence[Sentence], models: Models, recipe: Recipe, question: str
) -> list[tuple[Sentence, float, float, float]]:
    """The sentences that come closest, each with its logit under its headings, its bare logit, and by how much its
    cosine is above the mean of theirs."""
    logits = await scored(models, recipe.reranker, question, [one.headed for one in found])
    order = sorted(range(len(found)), key=lambda number: (-logits[number], number))[:CLOSE]
    close = [found[number] for number in order]
    bare = await scored(models, recipe.reranker, question, [one.bare for one in close])
    texts = [recipe.query_prefix + question, *(recipe.passage_prefix + one.headed for one in close)]
    asked, *vectors = await vectors_of(models, recipe.embedder, texts)
    near = [cosine(asked, vector) for vector in vectors]
    nearer = [one - sum(near) / len(near) for one in near]
    return list(zip(close, [logits[number] for number in order], bare, nearer, strict=True))


def _by_words(hits: Sequence[Hit], found: Sequence[Sentence], question: str) -> Evidence:
    wanted = set(words(question)) | names(question)
    shares = [len(wanted & set(words(one.headed))) / (len(wanted) or 1) for one in found]
    best = max(range(len(found)), key=lambda number: (shares[number], -number))
    likely = max(hit.score for hit in hits)
    return Evidence(likely, _support(hits, found[best]) if shares[best] >= SHARED else None)


def _support(hits: Sequence[Hit], found: Sentence) -> Support:
    start = hits[found.place].start
    return Support(found.place, start + found.begin, start + found.end, 1.0)
