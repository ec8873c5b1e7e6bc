"""Requests to a server over streamable HTTP, the short way: one POST, and its answer as JSON or as events.

The package's transport stays beside it for all that is of no single request: the beginning of a session, its stream of
news, its end. What a server says in the middle of a request, news and questions, is put into that transport's stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from mcp.shared.message import SessionMessage
from mcp_types import (
    CONNECTION_CLOSED,
    INTERNAL_ERROR,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    jsonrpc_message_adapter,
)
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from dockyard.tools.runners._http import SESSION
from dockyard.tools.runners._lean import Answer, Broken, Lean
from dockyard.tools.sdk_direct import EVENT_BYTES, Elsewhere, Resume, encoded, numbers, settle, unusable
from dockyard.types import Json

log = logging.getLogger(__name__)

BODY_BYTES = 16 << 20
AGAIN_SECONDS = 1.0
"""Before a broken stream is asked for again, if the server names no time."""
CANCEL_SECONDS = 5.0
ONCE = {"tools/call", "initialize"}
"""Requests that a server must not get twice, whatever became of the first; all others only read."""


class Event(NamedTuple):
    data: str
    id: str
    retry: str


class Posts:
    """The ``Direct`` of a server over HTTP. ``session`` says its id of the session, ``heard`` takes the rest."""

    def __init__(
        self, lean: Lean, session: Callable[[], str | None], heard: Callable[[SessionMessage], Awaitable[None]]
    ) -> None:
        self._lean = lean
        self._session = session
        self._heard = heard
        self._numbers = numbers()
        self._cancelling: set[asyncio.Task[None]] = set()

    async def ask(self, method: str, params: Mapping[str, Json], headers: Mapping[str, str]) -> dict[str, Json]:
        number = next(self._numbers)
        session = self._session()
        if session is not None:
            headers = {**headers, SESSION: session}
        body = encoded({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        try:
            async with self._lean.post(body, headers, again=method not in ONCE) as answer:
                return await self._read(answer, number)
        except Broken as error:
            return _error(INTERNAL_ERROR, str(error))
        except ValueError as error:  # a header that can't be sent so
            raise Elsewhere from error
        except asyncio.CancelledError:
            if headers.get("mcp-protocol-version") in HANDSHAKE_PROTOCOL_VERSIONS:
                # In the older era a connection that ends cancels nothing.
                task = asyncio.create_task(self._cancel(number, headers))
                self._cancelling.add(task)
                task.add_done_callback(self._cancelling.discard)
            raise

    async def _cancel(self, number: int, headers: Mapping[str, str]) -> None:
        note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}}
        with contextlib.suppress(Broken, TimeoutError):
            async with asyncio.timeout(CANCEL_SECONDS), self._lean.post(encoded(note), headers) as answer:
                await answer.whole(BODY_BYTES)

    async def _read(self, answer: Answer, number: int) -> dict[str, Json]:
        """Raises Elsewhere, Resume, Broken."""
        kind = answer.headers.get("content-type", "").lower()
        if answer.status in (301, 302, 303, 307, 308):
            raise Elsewhere
        if answer.status >= 400:
            return await self._refused(answer, kind)
        if answer.status == 202:
            return _error(INVALID_REQUEST, "server answered a request with 202 Accepted")
        if kind.startswith("application/json"):
            try:
                body = await answer.whole(BODY_BYTES)
            except Broken as error:
                return unusable(str(error))
            return _message(body, number) or unusable("it answers another request")
        if kind.startswith("text/event-stream"):
            return await self._stream(answer, number)
        return _error(INVALID_REQUEST, f"Unexpected content type: {kind[:100]}")

    async def _refused(self, answer: Answer, kind: str) -> dict[str, Json]:
        if kind.startswith("application/json"):
            message = _message(await answer.whole(BODY_BYTES), None)
            if message is not None and "error" in message:
                return message
        if answer.status == 404:
            if self._session() is None:
                return _error(METHOD_NOT_FOUND, "Not Found")
            return _error(CONNECTION_CLOSED, "Connection closed: the server has forgotten this session")
        return _error(INTERNAL_ERROR, f"the server answered with the status {answer.status}")

    async def _stream(self, answer: Answer, number: int) -> dict[str, Json]:
        last, seconds, strange = "", AGAIN_SECONDS, False
        try:
            async for event in _events(answer):
                last = event.id or last
                if event.retry.isdigit() and event.retry.isascii():
                    seconds = min(float(event.retry) / 1000, 60.0)
                if not event.data:
                    continue
                message = _message(event.data.encode(), number)
                if message is not None and "method" not in message:
                    answer.enough = True
                    if strange:
                        await settle()
                    return message
                if message is not None:
                    strange = True
                    with contextlib.suppress(ValueError):
                        heard = jsonrpc_message_adapter.validate_python(message, by_name=False)
                        await self._heard(SessionMessage(heard))
        except ValueError as error:
            return unusable(str(error))
        except Broken:
            log.debug("a stream of events broke off")
        if last:
            raise Resume(last, seconds)
        return _error(INTERNAL_ERROR, "the stream ended without an answer")

    async def close(self) -> None:
        for task in self._cancelling:
            task.cancel()
        await asyncio.gather(*self._cancelling, return_exceptions=True)
        await self._lean.close()


async def _events(answer: Answer) -> AsyncIterator[Event]:
    """Server-sent events. Raises ValueError for one beyond the bound or that is no UTF-8, Broken."""
    held = b""
    data: list[str] = []
    size, last, retry = 0, "", ""
    while part := await answer.part():
        *lines, held = (held + part).split(b"\n")
        size += len(part)
        if size > EVENT_BYTES:
            raise ValueError(f"an event has more than {EVENT_BYTES} bytes")
        for raw in lines:
            if line := raw.rstrip(b"\r"):
                name, _, value = line.decode().partition(":")
                value = value.removeprefix(" ")
                if name == "data":
                    data.append(value)
                elif name == "id" and "\0" not in value and len(value) <= 1024:
                    last = value
                elif name == "retry":
                    retry = value[:12]
                continue
            if data or retry or last:
                yield Event("\n".join(data), last, retry)
            data, retry, size = [], "", len(held)


def _message(body: bytes, number: int | None) -> dict[str, Json] | None:
    """A JSON-RPC message, or what is wrong with it as an error; None for an answer to another request."""
    try:
        message = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return unusable("it is no JSON")
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        return unusable("it is no JSON-RPC")
    if "method" in message:
        return message
    error = message.get("error")
    if isinstance(error, dict):
        # A request that could not be read has no id that could be told.
        known = number is None or message.get("id") in (number, None)
        fine = isinstance(error.get("code"), int) and isinstance(error.get("message"), str)
        return (message if fine else unusable("its error has no code")) if known else None
    return message if message.get("id") == number or number is None else None


def _error(code: int, message: str) -> dict[str, Json]:
    error: dict[str, Any] = {"code": code, "message": message}
    return {"error": error}
