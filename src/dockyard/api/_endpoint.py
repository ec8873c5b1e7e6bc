"""The way of one request from bytes to bytes; a dialect says only what the bytes mean.

Headers of a streamed answer are sent when its first chunk is there, so that whatever fails before has its own status.
A client that hangs up, or takes nothing for a minute, cancels the generation.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

import msgspec
from litestar.types import HTTPScope, Receive, Send

from dockyard.api._fanout import FanOut, fan_out
from dockyard.api._wire import (
    STALL_SECONDS,
    HangUp,
    Headers,
    MethodNotAllowed,
    Pairs,
    Watchdog,
    credential,
    error_body,
    error_headers,
    read_body,
    send_bytes,
)
from dockyard.errors import DockyardError, Overloaded
from dockyard.gateway import Gateway, Reply
from dockyard.types import Call, Chunk, Usage

log = logging.getLogger(__name__)

UNBUFFERED: Pairs = [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]


class Style(msgspec.Struct, frozen=True, kw_only=True):
    """How a dialect says that something failed, and what its streams are made of.

    ``error`` makes the body of a failed answer, ``event`` what says the same in a stream that has begun, and
    ``status`` the HTTP status.
    """

    error: Callable[[DockyardError], bytes] = error_body
    event: Callable[[DockyardError], bytes] = lambda error: b"data: " + error_body(error) + b"\n\n"
    status: Callable[[DockyardError], int] = lambda error: error.status
    content: bytes = b"text/event-stream; charset=utf-8"


OPENAI = Style()


class Asked(Protocol):
    """One request, understood: its calls, and how its answer is written.

    There are several calls where one request holds several prompts; their choices are numbered through.
    """

    calls: list[Call]

    def begin(self) -> bytes:
        """What goes before a streamed answer's chunks."""
        ...

    def events(self, batch: list[Chunk]) -> bytes:
        """These chunks as events; empty if they show nothing."""
        ...

    def end(self, usage: Usage, extra: dict[str, Any] | None) -> bytes:
        """What ends a streamed answer."""
        ...

    def whole(self, batches: list[list[Chunk]], usage: Usage, extra: dict[str, Any] | None) -> bytes:
        """A whole answer's body."""
        ...


class Unstreamed:
    """The part of ``Asked`` for answers that come whole or not at all."""

    def begin(self) -> bytes:
        return b""

    def events(self, batch: list[Chunk]) -> bytes:  # noqa: ARG002
        return b""

    def end(self, usage: Usage, extra: dict[str, Any] | None) -> bytes:  # noqa: ARG002
        return b""


class Dialect(Protocol):
    """Reads a body. Raises InvalidRequest naming what is wrong."""

    def read(self, body: bytes) -> Asked: ...


class Answering:
    """Sees an answer through to a client, whatever becomes of either; how the request was read is not its business."""

    def __init__(self, gateway: Gateway, watchdog: Watchdog, style: Style = OPENAI) -> None:
        self._style = style
        self._gateway = gateway
        self._watchdog = watchdog
        self._limit = gateway.parts.settings.max_body

    async def _answer(self, asked: Asked, explain: bool, receive: Receive, send: Send, task: asyncio.Task[Any]) -> None:
        exchange = self._exchange(asked, explain, send, task)
        hang_up = HangUp(receive, task, self._watchdog)
        self._watchdog.open.add(task)
        try:
            if asked.calls[0].stream:
                await exchange.stream(self._gateway)
            else:
                await exchange.whole(self._gateway)
        except asyncio.CancelledError:
            stalled = task in self._watchdog.expired
            self._watchdog.expired.discard(task)
            if not (hang_up.gone or stalled or self._watchdog.ending):
                raise
            task.uncancel()
            if self._watchdog.ending and not hang_up.gone:
                await exchange.fail(Overloaded("the server is stopping", retry_after=5))
        except DockyardError as error:
            await exchange.fail(error)
        except Exception:
            log.exception("request %s failed", asked.calls[0].request.id)
            await exchange.fail(DockyardError("the server failed on this request", hint="its log says why"))
        finally:
            hang_up.stop()
            self._watchdog.open.discard(task)
            self._watchdog.deadlines.pop(task, None)

    def _exchange(self, asked: Asked, explain: bool, send: Send, task: asyncio.Task[Any]) -> Exchange:
        return Exchange(asked, explain, send, task, self._watchdog, self._style)


