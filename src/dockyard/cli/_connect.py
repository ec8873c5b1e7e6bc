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


def named_server(host: str | None) -> str | None:
    """The server that the user named, with a flag or in ``$DOCKYARD_HOST``, which counts only if it is a URL."""
    environ = os.environ.get("DOCKYARD_HOST", "")
    return host or (environ if "://" in environ else None)


def find_server(host: str | None, settings: Settings) -> AsyncClient | None:
    """A client of the server that was named or that runs on this home; None if there is neither."""
    from dockyard.client import AsyncClient, running

    if named := named_server(host):
        return AsyncClient(named)
    server = running(settings.home_path)
    if server is None:
        return None
    return AsyncClient(server.url, api_key=server.token or None)


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


def fetch_missing(model: str, settings: Settings, *, quiet: bool = False) -> None:
    """Pull ``model`` if the store on this machine does not hold it and no engine brings it along; blocks."""
    from dockyard.engines import builtin
    from dockyard.errors import DockyardError, ModelNotFound

    if builtin(model, settings.upstreams) is not None:
        return
    store = open_store(settings)
    try:
        store.resolve(model)
    except ModelNotFound as missing:
        from dockyard.artifact.transfer import pull
        from dockyard.cli._output import note
        from dockyard.cli._progress import progress

        if not quiet:
            note(f"{model} is not in the store; pulling it")
        try:
            with progress(quiet=quiet) as show:
                pull(store, model, settings, on_progress=show)
        except DockyardError as error:
            near = missing.hint if missing.hint and missing.hint.startswith("did you mean") else ""
            error.hint = "; ".join(part for part in (near, error.hint) if part)
            raise
