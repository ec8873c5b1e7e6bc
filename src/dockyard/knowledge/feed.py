"""Passages to vectors: in batches, several under way, kept as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from dockyard.errors import Conflict, ContextOverflow, Preempted
from dockyard.knowledge.ledger import Work
from dockyard.knowledge.model import Recipe, Row
from dockyard.knowledge.models import PROBE, Models, cosine

BATCH = 64
UNDER_WAY = 3
LEAST = 0.97
"""Cosine of the probe's vectors above which a model is the same: quantised ones differ a little between machines."""


async def check(models: Models, recipe: Recipe) -> None:
    """Raises Conflict if the embedding model is not the one that the index was made with."""
    (vector,) = await models.embed(recipe.embedder, [recipe.passage_prefix + PROBE])
    if len(vector) != 4 * recipe.dimension or (recipe.probe and cosine(vector, recipe.probe) < LEAST):
        raise changed(recipe)


def changed(recipe: Recipe) -> Conflict:
    return Conflict(
        f"{recipe.embedder} now makes other vectors than those in the index of {recipe.name!r}",
        hint=f"`dockyard knowledge sync {recipe.name} --rebuild` makes the index again; until then it finds by words",
    )


async def embed(work: Work, models: Models, recipe: Recipe, missing: int, told: Callable[[str, int, int], None]) -> int:
    """Make the vectors that are missing; how many. They stay made, whatever happens next."""
    made = 0
    running: set[asyncio.Task[list[tuple[bytes, bytes]]]] = set()
    done: set[asyncio.Task[list[tuple[bytes, bytes]]]] = set()

    async def take(some: set[asyncio.Task[list[tuple[bytes, bytes]]]]) -> None:
        nonlocal made
        for task in some:
            pairs = task.result()
            work.keep(pairs)
            made += len(pairs)
            told("embed", made, missing)

    try:
        for batch in work.unmade(BATCH):
            while len(running) >= UNDER_WAY:
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                await take(done)
            running.add(asyncio.ensure_future(_batch(models, recipe, batch)))
        while running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            await take(done)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, *done, return_exceptions=True)
    return made


async def _batch(models: Models, recipe: Recipe, batch: list[tuple[bytes, Row]]) -> list[tuple[bytes, bytes]]:
    texts = [recipe.passage_prefix + row.words for _, row in batch]
    vectors = await vectors_of(models, recipe.embedder, texts)
    for vector in vectors:
        if len(vector) != 4 * recipe.dimension:
            raise changed(recipe)
    return [(hash, vector) for (hash, _), vector in zip(batch, vectors, strict=True)]


async def vectors_of(models: Models, model: str, texts: list[str]) -> list[bytes]:
    """A vector for each text; of one that is too long for the model, that of as much of it as fits."""
    while True:
        try:
            return await models.embed(model, texts)
        except Preempted as error:
            await asyncio.sleep(error.retry_after or 1.0)
        except ContextOverflow:
            break
    if len(texts) == 1:
        return await vectors_of(models, model, [texts[0][: max(1, int(len(texts[0]) * 0.7))]])
    half = len(texts) // 2
    return [*await vectors_of(models, model, texts[:half]), *await vectors_of(models, model, texts[half:])]
