"""What travels on the wire: the HTTP application and its dialects.

``create_app`` builds it for any ASGI server, or for ``client.AsyncClient(app=…)`` without one; ``api.server.serve``
runs it on Granian with everything that belongs to a real server.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from dockyard import stack as stacks
from dockyard.settings import Settings

if TYPE_CHECKING:
    from litestar import Litestar, Request, Response

    from dockyard.api._further import Light, Routes
    from dockyard.api._site import Site
    from dockyard.api.door import Door
    from dockyard.artifact.store import Store
    from dockyard.state import State

log = logging.getLogger(__name__)

RESUME_SECONDS = 2.0


def create_app(
    settings: Settings,
    *,
    store: Store | None = None,
    fleet: Any = None,
    state: State | None = None,
    extra: Sequence[Any] = (),
    trusted: bool = False,
    hub_only: bool = False,
    owner_token: str | None = None,
) -> Litestar:
    """The application. What is not given is made from ``settings``, and opened and closed with the app's lifespan.

    ``trusted`` says that no socket leads here: every caller has all rights and no database is opened. ``extra`` are
    further route handlers; ``hub_only`` leaves the hub and health; ``owner_token`` is one more key that may manage.
    """
    from dockyard.api._site import Site
    from dockyard.api._wire import Watchdog
    from dockyard.artifact.store import Store
    from dockyard.gateway.keyring import Keyring

    settings = settings if hub_only else stacks.governed(settings)
    store = store if store is not None else Store.open(settings)
    if state is None and not trusted:
        from dockyard.state import State

        state = State(settings.database_url)
    keys = settings if not trusted else Settings()
    site = Site(
        settings=settings,
        store=store,
        keyring=Keyring(keys, state, owner_token=owner_token),
        watchdog=Watchdog(),
        state=state,
        trusted=trusted,
        stack=stacks.of(settings) if not hub_only else stacks.EMPTY,
    )
    if not hub_only:
        _add_gateway(site, fleet)
    return _build(site, extra)


def _add_gateway(site: Site, fleet: Any) -> None:
    from dockyard import guards
    from dockyard.api._knowledge import bases_of
    from dockyard.api._library import library
    from dockyard.gateway import Gateway, Parts
    from dockyard.telemetry import AccessLog, Snapshot, Telemetry

    if fleet is None:
        from dockyard.fleet import Fleet

        fleet = Fleet(site.settings, site.store)

    def snapshot() -> Snapshot:
        from dockyard.hardware import memory

        total, available = memory()
        return Snapshot(
            memory={"total": total, "available": available},
            active=site.gateway.load.active if site.gateway else 0,
            models=tuple(fleet.models()),
            dropped_usage_rows=site.state.dropped if site.state else 0,
        )

    quiet = site.trusted or site.settings.log_level in ("warning", "error")
    telemetry = Telemetry(snapshot, access=None if quiet else AccessLog())
    if site.state is not None:
        telemetry.sinks.append(site.state.record)
    site.fleet = fleet
    site.gateway = Gateway(
        Parts(
            settings=site.settings,
            fleet=fleet,
            keyring=site.keyring,
            telemetry=telemetry,
            guards=guards.chosen(site.settings),
            digest=fleet.identity,
            stack=site.stack,
            prompts=lambda: library(site),
            knowledge=lambda names: bases_of(site, names),
        )
    )
    if site.settings.record_content:
        from dockyard.api._runner_records import records

        records(site)


def _build(site: Site, extra: Sequence[Any]) -> Door:
    from litestar.datastructures import State as AppState

    from dockyard.api import health, management, openai_models, reference
    from dockyard.api._chat_endpoint import ChatEndpoint
    from dockyard.api._endpoint import Endpoint
    from dockyard.api.door import Door, Origins
    from dockyard.api.openai_completions import Completions

    handlers: list[Any] = [*health.handlers(site), *reference.handlers(), *_hub(site)]
    hot: dict[str, Any] = {}
    if site.gateway is not None:
        handlers += [*openai_models.handlers(site), *extra]
        hot["/v1/chat/completions"] = ChatEndpoint(site)
        hot["/v1/completions"] = Endpoint(site.gateway, Completions(), site.watchdog)
    handlers.append(management.router(site))
    app = Door(
        handlers,
        openapi_config=reference.config(),
        exception_handlers={Exception: _failed},
        lifespan=[_lifespan(site)],
        logging_config=None,
        request_max_body_size=site.settings.max_body,
        state=AppState({"site": site}),
    )
    app.site, app.hot, app.origins, app.hosts = site, hot, Origins(site.settings), set()
    app.further = lambda: _others(site)
    site.app = app
    return app


def _others(site: Site) -> tuple[Light, Routes]:
    from litestar.datastructures import State as AppState

    from dockyard.api import reference
    from dockyard.api._further import application, gather

    routes = gather(site)
    state = AppState({"site": site})
    return application(site, routes, _failed, openapi_config=reference.config(hidden=True), state=state), routes


def _hub(site: Site) -> list[Any]:
    from dockyard.api.oci import oci_handlers

    return list(oci_handlers(site.store, site.keyring.authenticate))


def _lifespan(site: Site) -> Callable[[Litestar], Any]:
    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        if site.state is not None:
            await site.state.open()
        await site.keyring.refresh()
        site.watchdog.start()
        try:
            if site.fleet is not None:
                await site.fleet.start()
            resuming = asyncio.get_running_loop().create_task(_resume(site))
            try:
                yield
            finally:
                resuming.cancel()
                while site.ends:
                    await site.ends.pop()()
                if site.fleet is not None:
                    await site.fleet.close()
        finally:
            await site.watchdog.stop()
            if site.state is not None:
                await site.state.close()
            if site.gateway is not None and (access := site.gateway.parts.telemetry.access):
                access.flush()

    return lifespan


async def _resume(site: Site) -> None:
    """Go on with batches that an earlier run left, once the start is over: most servers have none."""
    if site.state is None or site.gateway is None:
        return
    from dockyard.state._peek import unfinished

    await asyncio.sleep(RESUME_SECONDS)
    try:
        if await asyncio.to_thread(unfinished, site.state.url):
            batches = await asyncio.to_thread(importlib.import_module, "dockyard.api.openai_batches")
            await batches.start(site)
    except Exception:  # the server serves without them, and takes them up when one is made
        log.exception("batches of an earlier run could not be resumed")


def _failed(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Any failure of a framework route, in OpenAI's error shape."""
    from litestar import Response
    from litestar.exceptions import HTTPException

    from dockyard.api._failures import failure
    from dockyard.api._wire import error_body

    told, headers = failure(request, error)
    status = error.status_code if isinstance(error, HTTPException) else told.status
    return Response(error_body(told), status_code=status, headers=headers, media_type="application/json")
