"""From a question to passages.

    who may read what, filters ─→ documents to search in
    question, its other wordings ─→ nearest vectors ┐
                                  ─→ best words     ┴→ reciprocal rank fusion ─→ reranker ─→ MMR ─→ sections

Each arrow can be left out. Scores are from 0 to 1: the reranker's logit through the logistic function, or without a
reranker the cosine.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import msgspec

from dockyard.errors import ContextOverflow, DockyardError
from dockyard.knowledge import rewrite
from dockyard.knowledge.bases import Base
from dockyard.knowledge.feed import LEAST, changed, vectors_of
from dockyard.knowledge.filters import visible
from dockyard.knowledge.fusion import diverse, fused
from dockyard.knowledge.model import Document, Found, Hit, Only, Recipe, Row, Search
from dockyard.knowledge.models import PROBE, Models, cosine
from dockyard.knowledge.vectors import Vectors
from dockyard.types import Message

MOST_RANKED = 40
"""Passages that a reranker reads for one search, unless more are to be returned: it takes most of the time."""
LONGEST = 1000
"""Characters of a query that a reranker reads: a passage must fit beside it."""
QUESTION = 400
"""Characters of a query up to which a reranker orders what was found. It has learned from questions of a line; by whole
stories it put the right documents lower than they were (docs/concepts/retrieval.md)."""
NEAR, FAR = 0.85, 0.45
"""Cosines that count as 1 and 0 where no reranker tells how relevant a passage is."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """A base as it is at one moment."""

    recipe: Recipe
    snapshot: str
    place: str
    documents: dict[int, Document]


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """What a search found. ``queries`` are all wordings that were searched for; ``notes`` what could not be done."""

    hits: tuple[Hit, ...]
    queries: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


async def search(
    base: Base, models: Models, query: str, options: Search | None = None, turns: Sequence[Message] = ()
) -> Results:
    """Search one base. Raises InvalidRequest for filters that are none, and what the models raise."""
    options = options or Search()
    queries, notes = await _wordings(models, query, options, turns)
    vectors = await _vectors(base, models, queries, options, notes)
    for last in (False, True):
        mark = base.mark()
        try:
            state, found = await asyncio.to_thread(_candidates, base, queries, vectors, options)
            break
        except DockyardError:
            raise
        except Exception:
            # A sync may have taken away what was being read: the ledger then names something else by now.
            if last or base.mark() == mark:
                raise
    hits = await _ranked(base, state, models, queries[0], found, options)
    if options.expand:
        hits = await asyncio.to_thread(_expanded, base, hits, options.widest)
    return Results(hits=tuple(hits), queries=tuple(queries), notes=tuple(notes))


async def _wordings(
    models: Models, query: str, options: Search, turns: Sequence[Message]
) -> tuple[list[str], list[str]]:
    queries, notes = [query], list[str]()
    if turns:
        queries[0] = rewrite.with_context(query, turns)
    if options.rewrite:
        try:
            queries += await rewrite.wordings(models, options.rewrite, turns, query, rewrite.MOST_WORDINGS)
        except DockyardError as error:
            notes.append(f"the question was not reworded: {error.message}")
    queries += [one for one in options.queries if one not in queries]
    return queries, notes


async def _vectors(
    base: Base, models: Models, queries: Sequence[str], options: Search, notes: list[str]
) -> list[bytes]:
    """A vector for each wording; none where the index has to be searched by words alone."""
    recipe = await asyncio.to_thread(base.recipe)
    if options.mode == "words":
        return []
    texts = [recipe.query_prefix + one for one in queries]
    if not base.checked:
        texts.append(recipe.passage_prefix + PROBE)
    found = await vectors_of(models, recipe.embedder, texts)
    if not base.checked:
        probe = found.pop()
        if len(probe) != 4 * recipe.dimension or (recipe.probe and cosine(probe, recipe.probe) < LEAST):
            told = changed(recipe)
            notes.append(f"{told.message}: {told.hint}")
            return []
        base.checked = True
    return found if all(len(one) == 4 * recipe.dimension for one in found) else []


def _candidates(
    base: Base, queries: Sequence[str], vectors: Sequence[bytes], options: Search
) -> tuple[State, list[tuple[Row, float, dict[str, int]]]]:
    """Rows of all lists, fused, with the cosine where it is known and each list's rank."""
    _, documents = base.documents()
    with base.ledger() as ledger:
        state = State(
            recipe=ledger.recipe,
            snapshot=ledger.snapshot,
            place=ledger.place,
            documents={one.number: one for one in documents},
        )
    only = visible(documents, options.reader, options.filters)
    options = msgspec.structs.replace(options, candidates=max(options.candidates, options.limit))
    store = base.vectors(state.recipe, state.place)
    lists: dict[str, list[Found]] = {}
    for number, query in enumerate(queries):
        last = f" {number + 1}" if number else ""
        if vectors:
            lists[f"vector{last}"] = _nearest(store, state, vectors[number], options, only)
        if options.mode != "vector" or not vectors:
            keep = options.diversity > 0
            lists[f"words{last}"] = store.matching(state.snapshot, query, options.candidates, only, vectors=keep)
    rows = {found.row.id: found.row for some in lists.values() for found in some}
    near = {one.row.id: one.score for name, some in lists.items() if name.startswith("vector") for one in some}
    ranks = {name: [one.row.id for one in some] for name, some in lists.items()}
    found = []
    for id, _ in fused(ranks):
        if rows[id].doc in state.documents:
            places = {name: ids.index(id) + 1 for name, ids in ranks.items() if id in ids}
            found.append((rows[id], near.get(id, 0.0), places))
    return state, found


