"""A small client of Dockyard's HTTP API: the same code for the URL of a server and for an app in this process.

    with Client("http://127.0.0.1:12434") as client:
        for chunk in client.chat("smollm2", "Why is the sky blue?"):
            print(chunk.text, end="")

``AsyncClient`` does the work; ``Client`` offers the same calls to code without an event loop. Failures arrive as the
classes of ``errors.py``, whatever side of the wire they happened on. Any OpenAI-compatible server can be asked to
chat, complete and list its models; the other calls are Dockyard's own management API.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, aclosing
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlencode

import msgspec

from dockyard.client._events import EventSplitter, chunks, decode, error_of, lines, raise_error
from dockyard.client._transports import AppTransport, AsgiApp, HttpTransport, Reply, Transport
from dockyard.errors import InvalidRequest, NotFound
from dockyard.types import Chunk, Json, Message

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

T = TypeVar("T")
Conversation = str | Sequence[Message | Mapping[str, Json]]
"""What to say: one user message as text, or the turns so far."""

ANSWER_SECONDS = 600.0
CLOCK_SECONDS = 10.0
"""How far the clock may have been set forward since a server began before its note counts as stale."""


class Server(msgspec.Struct, frozen=True):
    """A running server, as it describes itself in ``<home>/server.json``; ``token`` opens it to the same user."""

    pid: int
    url: str
    started: float
    token: str = ""


def running(home: Path) -> Server | None:
    """The server that uses this home folder, if its process is alive; a stale file counts as none.

    The number of a process that is gone may have been given to another: one that began after the note was written.
    """
    try:
        server = msgspec.json.decode((home / "server.json").read_bytes(), type=Server)
        os.kill(server.pid, 0)
    except (OSError, OverflowError, msgspec.DecodeError):
        return None
    return server if _began(server.pid) <= server.started + CLOCK_SECONDS else None


def _rows(answer: Json) -> list[Json]:
    """The models of an answer. Raises NotFound where it has none: another kind of server answers on every path."""
    rows = answer.get("models") if isinstance(answer, dict) else answer
    if not isinstance(rows, list):
        raise NotFound("this server lists no models as a Dockyard does", hint="check the address")
    return rows


def _began(pid: int) -> float:
    """When a process began, in Unix seconds; 0 where that can't be told, so that the benefit of doubt is its."""
    import psutil

    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return float("inf")
    except psutil.Error:
        return 0.0


