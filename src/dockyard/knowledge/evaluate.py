"""How well a base finds and answers, on a set of questions: ranks, and with a writer faithfulness and correctness.

Faithfulness is the share of the sentences that the model wrote which a passage carries, by the same check that answers
go through. Correctness is F1 between the content words of the answer and of the reference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from dockyard.knowledge import measure
from dockyard.knowledge.answer import Ask, ask
from dockyard.knowledge.bases import Base
from dockyard.knowledge.claims import words
from dockyard.knowledge.measure import Interval
from dockyard.knowledge.model import Answer, Hit, Search
from dockyard.knowledge.models import Models
from dockyard.knowledge.questions import Question
from dockyard.knowledge.retrieve import search

DEPTH = 10
SPAN = "the span"
RANKS = ("recall@1", "recall@5", "recall@10", "nDCG@10", "MRR", "context precision@5")


class Retrieval(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one way to search, and each question's value of each, for comparisons."""

    name: str
    figures: dict[str, Interval]
    values: dict[str, list[float]]


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of answers. ``declined``: of the unanswerable ones, those said not to be in the documents.

    ``cited``: of those whose passage was retrieved, answers with a citation that meets the span (or the document, where
    the set has no spans)."""

    figures: dict[str, Interval]
    answers: list[Answer]


async def retrieval(
    base: Base,
    models: Models,
    questions: Sequence[Question],
    ways: dict[str, Search],
    told: Callable[[int, int], None] = lambda *_: None,
) -> list[Retrieval]:
    """Each way to search on all questions that have an answer: documents are found, or spans where the set has them."""
    answerable = [one for one in questions if one.documents]
    found, done = [], 0
    for name, way in ways.items():
        values: dict[str, list[float]] = {figure: [] for figure in RANKS}
        for one in answerable:
            results = await search(base, models, one.question, msgspec.structs.replace(way, limit=4 * DEPTH))
            _add(values, *ranks(one, results.hits))
            done += 1
            told(done, len(ways) * len(answerable))
        figures = {figure: measure.interval(some) for figure, some in values.items()}
        found.append(Retrieval(name=name, figures=figures, values=values))
    return found


def ranks(question: Question, hits: Sequence[Hit]) -> tuple[list[str], set[str]]:
    """What was found, the best first and each once, and what answers: documents, or where the set knows the span the
    passages that meet it, which count as one."""
    if question.span is None:
        return list(dict.fromkeys(hit.document.path for hit in hits)), set(question.documents)
    meets = [_meets(question, hit.document.path, hit.start, hit.end) for hit in hits]
    ids = [SPAN if met else f"{hit.document.path}:{hit.start}" for met, hit in zip(meets, hits, strict=True)]
    return list(dict.fromkeys(ids)), {SPAN}


def _add(values: dict[str, list[float]], ranked: list[str], relevant: set[str]) -> None:
    for k in (1, 5, 10):
        values[f"recall@{k}"].append(measure.recall(ranked, relevant, k))
    values["nDCG@10"].append(measure.ndcg(ranked, relevant, 10))
    values["MRR"].append(measure.reciprocal_rank(ranked, relevant))
    values["context precision@5"].append(measure.precision(ranked, relevant, 5))


async def answers(
    base: Base,
    models: Models,
    questions: Sequence[Question],
    options: Ask,
    told: Callable[[int, int], None] = lambda *_: None,
) -> Answers:
    """Ask all questions."""
    given: list[Answer] = []
    for number, one in enumerate(questions, 1):
        given.append(await ask([base], models, one.question, options))
        told(number, len(questions))
    return Answers(figures=judged_by(questions, given), answers=given)


def judged_by(questions: Sequence[Question], given: Sequence[Answer]) -> dict[str, Interval]:
    """The figures of answers to questions, of bases as many as there may be."""
    values: dict[str, list[float]] = {
        name: [] for name in ("answered", "retrieved", "cited", "faithfulness", "correctness", "declined")
    }
    for one, answer in zip(questions, given, strict=True):
        _judge(values, one, answer)
    return {name: measure.interval(some) for name, some in values.items() if some}


def _judge(values: dict[str, list[float]], question: Question, answer: Answer) -> None:
    if not question.documents:
        values["declined"].append(float(not answer.found))
        return
    values["answered"].append(float(answer.found))
    retrieved = any(_meets(question, hit.document.path, hit.start, hit.end) for hit in answer.hits)
    values["retrieved"].append(float(retrieved))
    if retrieved:
        cited = any(_meets(question, one.path, one.start, one.end) for one in answer.citations)
        values["cited"].append(float(cited))
    written = len(answer.citations) * (answer.how == "model") + len(answer.dropped)
    if written:
        values["faithfulness"].append(1 - len(answer.dropped) / written)
    if question.answer:
        values["correctness"].append(f1(answer.text if answer.found else "", question.answer))


def _meets(question: Question, path: str, start: int, end: int) -> bool:
    if path not in question.documents:
        return False
    return question.span is None or (start < question.span[1] and question.span[0] < end)


def f1(said: str, right: str) -> float:
    """Of the content words, each as often as it stands there."""
    one, other = Counter(words(said)), Counter(words(right))
    same = sum((one & other).values())
    return 2 * same / (sum(one.values()) + sum(other.values())) if same else 0.0
