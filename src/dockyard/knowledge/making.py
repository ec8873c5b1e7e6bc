"""A new base's recipe: which models it uses, and what their vectors look like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from dockyard.errors import DockyardError, InvalidRequest
from dockyard.knowledge.feed import vectors_of
from dockyard.knowledge.model import Cut, Recipe
from dockyard.knowledge.models import PROBE, Models, prefixes

if TYPE_CHECKING:
    from dockyard.artifact.store import Store

NONE = "none"


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """What whoever makes a base wants; "" lets the store's models decide, and ``none`` as a reranker means none."""

    name: str
    embedder: str = ""
    reranker: str = ""
    cut: Cut = Cut()
    store: str = "lancedb"
    url: str = ""
    owner: str = ""
    title: str = ""
    query_prefix: str | None = None
    passage_prefix: str | None = None


async def recipe(wishes: Wishes, models: Models, store: Store | None) -> Recipe:
    """Tries the vector store and asks the embedding model once. Raises InvalidRequest where none can be chosen, and
    what store and models raise."""
    import asyncio

    from dockyard.knowledge.chunkers import chosen
    from dockyard.knowledge.model import check_name
    from dockyard.knowledge.vectors import tried

    check_name(wishes.name)
    chosen(wishes.cut.chunker)
    await asyncio.to_thread(tried, wishes.store, wishes.url)
    embedder, reranker = wishes.embedder, wishes.reranker
    if (not embedder or not reranker) and store is not None:
        able = await asyncio.to_thread(able_models, store)
        embedder = embedder or _only(able["embed"], "embedding model", "embedder")
        reranker = reranker or (able["rerank"][0] if len(able["rerank"]) == 1 else NONE)
    if not embedder:
        raise InvalidRequest("a knowledge base needs an embedding model", param="embedder")
    reranker = "" if reranker in ("", NONE) else reranker
    query, passage = prefixes(embedder)
    query = query if wishes.query_prefix is None else wishes.query_prefix
    passage = passage if wishes.passage_prefix is None else wishes.passage_prefix
    (probe,) = await vectors_of(models, embedder, [passage + PROBE])
    if reranker:
        await models.rank(reranker, PROBE, [PROBE])
    return Recipe(
        name=wishes.name, embedder=embedder, dimension=len(probe) // 4, probe=probe, reranker=reranker,
        query_prefix=query, passage_prefix=passage, cut=wishes.cut, store=wishes.store, url=wishes.url,
        owner=wishes.owner, title=wishes.title,
    )  # fmt: skip


def able_models(store: Store) -> dict[str, list[str]]:
    """The store's models that only embed or only rank, by what they can."""
    from dockyard.artifact.materialize import model_files
    from dockyard.artifact.reference import familiar

    found: dict[str, list[str]] = {"embed": [], "rerank": []}
    for entry in store.entries():
        if entry.reference is None:
            continue
        try:
            facts = model_files(store, entry.reference).facts
        except DockyardError:
            continue
        for kind, names in found.items():
            if kind in facts.capabilities and "chat" not in facts.capabilities:
                names.append(familiar(entry.reference))
    return found


def _only(names: list[str], what: str, param: str) -> str:
    if len(names) == 1:
        return names[0]
    if not names:
        hint = f"`dockyard pull` or `dockyard package` brings one; or name another with --{param} MODEL"
        raise InvalidRequest(f"which {what}? the store has none", param=param, hint=hint)
    told = f"which {what}? the store has {', '.join(names)}"
    raise InvalidRequest(told, param=param, hint=f"name one with --{param} MODEL")


async def changed(old: Recipe, models: Models, given: dict[str, object]) -> Recipe:
    """The recipe of a rebuild: as it was, but for what is ``given`` (embedder, reranker, chunker, size, overlap), with
    the vector of the probe as the model makes it now. Raises as ``recipe`` does."""
    embedder = str(given.get("embedder", old.embedder))
    reranker = str(given.get("reranker", old.reranker or NONE))
    asked = {key: given[key] for key in ("chunker", "size", "overlap") if key in given}
    try:
        cut = msgspec.convert({**msgspec.to_builtins(old.cut), **asked}, Cut)
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error), param="size") from None
    prefix = (
        {}
        if embedder == old.embedder
        else dict(zip(("query_prefix", "passage_prefix"), prefixes(embedder), strict=True))
    )
    wishes = Wishes(name=old.name, embedder=embedder, reranker=reranker, cut=cut,
                    query_prefix=prefix.get("query_prefix", old.query_prefix),
                    passage_prefix=prefix.get("passage_prefix", old.passage_prefix))  # fmt: skip
    made = await recipe(wishes, models, None)
    return msgspec.structs.replace(
        old, embedder=made.embedder, dimension=made.dimension, probe=made.probe, reranker=made.reranker,
        query_prefix=made.query_prefix, passage_prefix=made.passage_prefix, cut=cut,
    )  # fmt: skip
