"""An HTTP client that reaches only what the guard lets it, at the address that was checked, and reads no more than it
should. For servers elsewhere, and for APIs behind an OpenAPI document.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx2

from dockyard.addresses import Guard
from dockyard.errors import DockyardError, Forbidden
from dockyard.tools.model import ToolFailed

CONNECT_SECONDS = 10.0
BODY_BYTES = 16 << 20
MOST_ADDRESSES = 4
SESSION = "mcp-session-id"
_INTERNAL_ERROR = -32603


def client(
    guard: Guard,
    *,
    headers: dict[str, str],
    seconds: float,
    stream_seconds: float = 300.0,
    transport: Guarded | None = None,
) -> Any:
    """``httpx2.AsyncClient``: no redirects by itself, no proxies of the environment (its certificates count).

    ``transport`` is one for this guard that the caller made.
    """
    return httpx2.AsyncClient(
        transport=transport or Guarded(guard),
        headers={"User-Agent": "dockyard", **headers},
        timeout=httpx2.Timeout(seconds, connect=CONNECT_SECONDS, read=stream_seconds),
        follow_redirects=False,
        trust_env=False,
    )


async def check(guard: Guard, url: str) -> None:
    """Whether this URL may be reached, as a sentence. Raises Forbidden, SourceUnreachable, ToolFailed."""
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, TypeError, ValueError) as error:
        raise ToolFailed(f"{url!r} is no URL: {error}", param="url") from error
    await addresses(guard, parsed)


async def addresses(guard: Guard, url: httpx2.URL) -> list[str]:
    """The checked addresses to connect to, in turn. Raises Forbidden, SourceUnreachable."""
    if url.scheme not in ("http", "https") or not url.host:
        raise Forbidden(f"only https URLs are reached, not {url.scheme}://{url.host}", param="url")
    port = url.port or (443 if url.scheme == "https" else 80)
    found = await guard.addresses(url.host, port)
    if url.scheme == "http" and not all(guard.listed(url.host, each) for each in found):
        raise Forbidden(
            f"{url.host!r} is asked for without TLS",
            param="url",
            hint="use https; plain http only to what the setting tools_private lists",
        )
    return found[:MOST_ADDRESSES]


def _to(address: str, request: httpx2.Request) -> httpx2.Request:
    """The same request to an address; TLS still asks for the name."""
    extensions = dict(request.extensions)
    if request.url.scheme == "https":
        extensions["sni_hostname"] = request.url.host
    url = request.url.copy_with(host=address)
    return httpx2.Request(request.method, url, headers=request.headers, stream=request.stream, extensions=extensions)


class Guarded(httpx2.AsyncBaseTransport):
    """Resolves, checks, and connects to the address that was checked; for every request, so for every redirect too.

    With ``rpc`` a POST that does not come through is answered with a JSON-RPC error: the protocol's client would end
    all that is under way for one call's failure.
    """

    def __init__(self, guard: Guard, *, rpc: bool = False) -> None:
        self.session: str | None = None
        """What a server of the protocol called the session that it began."""
        self._guard = guard
        self._rpc = rpc
        self._inner = httpx2.AsyncHTTPTransport(limits=httpx2.Limits(max_connections=32))

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            return await self._send(request)
        except httpx2.TransportError as error:
            if not self._rpc or request.method != "POST":
                raise
            told = {"code": _INTERNAL_ERROR, "message": str(error) or type(error).__name__}
            return httpx2.Response(502, json={"jsonrpc": "2.0", "id": None, "error": told})

    async def _send(self, request: httpx2.Request) -> httpx2.Response:
        try:
            found = await addresses(self._guard, request.url)
        except DockyardError as error:
            raise httpx2.ConnectError(error.message, request=request) from error
        for number, address in enumerate(found, 1):
            try:
                response = await self._inner.handle_async_request(_to(address, request))
                break
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                if number == len(found):
                    raise
        if request.method == "POST" and response.status_code < 300 and SESSION in response.headers:
            self.session = response.headers[SESSION]
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            response.stream = Bounded(response.stream)
        return response

    async def aclose(self) -> None:
        await self._inner.aclose()


class Bounded(httpx2.AsyncByteStream):
    """A body that fails where it grows beyond the bound, or breaks off, as StreamError: that is one call's failure."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        try:
            async for data in self._stream:
                size += len(data)
                if size > BODY_BYTES:
                    raise httpx2.StreamError(f"the answer has more than {BODY_BYTES} bytes")
                yield data
        except httpx2.TransportError as error:
            raise httpx2.StreamError(f"the answer broke off: {error}") from error

    async def aclose(self) -> None:
        with contextlib.suppress(httpx2.HTTPError):
            await self._stream.aclose()
