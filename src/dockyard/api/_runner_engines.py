"""``/engines…``: backends, loaded models, their configuration, and the last requests, as Model Runner tells them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromQuery
from litestar.response import Stream

from dockyard import engines, plugins
from dockyard.api import _runner_configure as configuring
from dockyard.api import _runner_wire as wire
from dockyard.api._decode import BodyReader
from dockyard.api._runner_records import records
from dockyard.api._site import Site
from dockyard.errors import Conflict, DockyardError, InvalidRequest
from dockyard.types import Format, Kind, LoadedModel, LoadOptions, Mode, ModelFacts, ModelFiles

log = logging.getLogger(__name__)

Preloads = dict[tuple[str, Mode], "asyncio.Task[None]"]
"""Loads that follow a configuration, by model and mode."""

TAGS = ["Model Runner"]


_KINDS: dict[str, Kind] = {"generate": "chat", "embed": "embed", "rerank": "rerank"}


class UnloadBody(msgspec.Struct, forbid_unknown_fields=True):
    """Which models to unload: ``all``, or those named; of one backend, if it is named."""

    all: bool = False
    backend: str = ""
    models: list[str] | None = None


def handlers(site: Site) -> list[HTTPRouteHandler]:
    """All routes below ``/engines`` but those that infer. ``status`` needs no key: it is what clients wait for."""
    guards = [site.require("manage")]
    preloads: Preloads = {}

    @get("/engines/status", summary="Each backend, and whether it can be used", tags=TAGS)
    async def status() -> dict[str, str]:
        return await asyncio.to_thread(_status, site)

    @get("/engines/ps", guards=guards, summary="Loaded models", sync_to_thread=False, tags=TAGS)
    def ps() -> list[dict[str, Any]]:
        return [_running(one) for one in site.fleet.models() if one.state != "failed"]

    @get("/engines/df", guards=guards, summary="Bytes on disk", tags=TAGS)
    async def df() -> dict[str, int]:
        used = await asyncio.to_thread(site.store.df)
        return {"models_disk_usage": used.blobs, "default_backend_disk_usage": await asyncio.to_thread(_installed)}

    @post("/engines/unload", guards=guards, status_code=200, summary="Unload models that are idle", tags=TAGS)
    async def unload(request: Request[Any, Any, Any]) -> dict[str, int]:
        asked, _ = BodyReader(UnloadBody).read(await request.body())
        return {"unloaded_runners": await _unload(site, asked)}

    paths = {f"/engines/{backend}/_configure": backend for backend in wire.backends()}

    @post(
        ["/engines/_configure", *paths],
        guards=guards,
        status_code=202,
        summary="Keep options for a model; below a backend, it is the one to use",
        tags=TAGS,
    )
    async def configure(request: Request[Any, Any, Any]) -> Response[bytes]:
        asked, _ = BodyReader(configuring.ConfigureBody).read(await request.body())
        backend = paths.get(request.url.path)
        # Model Runner's clients name llama.cpp by habit, whatever the model; so it leaves the choice of an engine open.
        engine = wire.engine_of(backend) if backend not in (None, "llama.cpp") else None
        await _configure(site, asked.model, configuring.options_of(asked, engine), preloads)
        return Response(b"", status_code=202, media_type="text/plain")

    @get("/engines/_configure", guards=guards, summary="Options that are kept", tags=TAGS)
    async def configurations(model: FromQuery[str | None] = None) -> list[dict[str, Any]]:
        digest = await asyncio.to_thread(site.store.resolve, model) if model else None
        return [
            configuring.row(site, entry.digest, entry.reference, entry.options)
            for entry in await asyncio.to_thread(site.fleet.configurations)
            if digest is None or entry.digest == digest.digest
        ]

    @get("/engines/requests", guards=guards, summary="The last requests of each model", tags=TAGS)
    async def requests(
        request: Request[Any, Any, Any], model: FromQuery[str | None] = None, include_existing: FromQuery[str] = ""
    ) -> Response[Any] | Stream:
        if "text/event-stream" in request.headers.get("accept", ""):
            shown = include_existing.lower() in ("1", "true")
            return Stream(_follow(site, model, existing=shown), media_type="text/event-stream")
        return Response(_requests(site, model))

    return [status, ps, df, unload, configure, configurations, requests]


def _status(site: Site) -> dict[str, str]:
    from dockyard.hardware import detect

    hardware = detect()
    loaded = [wire.backend_of(one.engine) for one in site.fleet.models() if one.state == "ready"]
    found = {}
    for backend, name in wire.backends().items():
        if name.startswith("echo"):
            continue
        plugin = plugins.find("engines")[name]
        if plugin.error is not None:
            found[backend] = f"Error: {plugin.error}"
            continue
        engine = engines.create(name)
        trial: Format = next(iter(sorted(engine.formats)), "unknown")
        facts = ModelFacts(format=trial)
        files = ModelFiles(
            reference="", digest="", directory="", format=trial, weights=(f"/nowhere.{trial}",), facts=facts
        )
        refusal = _refusal(engine, files, hardware)
        if refusal is not None and "install" in refusal:
            found[backend] = f"Not Installed: {refusal}"
        else:
            count = loaded.count(backend)
            found[backend] = f"Running: {count} {'model' if count == 1 else 'models'} loaded"
    return found


def _refusal(engine: Any, files: ModelFiles, hardware: Any) -> str | None:
    try:
        refusal: str | None = engine.refuses(files, hardware)
    except (DockyardError, OSError) as error:
        return str(error)  # there are no files, and that is no news of the engine
    return refusal


def _running(one: LoadedModel) -> dict[str, Any]:
    """A row of ``docker model ps``."""
    used = one.last_used or one.loaded_at
    found = {
        "backend_name": wire.backend_of(one.engine),
        "model_name": one.reference,
        "mode": wire.MODES[one.mode],
        "last_used": datetime.fromtimestamp(used or 0, UTC).isoformat().replace("+00:00", "Z"),
        "in_use": bool(one.active or one.queued),
        "loading": one.state == "loading",
    }
    if one.expires_at is None:
        return {**found, "keep_alive": "-1"}
    if one.last_used is not None:
        found["keep_alive"] = wire.told(round(max(0.0, one.expires_at - one.last_used), 3))
    return found


def _installed() -> int:
    """Bytes of the embedded llama.cpp."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        files = distribution("xllamacpp").files or ()
    except PackageNotFoundError:
        return 0
    total = 0
    for file in files:
        with contextlib.suppress(OSError):
            total += Path(file.locate()).stat().st_size
    return total


