"""``/v1/vector_stores``: knowledge bases in OpenAI's words. Any base of the home is a vector store by its name."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from dockyard.api._further import Routes
from dockyard.api._kept import caller
from dockyard.api._knowledge import bases
from dockyard.api._site import Site
from dockyard.api._vector_feed import feeds
from dockyard.api._vector_wire import (
    ChangeStore,
    CreateStore,
    OwnStore,
    SearchStore,
    cut_of,
    hit_told,
    page_told,
    refuse_rewriting,
    store_told,
)
from dockyard.errors import Forbidden, InvalidRequest, NotFound
from dockyard.gateway._fleet_models import FleetModels
from dockyard.knowledge.bases import Base
from dockyard.knowledge.model import Search
from dockyard.types import Principal

Asking = Request[Any, Any, Any]
Limit = Annotated[int, QueryParameter(ge=1, le=100)]
Order = Literal["asc", "desc"]


def routes(site: Site) -> Routes:
    """What the dialect answers."""
    from dockyard.api._vector_files import file_routes

    return Routes(handlers=[*_making(site), *_reading(site), _search(site), *file_routes(site)])


async def opened(site: Site, request: Asking, store_id: str, *, change: bool = False) -> tuple[Base, Principal]:
    """A store that the caller may use, or with ``change`` may change. Raises NotFound and Forbidden."""
    principal = await site.principal(dict(request.scope["headers"]))
    base, owner = await asyncio.to_thread(known, site, principal, store_id, "vector_store_id")
    if change and not _free(site, principal) and owner != principal.name:
        raise Forbidden(f"key {principal.name!r} may not change vector store {store_id!r:.80}")
    await asyncio.to_thread(feeds(site).look, base)
    return base, principal


def known(site: Site, principal: Principal, store_id: str, param: str) -> tuple[Base, str]:
    """A store that the caller may use, and whose it is. Raises NotFound, the same for one that is another key's as for
    one that is not there, and with no names of others."""
    try:
        base = bases(site).get(store_id)
        owner = base.recipe().owner
    except (NotFound, InvalidRequest):
        base, owner = None, ""
    if base is None or not (_free(site, principal) or owner in ("", principal.name)):
        raise NotFound(f"there is no vector store {store_id!r:.80}", param=param, hint="`GET /v1/vector_stores`")
    return base, owner


def _free(site: Site, principal: Principal) -> bool:
    return site.trusted or site.keyring.open or "manage" in principal.scopes


def _told(site: Site, base: Base) -> dict[str, Any]:
    with base.ledger() as ledger:
        return store_told(base, ledger.recipe, ledger, feeds(site).pending(base))


def _making(site: Site) -> list[Any]:
    tagged: dict[str, Any] = {"guards": [site.require("infer")], "tags": ["OpenAI"], "status_code": 200}

    @post("/v1/vector_stores", summary="Make a vector store", **tagged)
    async def create(request: Asking, data: JSONBody[CreateStore]) -> dict[str, Any]:
        from dockyard.api._vector_files import attach, sources_of
        from dockyard.knowledge.making import Wishes, recipe

        tables, who = await caller(site, request)
        files = [await tables.files.get(id, who.name) for id in data.file_ids or ()]
        own = data.dockyard or OwnStore()
        wishes = Wishes(
            name=f"vs_{secrets.token_hex(12)}",
            embedder=own.embedder,
            reranker=own.reranker,
            cut=cut_of(data),
            owner=who.name,
            title=data.name or "",
        )
        made = await recipe(wishes, FleetModels(site.fleet, key=who.name), site.store)
        about = {
            "metadata": data.metadata or {},
            "description": data.description,
            "expires_after": msgspec.to_builtins(data.expires_after),
        }
        base = await asyncio.to_thread(bases(site).create, msgspec.structs.replace(made, about=about))
        if files:
            await attach(site, base, sources_of(tables, files))
        return await asyncio.to_thread(_told, site, base)

    @post("/v1/vector_stores/{store_id:str}", summary="Change a vector store's name, metadata or expiry", **tagged)
    async def change(request: Asking, store_id: FromPath[str], data: JSONBody[ChangeStore]) -> dict[str, Any]:
        base, _ = await opened(site, request, store_id, change=True)
        await asyncio.to_thread(_change, base, data)
        return await asyncio.to_thread(_told, site, base)

    @delete("/v1/vector_stores/{store_id:str}", summary="Delete a vector store; its files stay", **tagged)
    async def remove(request: Asking, store_id: FromPath[str]) -> dict[str, Any]:
        base, _ = await opened(site, request, store_id, change=True)
        feeds(site).cancel(base, feeds(site).pending(base))
        await feeds(site).settled(base)
        await asyncio.to_thread(bases(site).remove, store_id)
        return {"id": store_id, "object": "vector_store.deleted", "deleted": True}

    return [create, change, remove]


def _change(base: Base, data: ChangeStore) -> None:
    with base.ledger() as ledger:
        old = ledger.recipe
        about = dict(old.about)
        if data.metadata is not None:
            about["metadata"] = data.metadata
        if data.expires_after is not None:
            about["expires_after"] = msgspec.to_builtins(data.expires_after)
        title = old.title if data.name is None else data.name
        ledger.write_recipe(msgspec.structs.replace(old, title=title, about=about))


def _reading(site: Site) -> list[Any]:
    tagged: dict[str, Any] = {"guards": [site.require("infer")], "tags": ["OpenAI"]}

    @get("/v1/vector_stores", summary="Vector stores of this key, and those of the home", **tagged)
    async def stores(
        request: Asking,
        limit: Limit = 20,
        order: FromQuery[Order] = "desc",
        after: FromQuery[str | None] = None,
        before: FromQuery[str | None] = None,
    ) -> dict[str, Any]:
        principal = await site.principal(dict(request.scope["headers"]))
        rows = await asyncio.to_thread(_listed, site, principal)
        rows.sort(key=lambda row: (row["created_at"], row["id"]), reverse=order == "desc")
        return page_told(rows, limit=limit, after=after, before=before)

    @get("/v1/vector_stores/{store_id:str}", summary="What is known of a vector store", **tagged)
    async def store(request: Asking, store_id: FromPath[str]) -> dict[str, Any]:
        base, _ = await opened(site, request, store_id)
        return await asyncio.to_thread(_told, site, base)

    return [stores, store]


def _listed(site: Site, principal: Principal) -> list[dict[str, Any]]:
    free = _free(site, principal)
    every = bases(site).all()
    return [_told(site, base) for base in every if free or base.recipe().owner in ("", principal.name)]


def _search(site: Site) -> Any:
    @post(
        "/v1/vector_stores/{store_id:str}/search",
        summary="Find passages in a vector store",
        guards=[site.require("infer")],
        tags=["OpenAI"],
        status_code=200,
    )
    async def search(request: Asking, store_id: FromPath[str], data: JSONBody[SearchStore]) -> dict[str, Any]:
        from dockyard.knowledge.retrieve import search as run

        base, principal = await opened(site, request, store_id)
        refuse_rewriting(data.rewrite_query)
        await asyncio.to_thread(touch, base)
        first, *others = [data.query] if isinstance(data.query, str) else data.query
        found = await run(base, FleetModels(site.fleet, key=principal.name), first, options_of(site, principal, data))
        return {
            "object": "vector_store.search_results.page",
            "search_query": [first, *others],
            "data": [hit_told(hit) for hit in found.hits],
            "has_more": False,
            "next_page": None,
        }

    return search


def options_of(site: Site, principal: Principal, data: SearchStore) -> Search:
    """A search of this caller."""
    ranking = data.ranking_options
    queries = () if isinstance(data.query, str) else tuple(data.query[1:])
    return Search(
        limit=data.max_num_results,
        candidates=max(30, 2 * data.max_num_results),
        rerank=ranking is None or ranking.ranker != "none",
        least=ranking.score_threshold if ranking is not None else 0.0,
        filters=data.filters,
        queries=queries,
        reader=None if site.trusted or site.keyring.open else principal.name,
    )


def touch(base: Base) -> None:
    """Note that a store is in use. Raises InvalidRequest for one that has expired."""
    after = base.recipe().about.get("expires_after")
    if after is None:
        return
    from dockyard.api._vector_wire import active_at

    if active_at(base) + after["days"] * 86_400 < time.time():
        raise InvalidRequest(f"vector store {base.name!r} has expired", param="vector_store_id")
    (base.folder / "active").touch()
