"""Clients that stop sending or stop taking; time is moved by hand."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from dockyard.api import create_app
from dockyard.api._wire import BODY_SECONDS, STALL_SECONDS
from dockyard.settings import Settings
from scripted import ScriptedFleet, words

pytestmark = pytest.mark.anyio
BODY = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "hi"}]}'
SCOPE = {
    "type": "http", "method": "POST", "path": "/v1/chat/completions", "client": ("127.0.0.1", 1), "query_string": b"",
    "headers": [(b"host", b"localhost"), (b"content-length", b"%d" % len(BODY))],
}  # fmt: skip


async def forever(*_: Any) -> Any:
    await asyncio.Event().wait()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/mcp"])
async def test_a_body_that_never_comes_is_given_up(path: str, tmp_path: Any) -> None:
    if path == "/mcp":
        pytest.importorskip("mcp", reason="needs the extra mcp")
    app: Any = create_app(Settings(home=str(tmp_path)), fleet=ScriptedFleet(), trusted=True)
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async with app.lifespan():
        task = asyncio.create_task(app({**SCOPE, "path": path}, forever, send))
        async with asyncio.timeout(60):
            while not app.site.watchdog.deadlines:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        now = asyncio.get_running_loop().time()
        app.site.watchdog.sweep(now + BODY_SECONDS - 1)
        await asyncio.sleep(0)
        assert not task.done()
        app.site.watchdog.sweep(now + BODY_SECONDS + 1)
        await asyncio.wait_for(task, 5)
        assert sent[0]["status"] == 408
        assert not app.site.watchdog.deadlines


async def test_a_reader_that_takes_nothing_loses_its_place(tmp_path: Any) -> None:
    fleet = ScriptedFleet(words(*"abc"))
    app: Any = create_app(Settings(home=str(tmp_path)), fleet=fleet, trusted=True)
    arrived = [{"type": "http.request", "body": BODY, "more_body": False}]

    async def receive() -> Any:
        return arrived.pop() if arrived else await forever()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            await forever()

    async with app.lifespan():
        task = asyncio.create_task(app(SCOPE, receive, send))
        await asyncio.sleep(0.05)
        assert fleet.held == 1
        app.site.watchdog.sweep(asyncio.get_running_loop().time() + STALL_SECONDS + 1)
        await asyncio.wait_for(task, 5)
        assert (fleet.held, fleet.generating) == (0, 0)
        assert not app.site.watchdog.open
        assert not app.site.watchdog.expired
