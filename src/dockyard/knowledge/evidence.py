"""Whether passages hold the answer to a question, and which sentence holds it best.

A reranker is sure of a passage that is about the right thing, whether or not it says what is asked: its headings alone
earn most of the score. So sentences are judged, and each in five ways:

- under its headings, where it shows that it belongs to what the question names;
- bare, without the names that the question has too, where it has to say what is asked;
- bare against the question without its names, which a bare sentence can't answer to;
- by how much nearer its vector is to the question's than those of its neighbours, which knows other words for the same;
- by how near its words come to each word of the question, which sees what is asked and not said.

The sixth input is whether the question has names: headings that repeat them earn what sentences of a document about one
thing alone do not. The six make one probability, by a logistic model that was fitted on made-up places
(``benchmarks/knowledge/answerable.py``).

With a ``judge``, a chat model is asked about the sentences that do best by these six, and only those count. The six's
own logit and how sure the judge is of its Yes (``judge``) are the inputs of a second logistic model. Where that is in
doubt, how much likelier the question gets after the sentence (``question_likelihood``) is the third input of another.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Sequence

import msgspec

from dockyard.errors import InvalidRequest
from dockyard.knowledge import asked, question_likelihood
from dockyard.knowledge import judge as judging
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
ASKED = 2
"""Sentences that a judge is asked about: those that do best without it."""
JUDGED = {
    2: (0.06, (0.562, 1.718)),
    3: (-3.64, (0.564, 1.641, 3.153)),
}
"""Bias and weights by the number of inputs: of the logit without the judge, of the odds of Qwen2.5-Coder-1.5B as judge,
and of what a sentence adds to the mean log-probability of the question's tokens."""
DOUBT = 4.0
"""The logit, either way, up to which the question's likelihood is asked for: beyond it that changes nothing."""
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

    def plain(self, question: str) -> str:
        """Without the names of the question, as if it had been said in front of the thing."""
        return asked.without_names_of(question, self.bare)

    def under_sections(self, question: str) -> str:
        """``plain``, under its headings without the first, which is the document's title."""
        sections = self.heading.partition(" > ")[2]
        return f"{sections}: {self.plain(question)}" if sections else self.plain(question)


Inputs = tuple[float, ...]
"""What is measured of a sentence: six numbers, and with a judge two or three others."""


async def evidence(hits: Sequence[Hit], models: Models, recipe: Recipe, question: str, judge: str = "") -> Evidence:
    """What there is for an answer. Without a reranker passages count as they were found, and sentences by their
    words. ``judge`` is the model that is asked about the best sentences; "" for none.

    Raises InvalidRequest for a judge where there is no reranker, and what the models raise."""
    if judge and not recipe.reranker:
        raise InvalidRequest(
            f"{recipe.name!r} has no reranker, and a judge is asked about the sentences that a reranker likes",
            param="judge",
            hint="leave the judge out, or make the base with a reranker",
        )
    found = said(hits)
    if not found:
        return Evidence()
    if not recipe.reranker:
        return _by_words(hits, found, question)
    seen = await measured(found, models, recipe, question)
    likely = [(one, weighed(BIAS, WEIGHTS, inputs)) for one, inputs in seen]
    if judge:
        some = await judged(best_of(likely, ASKED), models, judge, question)
        likely = _stacked(some)
        if abs(best_of(likely, 1)[0][1]) <= DOUBT:
            likely = _stacked(await likelier(some, models, judge, question))
    ((best, score),) = best_of(likely, 1)
    found_best = _support(hits, best)
    return Evidence(logistic(score), found_best, found_best)


def weighed(bias: float, weights: Sequence[float], inputs: Inputs) -> float:
    """The logit of a logistic model."""
    return bias + math.fsum(map(operator.mul, weights, inputs))


def best_of(likely: Sequence[tuple[Sentence, float]], count: int) -> list[tuple[Sentence, float]]:
    """Those with the highest logits, the best first."""
    return sorted(likely, key=lambda one: -one[1])[:count]


async def judged(
    some: Sequence[tuple[Sentence, float]], models: Models, judge: str, question: str
) -> list[tuple[Sentence, Inputs]]:
    """The sentences, each with its logit and a judge's odds."""
    odds = await judging.odds(models, judge, asked.unnamed(question), [one.under_sections(question) for one, _ in some])
    return [(one, (logit, value)) for (one, logit), value in zip(some, odds, strict=True)]


async def likelier(
    some: Sequence[tuple[Sentence, Inputs]], models: Models, judge: str, question: str
) -> list[tuple[Sentence, Inputs]]:
    """The same, each also with what it adds to the question's likelihood, where the judge's engine tells that."""
    texts = [one.under_sections(question) for one, _ in some]
    gains = await question_likelihood.gains(models, judge, asked.unnamed(question), texts)
    if gains is None:
        return list(some)
    return [(one, (*inputs, gain)) for (one, inputs), gain in zip(some, gains, strict=True)]


def _stacked(some: Sequence[tuple[Sentence, Inputs]]) -> list[tuple[Sentence, float]]:
    return [(one, weighed(*JUDGED[len(inputs)], inputs)) for one, inputs in some]


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
    texts = [one.plain(question) for one in close]
    bare = plain = await scored(models, recipe.reranker, question, texts)
    if nameless != question:
        plain = await scored(models, recipe.reranker, nameless, texts)
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