async def _unload(site: Site, asked: UnloadBody) -> int:
    if not asked.all and not asked.models:
        raise InvalidRequest("name the models, or send 'all': true", param="models")
    engine = wire.engine_of(asked.backend) if asked.backend else None
    digests = None
    if not asked.all:
        digests = {await _digest(site, name) for name in asked.models or ()}
    idle = [
        one
        for one in site.fleet.models()
        if one.state == "ready"
        and not one.active
        and not one.queued
        and (engine is None or one.engine == engine)
        and (digests is None or one.digest in digests)
    ]
    done = 0
    for digest, mode in dict.fromkeys((one.digest, one.mode) for one in idle):
        done += await site.fleet.unload(digest, mode=mode)
    return done


async def _digest(site: Site, name: str) -> str:
    if (builtin := engines.builtin(name, site.settings.upstreams)) is not None:
        return builtin.digest
    found = await asyncio.to_thread(site.store.resolve, name)
    return str(found.digest)


async def _configure(site: Site, name: str, options: LoadOptions, preloads: Preloads) -> None:
    """Keep the options, and load the model by them in the background. Raises Conflict where it is in use."""
    digest = await _digest(site, name)
    if (before_us := preloads.pop((digest, options.mode), None)) is not None:
        before_us.cancel()  # it would wait for a load by options that are no longer those
        await asyncio.wait((before_us,))
    loaded = [one for one in site.fleet.models() if one.digest == digest and one.mode == options.mode]
    if any(one.active or one.queued for one in loaded):
        raise Conflict(f"{name} is in use and can't be loaded anew", hint="try again when its answers are done")
    if options.context == -1:
        trained = (await asyncio.to_thread(_trained, site, name)) or 0
        options = msgspec.structs.replace(options, context=trained or None)
    before = await site.fleet.configuration(name, options.mode)
    if before is not None and before.defaults is not None and options.defaults is not None:
        from dockyard.artifact.defaults import merged

        options = msgspec.structs.replace(options, defaults=merged(before.defaults, options.defaults))
    now = await site.fleet.configure(name, options)

    async def preload() -> None:
        try:
            if loaded and now != before:
                await site.fleet.unload(digest, mode=options.mode)
            (await site.fleet.lease(name, _KINDS[options.mode])).release()
        except DockyardError as error:
            log.warning("%s could not be loaded after it was configured: %s", name, error.message)

    task = preloads[digest, options.mode] = asyncio.create_task(preload())

    def ended(_: asyncio.Task[None]) -> None:
        if preloads.get((digest, options.mode)) is task:
            del preloads[digest, options.mode]

    task.add_done_callback(ended)


def _trained(site: Site, name: str) -> int | None:
    from dockyard.artifact.materialize import model_files

    return model_files(site.store, name, only_look=True).facts.context


def _requests(site: Site, model: str | None) -> list[dict[str, Any]]:
    found = records(site).models()
    if model is not None:
        named = {model, str(site.store.named(model))}
        found = {name: kept for name, kept in found.items() if named & {name, str(site.store.named(name))}}
    return [
        {"count": len(kept), "model": name, "config": _config(site, name), "records": kept}
        for name, kept in found.items()
    ]


def _config(site: Site, name: str) -> dict[str, Any]:
    loaded = next((one for one in site.fleet.models() if one.reference == name), None)
    return {"context-size": loaded.context, "parallel": loaded.parallel} if loaded is not None else {}


async def _follow(site: Site, model: str | None, *, existing: bool) -> AsyncIterator[bytes]:
    kept = records(site)
    queue = kept.follow()
    try:
        if existing:
            for group in _requests(site, model):
                yield b"data: " + msgspec.json.encode(group) + b"\n\n"
        yield b": connected\n\n"
        wanted = {model, str(site.store.named(model))} if model is not None else set()
        while True:
            record = await queue.get()
            if not wanted or wanted & {record["model"], str(site.store.named(record["model"]))}:
                one = {"count": 1, "model": record["model"], "config": {}, "records": [record]}
                yield b"data: " + msgspec.json.encode(one) + b"\n\n"
    finally:
        kept.leave(queue)
