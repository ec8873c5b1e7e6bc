"""``GET /api/dockyard/explain?model=``: what would become of a request for a model now, and why. Nothing is loaded."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
from litestar import get
from litestar.params import FromQuery

from dockyard.api._further import Routes
from dockyard.api._site import Site
from dockyard.errors import InvalidRequest
from dockyard.gateway import pipeline
from dockyard.settings import Settings
from dockyard.types import Kind

MATTER = (
    "engine",
    "llama_server",
    "native_llama",
    "context",
    "parallel",
    "threads",
    "memory_budget",
    "idle_seconds",
    "queue_seconds",
    "cache_bytes",
    "deny_patterns",
    "requests_per_minute",
    "max_requests",
)
"""Settings that decide how a request is answered."""


def routes(site: Site) -> Routes:
    """Found by ``_further``."""

    @get(
        "/api/dockyard/explain",
        guards=[site.require("manage")],
        tags=["Management"],
        summary="Which engine serves a model, with what memory, and what would leave for it",
    )
    async def explain(model: FromQuery[str], kind: FromQuery[str] = "chat") -> dict[str, Any]:
        kinds = get_args(Kind)
        if kind not in kinds:
            raise InvalidRequest(f"there is no kind {kind!r}", param="kind", hint=f"kinds: {', '.join(kinds)}")
        found = await site.fleet.explain(model, kind)
        options = await site.fleet.configuration(model, found.mode)
        return {
            **msgspec.to_builtins(found),
            "configured": msgspec.to_builtins(options),
            "pipeline": [{"direction": way, "step": name, "does": text} for way, name, text in pipeline()],
            "settings": settings_that_matter(site.settings),
        }

    return Routes(handlers=[explain])


def settings_that_matter(settings: Settings) -> list[dict[str, Any]]:
    """Name, value, and whether that is the default."""
    plain = Settings()
    return [
        {"name": name, "value": getattr(settings, name), "default": getattr(settings, name) == getattr(plain, name)}
        for name in MATTER
    ]
