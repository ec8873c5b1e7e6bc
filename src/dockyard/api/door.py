"""The first thing a request meets: who may knock at all, and the short way for the hot routes.

- On loopback without keys the browser is the only fence between a web page and this server. A foreign ``Host`` header
  (DNS rebinding) and a foreign ``Origin`` (a page of another site) are refused.
- CORS: pages of localhost on any port, and those of ``cors_origins``, may read answers.
- Hot routes are plain ASGI; everything else goes to the framework, other dialects in an application of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from litestar.types import Message, Receive, Send

from dockyard.api._further import Light, Routes
from dockyard.api._site import Site
from dockyard.api._wire import BODY_SECONDS, Headers, Hot, Pairs, RequestTimeout, send_bytes, send_error
from dockyard.errors import DockyardError, Forbidden
from dockyard.settings import LOOPBACK, Settings

ALLOWED_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
EXPOSED = (
    b"x-request-id, x-dockyard-model, x-dockyard-cache, x-dockyard-steps, retry-after, docker-content-digest, link"
)
DESCRIPTION = ("/docs", "/openapi.json")
ELSEWHERE = ("/v2/rerank",)
"""Paths of other dialects that lie below a prefix of this application: Cohere's rerank below the hub's."""
MOST_HOSTS = 100
PREFLIGHT_SECONDS = b"600"


class Origins:
    """Which browser origins may read answers."""

    def __init__(self, settings: Settings) -> None:
        self._listed = frozenset(origin.rstrip("/").lower() for origin in settings.cors_origins)

    def allows(self, origin: bytes, host: bytes) -> bool:
        text = origin.decode("latin-1").lower()
        if "*" in self._listed or text in self._listed:
            return True
        try:
            parts = urlsplit(text)
            return parts.scheme in ("http", "https") and (
                parts.hostname in LOOPBACK or parts.netloc == host.decode("latin-1").lower()
            )
        except ValueError:
            return False


class Door(Light):
    """The application. Its fields are set once, right after it is made."""

    site: Site
    hot: dict[str, Hot]
    origins: Origins
    hosts: set[bytes]
    """``Host`` headers that were found good."""
    further: Callable[[], tuple[Light, Routes]]
    """Makes the application of the other dialects, and says what they answer; not used on a hub."""
    others: tuple[Light, Routes] | None = None
    """That application, once somebody asked for something that this one does not know."""
    _gathering: asyncio.Future[tuple[Light, Routes]] | None = None
    _begins: tuple[str, ...] | None = None
    _whole: frozenset[str] = frozenset()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        headers: Headers = dict(scope["headers"])
        origin = headers.get(b"origin")
        try:
            if self.site.keyless and headers.get(b"host") not in self.hosts:
                check_host(headers)
                if len(self.hosts) < MOST_HOSTS:
                    self.hosts.add(headers[b"host"])
            if origin is not None:
                allowed = self.origins.allows(origin, headers.get(b"host", b""))
                if not allowed and self.site.keyless:
                    raise Forbidden(
                        "pages of this origin may not use a server without keys",
                        hint="add it to `cors_origins`, or set keys",
                    )
                if allowed:
                    send = with_cors(send, origin)
                if b"access-control-request-method" in headers and scope["method"] == "OPTIONS":
                    await preflight(send, headers, allowed=allowed)
                    return
        except DockyardError as error:
            await send_error(send, error)
            return
        path = scope["path"]
        handler = self.hot.get(path)
        application = super().__call__
        if handler is None and self.site.gateway is not None:
            described = path.startswith(DESCRIPTION)
            if described or path in ELSEWHERE or not self._knows(path):
                others, routes = await self._gather()
                handler = routes.of(path)
                if not described:
                    application = others.__call__
        if handler is not None:
            await handler(scope, headers, receive, send)
            return
        task = asyncio.current_task()
        assert task is not None
        self.site.watchdog.open.add(task)
        try:
            await application(scope, Patient(receive), send)
        finally:
            self.site.watchdog.open.discard(task)

    def _knows(self, path: str) -> bool:
        """Whether a route of this application is it, or begins like it and takes more."""
        if self._begins is None:
            whole = {route.path.rstrip("/") or "/" for route in self.routes}
            self._begins = tuple({each.partition("{")[0] for each in whole if "{" in each} | {"/v2/"})
            self._whole = frozenset(each for each in whole if "{" not in each)
        return (path.rstrip("/") or "/") in self._whole or path.startswith(self._begins)

    async def _gather(self) -> tuple[Light, Routes]:
        if self.others is None:
            # Dialects keep what they know of the server: they are made once, however many ask at the same time.
            work = self._gathering
            if work is None:
                work = self._gathering = asyncio.ensure_future(asyncio.to_thread(self.further))
            try:
                self.others = await asyncio.shield(work)
            finally:
                if work.done() and self._gathering is work:
                    self._gathering = None
        return self.others


class Patient:
    """A ``receive`` that gives up on a body that stops arriving. Waiting for a hang-up after it may take forever."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._more = True

    async def __call__(self) -> Any:
        if not self._more:
            return await self._receive()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                message = await self._receive()
        except TimeoutError:
            raise RequestTimeout(f"nothing of the body arrived for {BODY_SECONDS:.0f} s") from None
        self._more = bool(message.get("more_body"))
        return message


def check_host(headers: Headers) -> None:
    """Raises Forbidden unless the request was addressed to this machine by a name that no one else can own."""
    host = headers.get(b"host", b"").decode("latin-1").lower()
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        name = None
    if name not in LOOPBACK:
        raise Forbidden(
            f"a server without keys answers only to localhost, not to {host[:100]!r}",
            hint="use http://localhost or http://127.0.0.1, or set keys with `api_keys`",
        )


def with_cors(send: Send, origin: bytes) -> Send:
    """Lets a page of ``origin`` read the answer."""

    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers: Pairs = [
                *message["headers"],
                (b"access-control-allow-origin", origin),
                (b"access-control-expose-headers", EXPOSED),
                (b"vary", b"Origin"),
            ]
            message = {**message, "headers": headers}
        await send(message)

    return wrapped


async def preflight(send: Send, headers: Headers, *, allowed: bool) -> None:
    """Answer a browser's question whether it may send what it would like to."""
    if not allowed:
        raise Forbidden("pages of this origin may not use this server", hint="add it to `cors_origins`")
    answer: Pairs = [
        (b"access-control-allow-methods", ALLOWED_METHODS),
        (b"access-control-allow-headers", headers.get(b"access-control-request-headers", b"*")),
        (b"access-control-max-age", PREFLIGHT_SECONDS),
    ]
    if headers.get(b"access-control-request-private-network") == b"true":
        answer.append((b"access-control-allow-private-network", b"true"))
    await send_bytes(send, 204, b"", answer)
