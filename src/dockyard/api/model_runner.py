"""Docker Model Runner's API: ``/models…`` manages the store, ``/engines…`` what is loaded, and infers.

Its clients, and Compose's ``models:`` through the ``docker-model`` command, work against this. Failures of management
are plain text, as there; those of inference have OpenAI's shape.
"""

from __future__ import annotations

from typing import Any

from litestar import Response, asgi, get
from litestar.handlers import HTTPRouteHandler

from dockyard import __version__
from dockyard.api import _runner_engines, _runner_models, _runner_wire
from dockyard.api._further import Routes
from dockyard.api._runner_paths import Aliases
from dockyard.api._runner_records import records
from dockyard.api._site import Site
from dockyard.api._wire import Hot

HOT = ("chat/completions", "completions", "embeddings", "rerank", "score", "responses")


def routes(site: Site) -> Routes:
    """Found by ``_further``."""
    records(site)
    aliases = Aliases(site)
    mounted: Any = asgi("/engines", is_mount=True, copy_scope=True)(aliases.mounted)
    hot: dict[str, Hot] = {}
    for backend in ("", *(f"/{name}" for name in _runner_wire.backends())):
        hot.update({f"/engines{backend}/v1/{path}": aliases for path in HOT})
    return Routes(
        handlers=[*_about(site), *_runner_models.handlers(site), *_runner_engines.handlers(site), mounted],
        hot=hot,
        failures={"/models": _runner_wire.failed, "/engines": _runner_wire.failed},
    )


def _about(site: Site) -> list[HTTPRouteHandler]:
    @get("/version", tags=["Model Runner"], summary="The version", sync_to_thread=False)
    def version() -> dict[str, str]:
        return {"version": __version__}

    @get("/logs", guards=[site.require("manage")], tags=["Model Runner"], summary="The server's log as text")
    async def logs() -> Response[str]:
        found = [line async for line in site.logs.lines(follow=False, tail=500)]
        return Response("".join(f"{line}\n" for line in found), media_type="text/plain")

    return [version, logs]
