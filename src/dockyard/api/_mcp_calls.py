"""The HTTP of an MCP call that takes the short way: JSON, or a stream of events if something is said before."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
from litestar.types import HTTPScope, Receive, Send

from dockyard.api._wire import HangUp, Watchdog, send_bytes
from dockyard.types import Json

PING_SECONDS = 15.0
"""After so long without a word a stream begins, and says that it is alive: proxies cut what is silent."""
_EVENTS = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class Line:
    """To one client: either one answer as JSON, or events of which the last is the answer."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._turn = asyncio.Lock()
        self._begun = False
        self._ping = asyncio.get_running_loop().call_later(PING_SECONDS, self._due)
        self._pinging: asyncio.Task[None] | None = None

    async def notify(self, method: str, params: dict[str, Json]) -> None:
        await self._write(_event(msgspec.json.encode({"jsonrpc": "2.0", "method": method, "params": params})))

    async def end(self, status: int, body: bytes) -> None:
        self._ping.cancel()
        if self._begun or self._pinging is not None:
            await self._write(_event(body), more=False)
        else:
            await send_bytes(self._send, status, body)

    def close(self) -> None:
        self._ping.cancel()
        if self._pinging is not None:
            self._pinging.cancel()

    def _due(self) -> None:
        self._pinging = asyncio.create_task(self._write(b": ping\r\n\r\n"))
        self._ping = asyncio.get_running_loop().call_later(PING_SECONDS, self._due)

    async def _write(self, data: bytes, *, more: bool = True) -> None:
        async with self._turn:
            if not self._begun:
                self._begun = True
                await self._send({"type": "http.response.start", "status": 200, "headers": _EVENTS})
            await self._send({"type": "http.response.body", "body": data, "more_body": more})


def _event(body: bytes) -> bytes:
    return b"event: message\r\ndata: " + body + b"\r\n\r\n"


async def call(
    front: Any, message: dict[str, Any], scope: HTTPScope, receive: Receive, send: Send, watchdog: Watchdog
) -> None:
    """Answer it. Returns when a client that hung up is gone too: what it asked for is cancelled."""
    from dockyard.tools import sdk_calls

    task = asyncio.current_task()
    assert task is not None
    line = Line(send)
    version = message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"]
    caller = sdk_calls.Caller(message, version, SimpleNamespace(scope=scope), line.notify)
    hang_up = HangUp(receive, task, watchdog)
    try:
        status, body = await sdk_calls.answered(caller, front.server, front.call)
        hang_up.stop()
        await line.end(status, body)
    except asyncio.CancelledError:
        if not hang_up.gone:
            raise
        task.uncancel()
    finally:
        hang_up.stop()
        line.close()
