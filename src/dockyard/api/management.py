"""``/api/dockyard/…``: the server's own API, for the command line and the console. Needs the scope "manage"."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from litestar import Response, Router, delete, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from litestar.response import Stream
from msgspec import Meta

from dockyard import __version__
from dockyard.api._site import Site
from dockyard.api._wire import error_body
from dockyard.api.openai_models import short
from dockyard.errors import Conflict, DockyardError, InvalidRequest
from dockyard.gateway import pipeline
from dockyard.types import LoadedModel, LoadOptions, Progress

Name = Annotated[str, Meta(min_length=1, max_length=512)]


class LoadBody(msgspec.Struct, forbid_unknown_fields=True):
    """Which model to load, and how."""

    model: Name
    options: LoadOptions | None = None


class UnloadBody(msgspec.Struct, forbid_unknown_fields=True):
    """Which model to unload; null: all."""

    model: Name | None = None


class PullBody(msgspec.Struct, forbid_unknown_fields=True):
    """What to fetch into the store."""

    model: Name


def router(site: Site) -> Router:
    """All routes, guarded."""
    routes = [*_server(site), *_models(site), _logs(site), _pull(site)]
    if site.state is not None:
        from dockyard.api.keys import handlers

        routes += handlers(site.state, site.keyring)
    return Router("/api/dockyard", route_handlers=routes, guards=[site.require("manage")], tags=["Management"])


def _server(site: Site) -> list[HTTPRouteHandler]:
    @get("/status", summary="Version, address, machine and counts")
    async def status() -> dict[str, Any]:
        from dockyard.hardware import detect

        machine = await asyncio.to_thread(detect)
        load = site.gateway.load if site.gateway else None
        return {
            "version": __version__,
            "url": site.url,
            "host": site.settings.host,
            "pid": site.pid,
            "home": str(site.settings.home_path),
            "started": site.started,
            "uptime": time.time() - site.started,
            "draining": bool(load and load.draining),
            "loading": list(site.loading),
            "requests": {"active": load.active if load else 0, "limit": site.settings.max_requests},
            "models": len(site.fleet.models()) if site.fleet else 0,
            "keys": "none" if site.keyring.open else "required",
            "machine": msgspec.to_builtins(machine),
        }

    @get("/pipeline", summary="The steps that every request walks", sync_to_thread=False)
    def steps() -> list[dict[str, str]]:
        return [{"direction": way, "step": name, "does": text} for way, name, text in pipeline()]

    @post("/stop", summary="Finish what is being answered and exit", status_code=202, sync_to_thread=False)
    def stop() -> dict[str, str]:
        if site.stop is None:
            raise Conflict("this app is part of another program, which has to stop it")
        site.stop()
        return {"status": "stopping"}

    return [status, steps, stop]


def _models(site: Site) -> list[HTTPRouteHandler]:
    @get("/ps", summary="Loaded models", sync_to_thread=False)
    def ps() -> dict[str, list[LoadedModel]]:
        return {"models": list(site.fleet.models())}

    @post("/load", summary="Load a model and wait until it is ready", status_code=200)
    async def load(data: JSONBody[LoadBody]) -> LoadedModel:
        loaded: LoadedModel = await site.fleet.preload(data.model, data.options)
        return loaded

    @post("/unload", summary="Unload a model, or all", status_code=200)
    async def unload(data: JSONBody[UnloadBody]) -> dict[str, int]:
        return {"unloaded": await site.fleet.unload(data.model)}

    @get("/models", summary="Entries of the store")
    async def stored() -> dict[str, list[dict[str, Any]]]:
        entries = await asyncio.to_thread(site.store.entries)
        return {
            "models": [
                {
                    "name": short(site, entry.reference) if entry.reference else entry.descriptor.digest,
                    "reference": str(entry.reference) if entry.reference else None,
                    "digest": entry.descriptor.digest,
                    "size": entry.size,
                    "created": entry.created,
                    "pinned": entry.pinned,
                }
                for entry in entries
            ]
        }

    @delete("/models/{name:path}", summary="Remove a model from the store", status_code=200)
    async def remove(name: FromPath[str]) -> Response[bytes]:
        gone = await asyncio.to_thread(site.store.delete, name.removeprefix("/"))
        return Response(msgspec.json.encode(gone), media_type="application/json")

    return [*([ps, load, unload] if site.fleet is not None else []), stored, remove]


def _logs(site: Site) -> HTTPRouteHandler:
    @get("/logs", summary="Log lines of the server, or of one model's worker; `follow=true` goes on")
    async def logs(
        follow: FromQuery[bool] = False,
        model: FromQuery[str | None] = None,
        tail: Annotated[int, QueryParameter(ge=0, le=10_000)] = 500,
    ) -> Stream:
        async def lines() -> AsyncIterator[bytes]:
            if model is not None and site.fleet is not None:
                source: AsyncIterator[str] = _worker_lines(site.fleet, model, follow, tail)
            else:
                source = site.logs.lines(follow=follow, tail=tail)
            async for line in source:
                yield line.encode("utf-8", "replace") + b"\n"

        return Stream(lines(), media_type="text/plain; charset=utf-8")

    return logs


async def _worker_lines(fleet: Any, model: str, follow: bool, tail: int) -> AsyncIterator[str]:
    for line in await asyncio.to_thread(fleet.logs, model, tail):
        yield line
    if follow:
        async for line in fleet.follow(model):
            yield line


def _pull(site: Site) -> HTTPRouteHandler:
    @post("/pull", summary="Fetch a model; the answer is progress, a JSON object a line", status_code=200)
    async def pull(data: JSONBody[PullBody]) -> Stream:
        if site.settings.offline:
            raise InvalidRequest("this server is set to stay offline", hint="unset `offline`")
        return Stream(_progress(site, data.model), media_type="application/x-ndjson")

    return pull


async def _progress(site: Site, model: str) -> AsyncIterator[bytes]:
    from dockyard.artifact.transfer import pull
    from dockyard.errors import Cancelled

    loop = asyncio.get_running_loop()
    # One entry for each item: a slow reader sees fewer updates, not an ever longer queue.
    news: dict[str, Progress] = {}
    changed = asyncio.Event()
    gone = False

    def tell(progress: Progress) -> None:
        if gone:
            raise Cancelled(f"the pull of {model} was cancelled")
        loop.call_soon_threadsafe(note, progress)

    def note(progress: Progress) -> None:
        news[progress.item or progress.message] = progress
        changed.set()

    work = asyncio.ensure_future(asyncio.to_thread(pull, site.store, model, site.settings, on_progress=tell))
    work.add_done_callback(lambda _: changed.set())
    try:
        while not work.done() or news:
            await changed.wait()
            changed.clear()
            waiting, news_now = list(news.values()), news
            news_now.clear()
            if waiting:
                yield b"".join(msgspec.json.encode(one) + b"\n" for one in waiting)
            if work.done() and not news:
                break
        try:
            work.result()
            yield msgspec.json.encode(Progress(action="note", message=f"{model} is in the store")) + b"\n"
        except DockyardError as error:
            yield error_body(error) + b"\n"
    finally:
        gone = True
