"""Servers elsewhere: streamable HTTP, and the older SSE. Only where the guard lets us, only https unless listed.

Redirects are followed within the origin, and each is checked again; headers carry declared secrets and go nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from dockyard.addresses import Guard
from dockyard.errors import SourceUnreachable
from dockyard.settings import Settings
from dockyard.tools.model import Server, ToolFailed
from dockyard.tools.runners import _given
from dockyard.tools.runners._groups import unwrapped

STREAM_SECONDS = 300.0


class Remote:
    name = "remote"

    def __init__(self, settings: Settings) -> None:
        self._guard = Guard(settings.tools_private)

    def refuses(self, server: Server) -> str | None:
        if not server.url.startswith(("https://", "http://")):
            return f"server {server.name!r}: url {server.url!r} is no https URL"
        return None

    @contextlib.asynccontextmanager
    async def connect(self, server: Server, secrets: dict[str, str]) -> AsyncIterator[Any]:
        """Raises Forbidden for an address that may not be reached, SourceUnreachable, ToolFailed."""
        import httpx2

        from dockyard.tools.runners import _http

        reason = self.refuses(server)
        if reason is not None:
            raise ToolFailed(reason, param="url")
        headers = _given.headers(server, secrets)
        await _http.check(self._guard, server.url)
        stream = max(STREAM_SECONDS, server.call_seconds)
        transport = _http.Guarded(self._guard, rpc=True)
        client = _http.client(
            self._guard, headers=headers, seconds=server.call_seconds, stream_seconds=stream, transport=transport
        )
        if server.transport == "sse":
            opened = _sse(server, client)
        else:
            opened = _streamable(server, client, transport, self._lean(server, headers))
        try:
            with unwrapped():
                async with client, opened as streams:
                    yield streams
        except (httpx2.HTTPError, OSError) as error:
            told = str(error) or type(error).__name__
            raise SourceUnreachable(f"server {server.name!r} does not answer: {told}") from error

    def _lean(self, server: Server, headers: dict[str, str]) -> Any:
        """A lean client for this server, or None where it needs more than that can do."""
        from dockyard.tools.runners._lean import Lean

        own = {"User-Agent": "dockyard", "Accept": "application/json, text/event-stream"}
        try:
            return Lean(self._guard, server.url, {**own, "Content-Type": "application/json", **headers})
        except ValueError:
            return None


@contextlib.asynccontextmanager
async def _streamable(server: Server, client: Any, transport: Any, lean: Any) -> AsyncIterator[Any]:
    """The package's transport, and beside it the short way for requests that need no more than a POST."""
    import anyio
    from mcp.client.streamable_http import streamable_http_client

    from dockyard.tools.runners._posts import Posts
    from dockyard.tools.sdk import Transport
    from dockyard.tools.sdk_direct import EVENT_BYTES

    async with streamable_http_client(server.url, http_client=client, max_sse_event_size=EVENT_BYTES) as (read, write):
        if lean is None:
            yield Transport(read, write)
            return
        heard, merged = anyio.create_memory_object_stream[Any](0)
        pump = asyncio.create_task(_pump(read, heard))
        posts = Posts(lean, lambda: transport.session, heard.send)
        try:
            yield Transport(merged, write, None, posts)
        finally:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)
            await posts.close()
            merged.close()


async def _pump(read: Any, heard: Any) -> None:
    import anyio

    with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError), heard:
        async for item in read:
            await heard.send(item)


def _sse(server: Server, client: Any) -> contextlib.AbstractAsyncContextManager[Any]:
    from mcp.client.sse import sse_client

    def same(**_: Any) -> Any:
        return _Open(client)

    factory: Any = same  # whose keywords are those that the client was made with already
    return sse_client(server.url, timeout=server.call_seconds, httpx_client_factory=factory)


class _Open:
    """A client that is open already, for code that wants to open one itself."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def __aenter__(self) -> Any:
        return self._client

    async def __aexit__(self, *_: object) -> None:
        pass


PLUGIN = Remote
