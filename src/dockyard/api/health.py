"""``/health`` (is it alive), ``/ready`` (send it requests) and ``/metrics`` (Prometheus)."""

from __future__ import annotations

from typing import Any

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromQuery

from dockyard import __version__
from dockyard.api._site import Site
from dockyard.errors import DockyardError
from dockyard.types import Call, Message, Request, Sampling


def handlers(site: Site) -> list[HTTPRouteHandler]:
    """The three routes. Only metrics want a key, where there are keys: they name the models."""

    @get("/health", tags=["Operation"], summary="The process answers", sync_to_thread=False)
    def health() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    @get("/ready", tags=["Operation"], summary="Requests are welcome; with `deep=1` a token is generated to prove it")
    async def ready(deep: FromQuery[bool] = False, model: FromQuery[str | None] = None) -> Response[dict[str, Any]]:
        if site.gateway is not None and site.gateway.load.draining:
            return _unready("stopping")
        if site.loading:
            return _unready("loading", models=list(site.loading))
        if deep and site.gateway is not None:
            name = model or next((one.reference for one in site.fleet.models() if one.state == "ready"), "echo")
            try:
                await _one_token(site, name)
            except DockyardError as error:
                return _unready("failing", model=name, error={"code": error.code, "message": error.message})
            return Response({"status": "ready", "model": name})
        return Response({"status": "ready"})

    @get(
        "/metrics",
        tags=["Operation"],
        summary="Prometheus metrics",
        guards=[site.require(None)],
        media_type="text/plain",
    )
    async def metrics() -> Response[bytes]:
        if site.gateway is None:
            return Response(b"", media_type="text/plain")
        body, kind = site.gateway.parts.telemetry.render()
        return Response(body, media_type=kind.partition("; charset=")[0])  # the framework adds it

    return [health, ready, metrics]


def _unready(status: str, **more: Any) -> Response[dict[str, Any]]:
    return Response({"status": status, **more}, status_code=503, headers={"retry-after": "1"})


async def _one_token(site: Site, model: str) -> None:
    """Straight to the engine: a probe is no caller, and has no key."""
    lease = await site.fleet.lease(model, "chat")
    try:
        request = Request(
            id="ready",
            messages=(Message(role="user", content="Hi"),),
            sampling=Sampling(max_tokens=1, temperature=0),
        )
        call = Call(request=request, model=model, dialect="probe")
        chunks = lease.generate(call.request)
        try:
            async for _ in chunks:
                pass
        finally:
            await chunks.aclose()
    finally:
        lease.release()
