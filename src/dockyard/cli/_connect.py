"""Whom a verb talks to: the store on disk, a running server, or an app in this process."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from dockyard.errors import ServerUnreachable

if TYPE_CHECKING:
    from dockyard.artifact.store import Store
    from dockyard.client import AsyncClient
    from dockyard.settings import Settings

T = TypeVar("T")


def read_settings(**flags: Any) -> Settings:
    """The settings in force. ``$DOCKYARD_HOST`` may be a URL for clients, which is no address to listen on."""
    from dockyard import settings

    environ = {name: value for name, value in os.environ.items() if name != "DOCKYARD_HOST" or "://" not in value}
    return settings.load(flags, environ).settings


def open_store(settings: Settings | None = None) -> Store:
    from dockyard.artifact.store import Store

    return Store.open(settings or read_settings())


def find_server(host: str | None, settings: Settings) -> AsyncClient | None:
    """A client of the server that was named or that runs on this home; None if there is neither."""
    from dockyard.client import AsyncClient, running

    named = host or os.environ.get("DOCKYARD_HOST", "")
    if host or "://" in named:
        return AsyncClient(named)
    server = running(settings.home_path)
    if server is None:
        return None
    # The same user's own settings hold the keys of this server; a foreign host never sees them.
    keys = sorted(settings.api_keys, key=lambda key: not key.endswith(":manage"))
    return AsyncClient(server.url, api_key=os.environ.get("DOCKYARD_API_KEY") or _bare(keys))


def ask_server(host: str | None, call: Callable[[AsyncClient], Awaitable[T]]) -> T:
    """One exchange with a server that must be there."""
    import asyncio

    client = find_server(host, read_settings())
    if client is None:
        raise ServerUnreachable(
            "no server is running on this machine", hint="start one with `dockyard serve`, or name one with --host URL"
        )

    async def exchange() -> T:
        async with client:
            return await call(client)

    return asyncio.run(exchange())


def _bare(keys: list[str]) -> str | None:
    return keys[0].removesuffix(":manage") if keys else None
