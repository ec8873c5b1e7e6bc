"""Servers elsewhere: streamable HTTP, and the older SSE. Only where the guard lets us, only https unless listed.

Redirects are followed within the origin, and each is checked again; headers carry declared secrets and go nowhere else.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from dockyard.errors import SourceUnreachable
from dockyard.settings import Settings
from dockyard.tools.model import Server, ToolFailed
from dockyard.tools.runners import _given
from dockyard.tools.runners._groups import unwrapped
from dockyard.tools.runners._guard import Guard

EVENT_BYTES = 4 << 20
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
        client = _http.client(
            self._guard, headers=headers, seconds=server.call_seconds, stream_seconds=stream, rpc=True
        )
        opened = _sse(server, client) if server.transport == "sse" else _streamable(server, client)
        try:
            with unwrapped():
                async with client, opened as streams:
                    yield streams
        except (httpx2.HTTPError, OSError) as error:
            told = str(error) or type(error).__name__
            raise SourceUnreachable(f"server {server.name!r} does not answer: {told}") from error


def _streamable(server: Server, client: Any) -> contextlib.AbstractAsyncContextManager[Any]:
    from mcp.client.streamable_http import streamable_http_client

    return streamable_http_client(server.url, http_client=client, max_sse_event_size=EVENT_BYTES)


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
