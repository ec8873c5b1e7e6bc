"""10,000 passages: how fast they are indexed, against plain LanceDB with the same embedder, and searched."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks._bars import Row, median, spread
from benchmarks.knowledge._setup import EMBEDDER, base_of, opened, stocked
from dockyard.knowledge.feed import BATCH, UNDER_WAY
from dockyard.knowledge.model import Search
from dockyard.knowledge.retrieve import search
from dockyard.knowledge.sync import sync

FILES, SECTIONS = 500, 20
RUNS = 2
SEARCHES = 200
WORDS = (
    "harbour", "master", "writes", "names", "ships", "blue", "book", "boats", "longer", "pay", "crowns",
    "night", "fishing", "village", "engine", "basin", "quiet", "hours", "fine", "berth", "lifeboat", "crane",
    "operator", "phone", "tide", "north", "gate", "rope", "signal", "lamp", "keeper", "cargo", "salt",
    "barrel", "ferry", "noon", "storm", "mast", "sail", "anchor", "chain", "pilot", "customs", "seal",
    "ledger", "dock", "yard", "timber", "oil", "coal", "wool", "grain", "spice", "map",
)  # fmt: skip


def corpus(folder: Path, files: int = FILES, sections: int = SECTIONS) -> list[str]:
    """Files of sections, each of which becomes one passage; the texts of all passages as they are embedded."""
    draw = random.Random(11)
    folder.mkdir(parents=True, exist_ok=True)
    texts = []
    for number in range(files):
        parts = []
        for section in range(sections):
            body = " ".join(draw.choices(WORDS, k=28)).capitalize() + f" {number * sections + section}."
            parts.append(f"## Part {section}\n\n{body}\n")
            texts.append(f"Book {number} > Part {section}\n{body}")
        (folder / f"{number:04}.md").write_text(f"# Book {number}\n\n" + "\n".join(parts))
    return texts


async def plain(models: Any, folder: Path, texts: list[str]) -> float:
    """Seconds that a plain program takes: embed in batches, as many under way as here, and add to a table."""
    import array

    import lancedb

    begun = time.monotonic()
    turn = asyncio.Semaphore(UNDER_WAY)

    async def one(some: list[str]) -> list[bytes]:
        async with turn:
            found: list[bytes] = await models.embed(EMBEDDER, some)
            return found

    batches = [texts[first : first + BATCH] for first in range(0, len(texts), BATCH)]
    vectors = [vector for some in await asyncio.gather(*map(one, batches)) for vector in some]
    rows = [
        {"id": number, "text": text, "vector": array.array("f", vector).tolist()}
        for number, (text, vector) in enumerate(zip(texts, vectors, strict=True))
    ]
    table = lancedb.connect(str(folder)).create_table("passages", rows)
    from lancedb.index import FTS

    table.create_index("text", config=FTS())
    return time.monotonic() - begun


async def measured(files: int, runs: int, searches: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"ours": [], "plain": [], "hybrid": [], "reranked": []}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        stocked(root / "home")
        texts = corpus(root / "docs", files)
        async with opened(root / "home") as (options, models, bases):
            await models.embed(EMBEDDER, texts[:BATCH])
            base: Any = None
            for run in range(runs):
                base = await base_of(bases, models, f"run{run}", root / "docs")
                begun = time.monotonic()
                done = await sync(base, models, options)
                found["ours"].append(len(texts) / (time.monotonic() - begun))
                assert done.chunks == len(texts), done
                found["plain"].append(len(texts) / await plain(models, root / f"plain{run}", texts))
            draw = random.Random(5)
            queries = [" ".join(draw.choices(WORDS, k=6)) for _ in range(searches)]
            for name, way, some in (("hybrid", Search(rerank=False), queries), ("reranked", Search(), queries[:40])):
                await search(base, models, "warm words", way)
                for query in some:
                    begun = time.monotonic()
                    await search(base, models, query, way)
                    found[name].append(1000 * (time.monotonic() - begun))
    return found


def rows() -> Iterator[Row]:
    found = asyncio.run(measured(FILES, RUNS, SEARCHES))
    ratio = median(found["ours"]) / median(found["plain"])
    told = f"{spread(found['ours'])} against {spread(found['plain'])} passages/s: {ratio:.2f}"
    yield Row(f"indexing {FILES * SECTIONS} passages, ours against plain LanceDB", told, ">= 0.8", ratio >= 0.8)
    p95 = quantile(found["hybrid"], 0.95)
    yield Row("hybrid search, embedding of the query included", _ms(found["hybrid"]), "p95 < 50 ms", p95 < 50)
    yield Row("the same with 40 passages reranked", _ms(found["reranked"]), "-", None)


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def _ms(values: list[float]) -> str:
    return f"p50 {quantile(values, 0.5):.1f} ms, p95 {quantile(values, 0.95):.1f} ms of {len(values)}"