class Endpoint(Answering):
    """An ASGI callable for one path of one dialect."""

    def __init__(self, gateway: Gateway, dialect: Dialect, watchdog: Watchdog, style: Style = OPENAI) -> None:
        super().__init__(gateway, watchdog, style)
        self._dialect = dialect

    async def __call__(self, scope: HTTPScope, headers: Headers, receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if scope["method"] != "POST":
                raise MethodNotAllowed(f"{scope['path']} takes POST")
            body = await read_body(receive, headers, self._limit, self._watchdog, task)
            asked = self._dialect.read(body)
        except DockyardError as error:
            await send_failure(send, error, self._style)
            return
        key, no_store = credential(headers), b"no-store" in headers.get(b"cache-control", b"")
        client = scope["client"]
        for call in asked.calls:
            call.credential, call.no_store, call.client = key, no_store, client[0] if client else ""
        await self._answer(asked, b"x-dockyard-explain" in headers, receive, send, task)


class Exchange:
    """One answer on its way out; knows whether its headers have left."""

    def __init__(
        self,
        asked: Asked,
        explain: bool,
        send: Send,
        task: asyncio.Task[Any],
        watchdog: Watchdog,
        style: Style = OPENAI,
    ) -> None:
        self._asked = asked
        self._style = style
        self._explain = explain
        self._send = send
        self._task = task
        self._deadlines = watchdog.deadlines
        self._clock = asyncio.get_running_loop().time
        self._begun = False
        self._truncated = 0

    async def whole(self, gateway: Gateway) -> None:
        calls = self._asked.calls
        async with await self._run(gateway) as reply:
            batches = [batch async for batch in reply.chunks]
        self._truncated = max([chunk.truncated for batch in batches for chunk in batch], default=0)
        body = self._asked.whole(batches, usage_of(calls), self._extra())
        await send_bytes(self._send, 200, body, self._headers())

    async def stream(self, gateway: Gateway) -> None:
        asked, calls = self._asked, self._asked.calls
        async with await self._run(gateway) as reply:
            async for batch in reply.chunks:
                data = asked.events(batch)
                if not self._begun:
                    data = await self._start() + data
                for chunk in batch:
                    if chunk.truncated:
                        self._truncated = chunk.truncated
                if data:
                    await self._write(data)
        last = asked.end(usage_of(calls), self._extra())
        if not self._begun:
            last = await self._start() + last
        await self._write(last, more=False)

    async def _run(self, gateway: Gateway) -> Any:
        """The answer, to be used as a ``gateway.Reply`` is."""
        return await run_calls(gateway, self._asked.calls)

    async def fail(self, error: DockyardError) -> None:
        """Tell the client; in the stream if that has begun."""
        if not self._begun:
            await send_failure(self._send, error, self._style, self._headers())
        else:
            await self._write(self._style.event(error), more=False)

    async def _start(self) -> bytes:
        headers = [(b"content-type", self._style.content), *UNBUFFERED, *self._headers()]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        self._begun = True
        return self._asked.begin()

    async def _write(self, data: bytes, *, more: bool = True) -> None:
        self._deadlines[self._task] = self._clock() + STALL_SECONDS
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
        self._deadlines.pop(self._task, None)

    def _headers(self) -> Pairs:
        call = self._asked.calls[0]
        headers: Pairs = [(b"x-request-id", call.request.id.encode())]
        if call.reference is not None:
            headers.append((b"x-dockyard-model", call.reference.encode("ascii", "replace")))
        if call.cache != "off":
            headers.append((b"x-dockyard-cache", call.cache.encode()))
        if self._explain:
            steps = ", ".join(f"{step.name};dur={step.seconds * 1000:.3f}" for step in call.steps)
            headers.append((b"x-dockyard-steps", steps.encode()))
        return headers

    def _extra(self) -> dict[str, Any] | None:
        """The ``dockyard`` block: on request, and without being asked where a prompt was cut."""
        truncated = self._truncated
        if self._explain:
            return {**explanation(self._asked.calls[0]), "truncated_prompt_tokens": truncated}
        return {"truncated_prompt_tokens": truncated} if truncated else None


async def send_failure(send: Send, error: DockyardError, style: Style, headers: Pairs | None = None) -> None:
    """A failed answer in a dialect's own words."""
    await send_bytes(send, style.status(error), style.error(error), [*error_headers(error), *(headers or ())])


def explanation(call: Call) -> dict[str, Any]:
    """What happened to a call, for whoever asks with the header ``x-dockyard-explain``."""
    return {
        "model": call.reference,
        **({"route": call.model, "target": call.target} if call.target is not None else {}),
        **({"prompt": msgspec.to_builtins(call.prompt)} if call.prompt is not None else {}),
        "cache": call.cache,
        "steps": msgspec.to_builtins(call.steps),
        "ttft_seconds": None if call.first_token is None else call.first_token - call.received,
        "prefill_seconds": call.usage.prefill_seconds,
        "decode_seconds": call.usage.decode_seconds,
        "parameters": msgspec.to_builtins(call.request.sampling),
    }


async def run_calls(gateway: Gateway, calls: list[Call]) -> Reply | FanOut:
    """The answer to the calls of one request."""
    return await (gateway.run(calls[0]) if len(calls) == 1 else fan_out(gateway, calls))


def usage_of(calls: list[Call]) -> Usage:
    """What the calls of one request took, all together."""
    if len(calls) == 1:
        return calls[0].usage
    return Usage(
        prompt_tokens=sum(call.usage.prompt_tokens for call in calls),
        completion_tokens=sum(call.usage.completion_tokens for call in calls),
        cached_tokens=sum(call.usage.cached_tokens for call in calls),
    )
