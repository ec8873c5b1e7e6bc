"""HTTP below the dialects: bodies in, bytes out, and clients that stall or hang up. Plain ASGI, no framework."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec
from litestar.types import HTTPScope, Receive, Send

from dockyard.errors import DockyardError, InvalidRequest, PayloadTooLarge

Headers = dict[bytes, bytes]
Pairs = list[tuple[bytes, bytes]]
Hot = Callable[[HTTPScope, Headers, Receive, Send], Awaitable[None]]
"""An ASGI callable that gets the headers as a dict: a route that goes around the framework."""

JSON_TYPE = (b"content-type", b"application/json")
TICK_SECONDS = 0.03
BODY_SECONDS = 30.0
STALL_SECONDS = 60.0

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class RequestTimeout(DockyardError):
    status = 408
    code = "request_timeout"


class MethodNotAllowed(DockyardError):
    """``allow`` lists the methods that the path takes."""

    status = 405
    code = "method_not_allowed"
    allow = "POST"


class Watchdog:
    """Ends requests whose client sends or takes nothing for too long. A dict entry a request; one task for all.

    ``open`` holds the tasks of all requests being answered; ``end`` cancels them when the server must go.
    """

    def __init__(self) -> None:
        self.deadlines: dict[asyncio.Task[Any], float] = {}
        self.expired: set[asyncio.Task[Any]] = set()
        self.open: set[asyncio.Task[Any]] = set()
        self.young: dict[HangUp, None] = {}
        self._ticking = False
        self.ending = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def end(self, seconds: float = 5.0) -> None:
        """Cut short whatever is still being answered, and wait for it to be over."""
        self.ending = True
        tasks = list(self.open)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)

    def tick(self) -> None:
        """Look at the young answers a tick from now, and so on as long as there are any."""
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        for one in list(self.young):
            if one.age():
                del self.young[one]
        if self.young:
            self.tick()

    def sweep(self, now: float) -> None:
        """Cancel whatever is overdue."""
        for task, deadline in list(self.deadlines.items()):
            if deadline < now:
                del self.deadlines[task]
                self.expired.add(task)
                task.cancel()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(0.5)
            self.sweep(loop.time())


class HangUp:
    """Cancels ``task`` when its client goes away.

    Only answers that outlive a tick pay for a task that listens: one timer serves all that are younger.
    """

    __slots__ = ("_aged", "_receive", "_task", "_watchdog", "_watcher", "gone")

    def __init__(self, receive: Receive, task: asyncio.Task[Any], watchdog: Watchdog) -> None:
        self.gone = False
        self._receive = receive
        self._task = task
        self._watchdog = watchdog
        self._watcher: asyncio.Task[None] | None = None
        self._aged = False
        watchdog.young[self] = None
        watchdog.tick()

    def stop(self) -> None:
        self._watchdog.young.pop(self, None)
        if self._watcher is not None:
            self._watcher.cancel()

    def age(self) -> bool:
        """One tick went by; True if it listens from now on."""
        if not self._aged:
            self._aged = True
            return False
        self._watcher = asyncio.get_running_loop().create_task(self._watch())
        return True

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self._task.cancel()


async def read_body(
    receive: Receive, headers: Headers, limit: int, watchdog: Watchdog, task: asyncio.Task[Any]
) -> bytes:
    """The whole body. Raises PayloadTooLarge beyond ``limit`` bytes and RequestTimeout for one that does not arrive."""
    length = headers.get(b"content-length", b"")
    expected = int(length) if length.isdigit() else -1
    if expected > limit:
        raise _too_large(limit)
    watchdog.deadlines[task] = asyncio.get_running_loop().time() + BODY_SECONDS
    parts: list[bytes] = []
    size = 0
    try:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise InvalidRequest("the client hung up before its request was complete")
            part: bytes = message.get("body", b"")  # type: ignore[assignment]
            parts.append(part)
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            # A server may announce the end in a message of its own; not waiting for it saves a round through the loop.
            if size == expected or not message.get("more_body"):
                return part if len(parts) == 1 else b"".join(parts)
    except asyncio.CancelledError:
        if task in watchdog.expired:
            watchdog.expired.discard(task)
            task.uncancel()
            raise RequestTimeout(f"the body did not arrive within {BODY_SECONDS:.0f} s") from None
        raise
    finally:
        watchdog.deadlines.pop(task, None)


def _too_large(limit: int) -> PayloadTooLarge:
    return PayloadTooLarge(f"the body is larger than {limit} bytes", hint="`max_body` sets the limit")


async def send_bytes(send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """A whole JSON answer."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [JSON_TYPE, (b"content-length", b"%d" % len(body)), *headers],
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})


def error_fields(error: DockyardError) -> dict[str, Any]:
    """OpenAI's error object; ``hint`` is ours and only there if there is one."""
    kind = _TYPES.get(error.status) or ("invalid_request_error" if error.status < 500 else "server_error")
    fields: dict[str, Any] = {"message": error.message, "type": kind, "param": error.param, "code": error.code}
    if error.hint:
        fields["hint"] = error.hint
    return fields


def error_body(error: DockyardError) -> bytes:
    return msgspec.json.encode({"error": error_fields(error)})


def error_headers(error: DockyardError) -> Pairs:
    headers: Pairs = []
    if error.retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, int(error.retry_after + 0.999))))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allow.encode()))
    if error.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if error.status in (408, 413):
        headers.append((b"connection", b"close"))
    return headers


async def send_error(send: Send, error: DockyardError, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    await send_bytes(send, error.status, error_body(error), [*error_headers(error), *headers])


def credential(headers: Headers) -> str | None:
    """The key that a request carries: a bearer token, or ``x-api-key``."""
    value = headers.get(b"authorization")
    if value is not None and value[:7].lower() == b"bearer ":
        return value[7:].strip().decode("latin-1") or None
    value = headers.get(b"x-api-key")
    return value.decode("latin-1") if value else None
