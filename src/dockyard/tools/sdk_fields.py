"""Fields of results that the package does not know, put back where it has left them out.

The protocol lets a server add fields to a result. The package's server passes on only those that its models name; the
short way of calls passes on all. Nothing that it left out for being empty, or for an older era, comes back.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from dockyard.types import Json

MODERN = ("resultType", "ttlMs", "cacheScope")
"""Fields of a result that older clients are not told."""
_said: ContextVar[dict[str, Json] | None] = ContextVar("said", default=None)


def say(result: dict[str, Json]) -> dict[str, Json]:
    """The same; it is what the request under way is to be answered with."""
    _said.set(result)
    return result


async def whole(ctx: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
    """Middleware of the package's server."""
    token = _said.set(None)
    try:
        left, meant = await call_next(ctx), _said.get()
    finally:
        _said.reset(token)
    if meant is None or not isinstance(left, dict):
        return left
    if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
        meant = {name: value for name, value in meant.items() if name not in MODERN}
    return restored(meant, left)


def restored(meant: Json, left: Json) -> Json:
    """What is left of a value, with all that it was meant to have but for what is null."""
    if isinstance(meant, dict) and isinstance(left, dict):
        both = {name: restored(meant[name], one) if name in meant else one for name, one in left.items()}
        return both | {name: one for name, one in meant.items() if name not in left and one is not None}
    if isinstance(meant, list) and isinstance(left, list) and len(meant) == len(left):
        return [restored(one, other) for one, other in zip(meant, left, strict=True)]
    return left