def _nearest(store: Vectors, state: State, vector: bytes, options: Search, only: Only | None) -> list[Found]:
    keep = options.diversity > 0
    return store.nearest(state.snapshot, vector, options.candidates, only, vectors=keep)


async def _ranked(
    base: Base,
    state: State,
    models: Models,
    query: str,
    found: list[tuple[Row, float, dict[str, int]]],
    options: Search,
) -> list[Hit]:
    recipe = state.recipe
    found = found[: max(MOST_RANKED, options.limit)]
    if recipe.reranker and options.rerank and found and len(query) <= QUESTION:
        logits = await scored(models, recipe.reranker, query, [row.words for row, _, _ in found])
        scores = [logistic(logit) for logit in logits]
        order = sorted(range(len(found)), key=lambda place: (-logits[place], place))
    else:
        scores = [min(1.0, max(0.0, (near - FAR) / (NEAR - FAR))) for _, near, _ in found]
        order = list(range(len(found)))
    if options.diversity > 0:
        picked = diverse(
            [scores[p] for p in order], [found[p][0].vector for p in order], options.diversity, options.limit
        )
        order = [order[place] for place in picked]
    hits = []
    for place in order[: options.limit]:
        row, _, ranks = found[place]
        if scores[place] >= options.least:
            hits.append(_hit(base.name, state.documents[row.doc], row, scores[place], ranks))
    return hits


def _hit(base: str, document: Document, row: Row, score: float, ranks: dict[str, int]) -> Hit:
    return Hit(
        base=base, document=document, text=row.text, heading=row.heading, start=row.start, end=row.end, page=row.page,
        score=score, ranks=ranks, vector=row.vector, chunk=row.id, above=row.above, below=row.below,
    )  # fmt: skip


def _expanded(base: Base, hits: list[Hit], widest: int) -> list[Hit]:
    """Each hit as its section, or as much of it around the hit as may be; sections that overlap become one."""
    texts: dict[int, str] = {}
    wide: list[Hit] = []
    with base.ledger() as ledger:
        for hit in hits:
            number = hit.document.number
            if number not in texts:
                try:
                    texts[number] = ledger.parsed(number).text
                except DockyardError:  # it changed meanwhile: the passage itself still stands
                    wide.append(hit)
                    continue
            begin, end = _section(texts[number], hit, widest)
            if not any(one.document.number == number and one.start <= begin and end <= one.end for one in wide):
                text = texts[number][begin:end]
                wide.append(msgspec.structs.replace(hit, text=text, start=begin, end=end))
    return wide


def _section(text: str, hit: Hit, widest: int) -> tuple[int, int]:
    """From the paragraph where the section begins to where it ends, as far as ``widest`` goes."""
    room = max(0, widest - (hit.end - hit.start)) // 2
    above, below = min(hit.above, hit.start), max(min(hit.below, len(text)), hit.end)
    begin = max(above, hit.start - room)
    end = min(below, hit.end + room)
    if begin > above:
        gap = text.find("\n\n", begin, hit.start)
        begin = hit.start if gap < 0 else gap + 2
    if end < below:
        gap = text.rfind("\n\n", hit.end, end)
        end = hit.end if gap < 0 else gap
    return begin, end


async def scored(models: Models, reranker: str, query: str, texts: Sequence[str]) -> list[float]:
    """The reranker's logits; of a query that fills its window by itself, those of as much of it as leaves room."""
    query = query[:LONGEST]
    while True:
        try:
            return await models.rank(reranker, query, texts)
        except ContextOverflow:
            if len(query) < 100:
                raise
            query = query[: int(len(query) * 0.7)]


def logistic(logit: float) -> float:
    """1 / (1 + exp(-logit)), also where exp would overflow."""
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    power = math.exp(logit)
    return power / (1 + power)