class AsyncClient:
    """Calls to the server at ``url``, or to the ASGI ``app`` whose lifespan it then runs; use it as ``async with``.

    ``api_key`` defaults to ``$DOCKYARD_API_KEY``. ``timeout`` is the longest silence of a server, in seconds.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        app: AsgiApp | None = None,
        api_key: str | None = None,
        timeout: float = ANSWER_SECONDS,
    ) -> None:
        if (url is None) == (app is None):
            raise InvalidRequest("a client needs either the URL of a server or an app", param="url")
        key = api_key or os.environ.get("DOCKYARD_API_KEY")
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._transport: Transport = AppTransport(app) if app is not None else HttpTransport(str(url), timeout)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> AsyncClient:
        await self._stack.enter_async_context(self._transport)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def chat(self, model: str, conversation: Conversation, **fields: Json) -> AsyncGenerator[Chunk, None]:
        """The answer as it is generated; its last chunk carries ``usage``. ``fields`` are OpenAI's own."""
        if isinstance(conversation, str):
            conversation = [{"role": "user", "content": conversation}]
        asked = {"model": model, "messages": list(conversation), **fields}
        async with aclosing(self._events("/v1/chat/completions", asked)) as events:
            async for event in events:
                for chunk in chunks(event):
                    yield chunk

    async def complete(self, model: str, prompt: str | list[int], **fields: Json) -> AsyncGenerator[Chunk, None]:
        """The raw continuation of ``prompt``, without a chat template, as it is generated."""
        async with aclosing(self._events("/v1/completions", {"model": model, "prompt": prompt, **fields})) as events:
            async for event in events:
                for chunk in chunks(event):
                    yield chunk

    async def models(self) -> list[Json]:
        """The models that can be asked, in OpenAI's shape."""
        answer = await self.call("GET", "/v1/models")
        return list(answer["data"])

    async def status(self) -> Json:
        """Version, address, machine and counts of the server."""
        return await self.call("GET", "/api/dockyard/status")

    async def ps(self) -> list[Json]:
        """The loaded models, as ``types.LoadedModel``."""
        return _rows(await self.call("GET", "/api/dockyard/ps"))

    async def stored(self) -> list[Json]:
        """The entries of the server's store."""
        return _rows(await self.call("GET", "/api/dockyard/models"))

    async def load(self, model: str) -> Json:
        """Load ``model`` now and wait until it is ready."""
        return await self.call("POST", "/api/dockyard/load", {"model": model})

    async def unload(self, model: str | None = None) -> int:
        """Unload one model, or all; the number of workers that were stopped."""
        answer = await self.call("POST", "/api/dockyard/unload", {"model": model})
        return int(answer["unloaded"])

    async def stop(self) -> None:
        """Ask the server to finish what it is answering and exit."""
        await self.call("POST", "/api/dockyard/stop", {})

    async def logs(self, *, follow: bool = False, model: str | None = None) -> AsyncGenerator[str, None]:
        """Log lines, oldest first; with ``follow`` the iteration goes on until it is closed."""
        query = {"follow": str(follow).lower(), **({"model": model} if model else {})}
        reply = await self._send("GET", f"/api/dockyard/logs?{urlencode(query)}")
        try:
            async for line in lines(reply.body()):
                yield line
        finally:
            await reply.aclose()

    async def call(self, method: str, path: str, body: Json = None) -> Json:
        """One request and its JSON answer, for the parts of the API that have no method here."""
        reply = await self._send(method, path, body)
        try:
            data = b"".join([part async for part in reply.body()])
        finally:
            await reply.aclose()
        return decode(data) if data else None

    async def lines(self, method: str, path: str, body: Json = None) -> AsyncGenerator[Json, None]:
        """One request whose answer is JSON, a value a line; an ``error`` among them is raised."""
        reply = await self._send(method, path, body)
        try:
            async for line in lines(reply.body()):
                if line.strip():
                    yield raise_error(decode(line.encode()))
        finally:
            await reply.aclose()

    async def _events(self, path: str, body: dict[str, Json]) -> AsyncGenerator[Json, None]:
        options = {"stream": True, "stream_options": {"include_usage": True}}
        reply = await self._send("POST", path, {**body, **options})
        events = EventSplitter()
        try:
            async for part in reply.body():
                for data in events.feed(part):
                    if data == "[DONE]":
                        return
                    yield raise_error(decode(data.encode()))
        finally:
            await reply.aclose()

    async def _send(self, method: str, path: str, body: Json = None) -> Reply:
        headers, data = dict(self._headers), b""
        if body is not None:
            headers["content-type"], data = "application/json", msgspec.json.encode(body)
        reply = await self._transport.send(method, path, headers, data)
        if reply.status < 400:
            return reply
        try:
            text = b"".join([part async for part in reply.body()])
        finally:
            await reply.aclose()
        raise error_of(reply.status, text, retry_after=reply.headers.get("retry-after"))


class Client:
    """``AsyncClient`` for code without an event loop: the same calls, streams as iterators. Use it as ``with``."""

    def __init__(
        self,
        url: str | None = None,
        *,
        app: AsgiApp | None = None,
        api_key: str | None = None,
        timeout: float = ANSWER_SECONDS,
    ) -> None:
        self._client = AsyncClient(url, app=app, api_key=api_key, timeout=timeout)
        self._stack = ExitStack()
        self._portal: BlockingPortal | None = None

    def __enter__(self) -> Client:
        from anyio.from_thread import start_blocking_portal

        self._portal = self._stack.enter_context(start_blocking_portal())
        self._stack.enter_context(self._portal.wrap_async_context_manager(self._client))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def chat(self, model: str, conversation: Conversation, **fields: Json) -> Iterator[Chunk]:
        return self._iterate(self._client.chat(model, conversation, **fields))

    def complete(self, model: str, prompt: str | list[int], **fields: Json) -> Iterator[Chunk]:
        return self._iterate(self._client.complete(model, prompt, **fields))

    def logs(self, *, follow: bool = False, model: str | None = None) -> Iterator[str]:
        return self._iterate(self._client.logs(follow=follow, model=model))

    def models(self) -> list[Json]:
        return self._open().call(self._client.models)

    def status(self) -> Json:
        return self._open().call(self._client.status)

    def ps(self) -> list[Json]:
        return self._open().call(self._client.ps)

    def stored(self) -> list[Json]:
        return self._open().call(self._client.stored)

    def load(self, model: str) -> Json:
        return self._open().call(self._client.load, model)

    def unload(self, model: str | None = None) -> int:
        return self._open().call(self._client.unload, model)

    def stop(self) -> None:
        self._open().call(self._client.stop)

    def call(self, method: str, path: str, body: Json = None) -> Json:
        return self._open().call(self._client.call, method, path, body)

    def _open(self) -> BlockingPortal:
        if self._portal is None:
            raise InvalidRequest("the client is not open", hint="use it as `with Client(…) as client:`")
        return self._portal

    def _iterate(self, source: AsyncGenerator[T, None]) -> Iterator[T]:
        portal = self._open()

        async def step() -> T:
            return await anext(source)

        try:
            while True:
                try:
                    item = portal.call(step)
                except StopAsyncIteration:
                    return
                yield item
        finally:
            portal.call(source.aclose)
