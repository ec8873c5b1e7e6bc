"""``/v1/models``: what can be asked, in OpenAI's shape with a ``dockyard`` block; and away with it."""

from __future__ import annotations

import asyncio
from typing import Any

from litestar import delete, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from dockyard.api._site import Site
from dockyard.artifact.media import is_model
from dockyard.artifact.reference import familiar
from dockyard.artifact.store import Entry
from dockyard.engines import builtin
from dockyard.errors import Forbidden, ModelNotFound
from dockyard.types import LoadedModel, Reference

ECHO = "echo"


def handlers(site: Site) -> list[HTTPRouteHandler]:
    """The three routes."""

    @get("/v1/models", guards=[site.require("infer")], tags=["OpenAI"], summary="Models that can be asked")
    async def models() -> dict[str, Any]:
        entries = await asyncio.to_thread(site.store.entries)
        loaded = _loaded(site)
        found = [model_of(site, entry, loaded) for entry in entries if named_model(entry)]
        return {"object": "list", "data": [*routed(site), *found, *remote(site, loaded), echo(loaded)]}

    @get("/v1/models/{name:path}", guards=[site.require("infer")], tags=["OpenAI"], summary="One model")
    async def model(name: FromPath[str]) -> dict[str, Any]:
        name = name.removeprefix("/")
        loaded = _loaded(site)
        if name == ECHO:
            return echo(loaded)
        if (route := next((one for one in routed(site) if one["id"] == name), None)) is not None:
            return route
        if (there := builtin(name, site.settings.upstreams)) is not None:
            return remote_model(there.reference, loaded)
        descriptor = await asyncio.to_thread(site.store.resolve, name)
        for entry in await asyncio.to_thread(site.store.entries):
            if entry.descriptor.digest == descriptor.digest and entry.reference is not None:
                return {**model_of(site, entry, loaded), "id": name}
        raise ModelNotFound(f"{name!r} is not the name of a model", param="model")

    @delete(
        "/v1/models/{name:path}",
        guards=[site.require("manage")],
        tags=["OpenAI"],
        summary="Remove a model from the store",
        status_code=200,
    )
    async def remove(name: FromPath[str]) -> dict[str, Any]:
        name = name.removeprefix("/")
        if name == ECHO:
            raise Forbidden(f"{ECHO} is built in and can't be removed", param="model")
        if name in site.stack.aliases():
            raise Forbidden(f"{name!r} is a name of the stack file, not of the store", param="model")
        await asyncio.to_thread(site.store.delete, name)
        return {"id": name, "object": "model", "deleted": True}

    return [models, model, remove]


def named_model(entry: Entry) -> bool:
    """Whether an entry of the store is a model that can be asked by a name."""
    return entry.reference is not None and is_model(entry.descriptor.artifact_type)


def short(site: Site, reference: Reference) -> str:
    """The name that people use; requests may name the model so."""
    return familiar(reference, registry=site.store.registry, namespace=site.store.namespace)


def model_of(site: Site, entry: Entry, loaded: dict[str, LoadedModel]) -> dict[str, Any]:
    assert entry.reference is not None
    now = loaded.get(entry.descriptor.digest)
    return {
        "id": short(site, entry.reference),
        "object": "model",
        "created": int(entry.created),
        "owned_by": f"{entry.reference.registry}/{entry.reference.repository}".rpartition("/")[0],
        "dockyard": {
            "reference": str(entry.reference),
            "digest": entry.descriptor.digest,
            "size": entry.size,
            "pinned": entry.pinned,
            "state": now.state if now else "stored",
            "engine": now.engine if now else None,
            "context": now.context if now else None,
        },
    }


def echo(loaded: dict[str, LoadedModel]) -> dict[str, Any]:
    """The built-in model that repeats what it is told."""
    now = loaded.get(f"builtin:{ECHO}")
    state = now.state if now else "built in"
    return {"id": ECHO, "object": "model", "created": 0, "owned_by": "dockyard", "dockyard": {"state": state}}


def routed(site: Site) -> list[dict[str, Any]]:
    """The names that the stack file gives: routes, and further names of models."""
    stack = site.stack
    found = []
    for name, target in stack.aliases().items():
        route = stack.routes.get(name)
        about: dict[str, Any] = {"state": "model" if route is None else "route", "models": [target]}
        if route is not None:
            about["models"] = list(dict.fromkeys(one.model for one in route.choices()))
            about["prompts"] = list(dict.fromkeys(one.prompt for one in route.choices() if one.prompt))
            about["description"] = route.description
        owner = stack.name or "stack"
        found.append({"id": name, "object": "model", "created": 0, "owned_by": owner, "dockyard": about})
    return found


def remote(site: Site, loaded: dict[str, LoadedModel]) -> list[dict[str, Any]]:
    """Models of other servers, as far as settings name them."""
    upstreams = site.settings.upstreams.items()
    return [remote_model(f"{server}/{model}", loaded) for server, found in upstreams for model in found.models]


def remote_model(name: str, loaded: dict[str, LoadedModel]) -> dict[str, Any]:
    now = loaded.get(f"upstream:{name}")
    shown = {"state": now.state if now else "remote", "engine": now.engine if now else None}
    return {"id": name, "object": "model", "created": 0, "owned_by": name.partition("/")[0], "dockyard": shown}


def _loaded(site: Site) -> dict[str, LoadedModel]:
    return {model.digest: model for model in site.fleet.models()}
