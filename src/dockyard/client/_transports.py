"""How a request travels: over HTTP to a URL, or by plain calls to an ASGI app in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlsplit

from dockyard.errors import DockyardError, InvalidRequest, ServerUnreachable

if TYPE_CHECKING:
    import httpx

AsgiApp = Callable[[Any, Any, Any], Any]
CONNECT_SECONDS = 5.0


class Reply(Protocol):
    """An answer whose body is still arriving. Closing it early hangs up, which cancels the work behind it."""

    status: int
    headers: Mapping[str, str]

    def body(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None: ...


class Transport(Protocol):
    """How requests travel; ``send`` returns when the answer's headers are there."""

    async def __aenter__(self) -> Transport: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply: ...


class HttpTransport:
    """To a server, with httpx, which is imported when the first connection is needed."""

    def __init__(self, url: str, timeout: float) -> None:
        url = url if "://" in url else f"http://{url}"
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise InvalidRequest(f"{url!r} is not the URL of a server", hint="for example http://127.0.0.1:12434")
        # Base URLs for OpenAI clients end in /v1, and people copy them.
        self._url = url.rstrip("/").removesuffix("/v1")
        self._timeout = timeout

    async def __aenter__(self) -> HttpTransport:
        import httpx

        timeout = httpx.Timeout(self._timeout, connect=CONNECT_SECONDS)
        self._client = httpx.AsyncClient(timeout=timeout, base_url=self._url)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        import httpx

        request = self._client.build_request(method, path, headers=dict(headers), content=body)
        try:
            return _HttpReply(await self._client.send(request, stream=True), self._url)
        except httpx.TimeoutException as error:
            raise ServerUnreachable(
                f"no answer from {self._url} in time", hint="is it busy loading a model? `dockyard ps` tells"
            ) from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise ServerUnreachable(
                f"can't reach {self._url}: {error}", hint="start a server with `dockyard serve`, or check the address"
            ) from error


class _HttpReply:
    def __init__(self, response: httpx.Response, url: str) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._response, self._url = response, url

    async def body(self) -> AsyncIterator[bytes]:
        import httpx

        try:
            async for part in self._response.aiter_bytes():
                yield part
        except httpx.HTTPError as error:
            raise ServerUnreachable(
                f"{self._url} broke off in the middle of its answer: {error or type(error).__name__}",
                hint="`dockyard logs` may say why",
            ) from error

    async def aclose(self) -> None:
        await self._response.aclose()


class AppTransport:
    """To an app in this process: bodies stream as the app sends them, and closing a reply is a hung-up connection.

    The app's lifespan runs while the transport is open, on a task of its own.
    """

    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self._to_app: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._from_app: asyncio.Queue[MutableMapping[str, Any]] = asyncio.Queue()
        self._state: dict[str, Any] = {}
        self._running: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> AppTransport:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self._state}
        self._life = asyncio.create_task(self._app(scope, self._to_app.get, self._from_app.put))
        await self._lifespan("startup")
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._lifespan("shutdown")
        await self._life

    async def _lifespan(self, phase: str) -> None:
        await self._to_app.put({"type": f"lifespan.{phase}"})
        answer = asyncio.create_task(self._from_app.get())
        await asyncio.wait({answer, self._life}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            if answer.result()["type"] == f"lifespan.{phase}.failed":
                with suppress(Exception):  # the failure was told in the message; the task repeats it
                    await self._life
                raise DockyardError(f"the app failed at {phase}: {answer.result().get('message', '')}")
            return
        answer.cancel()
        await self._life  # an app that does not speak lifespan raises here, and what it raised is the reason

    async def send(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        plain, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(plain),
            "raw_path": plain.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [
                (b"host", b"localhost"),
                (b"content-length", str(len(body)).encode()),
                *((name.encode(), value.encode()) for name, value in headers.items()),
            ],
            "client": ("127.0.0.1", 0),
            "server": ("localhost", 80),
            "state": self._state.copy(),
        }
        reply = _AppReply(body)
        task = asyncio.create_task(reply.run(self._app, scope))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        await reply.started(task)
        return reply


class _AppReply:
    """One exchange with the app. At most a few parts wait between it and the reader, so a slow reader slows the app."""

    def __init__(self, body: bytes) -> None:
        self.status = 500
        self.headers: Mapping[str, str] = {}
        self._request = [{"type": "http.request", "body": body, "more_body": False}]
        self._parts: asyncio.Queue[bytes | None] = asyncio.Queue(8)
        self._begun = asyncio.Event()
        self._gone = asyncio.Event()

    async def run(self, app: AsgiApp, scope: dict[str, Any]) -> None:
        try:
            await app(scope, self._receive, self._send)
        finally:
            if not self._gone.is_set():
                await self._parts.put(None)

    async def started(self, task: asyncio.Task[None]) -> None:
        begun = asyncio.create_task(self._begun.wait())
        self._task = task
        try:
            await asyncio.wait({begun, task}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self.aclose()
            raise
        finally:
            begun.cancel()
        if not self._begun.is_set():
            await task  # raises what the app raised
            raise DockyardError("the app ended without an answer")

    async def body(self) -> AsyncIterator[bytes]:
        while (part := await self._parts.get()) is not None:
            yield part
        await self._task

    async def aclose(self) -> None:
        """Hang up, and wait until the app has let go of the request."""
        self._gone.set()
        while not self._parts.empty():
            self._parts.get_nowait()
        if not self._task.done():
            await asyncio.wait({self._task}, timeout=CONNECT_SECONDS)
        if not self._task.done():
            self._task.cancel()
        with suppress(Exception, asyncio.CancelledError):  # what a hung-up request still says interests nobody
            await self._task

    async def _receive(self) -> dict[str, Any]:
        if self._request:
            return self._request.pop()
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {
                name.decode("latin-1").lower(): value.decode("latin-1") for name, value in message["headers"]
            }
            self._begun.set()
        elif message["type"] == "http.response.body":
            if self._gone.is_set():
                return
            if message.get("body"):
                await self._parts.put(message["body"])
