"""Recall of hybrid search with a reranker over vectors alone, on the banking set and on this project's own pages.

Banking: the question is a task's whole scenario, the right documents are those that the task requires. Own pages: the
questions of ``pages_questions.jsonl`` were written by hand, in other words than the page's; each has the words that
answer it, and what is to be found is a passage that meets them. A question whose words no page has any more is left
out, and counted.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from benchmarks._bars import Row
from benchmarks.knowledge._setup import ROOT, banking, base_of, opened, stocked
from dockyard.knowledge import questions as sets
from dockyard.knowledge.evaluate import Retrieval, retrieval
from dockyard.knowledge.measure import gain
from dockyard.knowledge.model import Cut, Search
from dockyard.knowledge.sync import sync

PAGES = Path(__file__).parent / "pages_questions.jsonl"
WAYS = {
    "vector": Search(mode="vector", rerank=False),
    "words": Search(mode="words", rerank=False),
    "hybrid": Search(rerank=False),
    "hybrid + reranker": Search(),
}
FURTHER = {
    "vector + reranker": Search(mode="vector"),
    "hybrid + reranker over 10 of each list": Search(candidates=10),
    "hybrid + reranker + MMR 0.3": Search(diversity=0.3),
}
CUTS = {
    "structure, 1000": Cut(),
    "structure, 500": Cut(size=500),
    "sentences, 1000": Cut(chunker="sentences"),
    "fixed, 1000": Cut(chunker="fixed"),
    "fixed, 1000, overlap 200": Cut(chunker="fixed", overlap=200),
}


async def compared(
    folder: Path, asked: Sequence[sets.Question], ways: dict[str, Search], cut: Cut | None = None
) -> tuple[int, list[Retrieval]]:
    """How many passages there are, and each way's figures."""
    with tempfile.TemporaryDirectory() as scratch:
        stocked(Path(scratch))
        async with opened(Path(scratch)) as (options, models, bases):
            base = await base_of(bases, models, "kb", folder, cut=cut)
            done = await sync(base, models, options)
            return done.chunks, await retrieval(base, models, asked, ways)


def own_pages() -> tuple[list[sets.Question], int]:
    """The questions about our pages with the spans of their answers, and how many answers no page has any more."""
    found, lost = [], 0
    for one in sets.read(PAGES):
        span = _span((ROOT / "docs" / one.documents[0]).read_text(), one.answer) if one.documents else None
        lost += span is None and bool(one.documents)
        if span is not None or not one.documents:
            found.append(msgspec.structs.replace(one, span=span))
    return found, lost


def _span(text: str, answer: str) -> tuple[int, int] | None:
    found = re.search(r"\s+".join(map(re.escape, answer.split())), text)
    return (found.start(), found.end()) if found else None


def banking_rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        asked = banking(Path(scratch) / "bank")
        yield from told("banking", asyncio.run(compared(Path(scratch) / "bank", asked, WAYS))[1])


def pages_rows() -> Iterator[Row]:
    own, lost = own_pages()
    yield Row("own pages, questions whose answer no page has any more", f"{lost}", "0", lost == 0)
    yield from told("own pages", asyncio.run(compared(ROOT / "docs", own, WAYS))[1])


def further_rows() -> Iterator[Row]:
    """Other ways to search our own pages."""
    own, _ = own_pages()
    for one in asyncio.run(compared(ROOT / "docs", own, FURTHER))[1]:
        yield Row(f"own pages, {one.name}", _figures(one), "-", None)


def told(name: str, found: list[Retrieval]) -> Iterator[Row]:
    for one in found:
        yield Row(f"{name}, {one.name}", _figures(one), "-", None)
    values = {one.name: one.values["recall@5"] for one in found}
    more = gain(values["hybrid + reranker"], values["vector"])
    said = f"{more.mean:+.1%} ({more.low:+.1%} to {more.high:+.1%}) of {more.questions} questions"
    yield Row(f"{name}: recall@5 of hybrid + reranker over vector", said, ">= +10 %", more.mean >= 0.10)


def chunker_rows() -> Iterator[Row]:
    """Chunkers on our own pages, with and without the reranker."""
    own, _ = own_pages()
    for name, cut in CUTS.items():
        ways = {way: WAYS[way] for way in ("vector", "hybrid", "hybrid + reranker")}
        count, found = asyncio.run(compared(ROOT / "docs", own, ways, cut))
        for one in found:
            yield Row(f"{name} ({count} passages), {one.name}", _figures(one), "-", None)


def _figures(one: Retrieval) -> str:
    return ", ".join(f"{k} {v.mean:.3f} ({v.low:.3f}-{v.high:.3f})" for k, v in one.figures.items())
