"""A client that reaches public addresses and those that the operator listed, at the address that was checked."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx

from dockyard.addresses import Guard
from dockyard.errors import DockyardError, Forbidden

CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0
MOST_REDIRECTS = 5
MOST_ADDRESSES = 4


def client(guard: Guard, headers: dict[str, str] | None = None) -> httpx.Client:
    """Redirects are followed, each checked as the first; the environment names no proxy."""
    return httpx.Client(
        transport=Guarded(guard),
        headers={"User-Agent": "dockyard", **(headers or {})},
        timeout=httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS),
        follow_redirects=True,
        max_redirects=MOST_REDIRECTS,
        trust_env=False,
    )


class Guarded(httpx.BaseTransport):
    """Resolves, checks, and connects to the address that was checked, for every request."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._inner = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        addresses = permitted(self._guard, request.url.scheme, request.url.host, request.url.port)
        for number, address in enumerate(addresses, 1):
            try:
                return self._inner.handle_request(_to(address, request))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if number == len(addresses):
                    raise
        raise httpx.ConnectError("no address", request=request)

    def close(self) -> None:
        self._inner.close()


def permitted(guard: Guard, scheme: str, host: str, port: int | None) -> list[str]:
    """The checked addresses to connect to, in turn. Raises Forbidden, SourceUnreachable."""
    if scheme not in ("http", "https") or not host:
        raise Forbidden(f"only https URLs are read, not {scheme}://{host}", param="source")
    found: list[str] = _run(guard.addresses(host, port or (443 if scheme == "https" else 80)))
    if scheme == "http" and not all(guard.listed(host, each) for each in found):
        raise Forbidden(
            f"{host!r} is asked for without TLS",
            param="source",
            hint="use https; plain http only to what the setting tools_private lists",
        )
    return found[:MOST_ADDRESSES]


def _run(work: Any) -> Any:
    """A coroutine's result, in a thread that has no event loop."""
    return asyncio.run(work)


def _to(address: str, request: httpx.Request) -> httpx.Request:
    """The same request to an address; TLS still asks for the name."""
    extensions = dict(request.extensions)
    if request.url.scheme == "https":
        extensions["sni_hostname"] = request.url.host
    url = request.url.copy_with(host=address)
    return httpx.Request(request.method, url, headers=request.headers, stream=request.stream, extensions=extensions)


def told(error: Exception) -> str:
    if isinstance(error, DockyardError):
        return error.message
    return str(error) or type(error).__name__
