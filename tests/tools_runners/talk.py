"""How these tests talk to a server that a runner started: the product's own link, one call at a time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dockyard import settings
from dockyard.tools.model import Server
from dockyard.tools.runners import runner

if TYPE_CHECKING:
    from dockyard.tools.sdk import Link

SERVER = Path(__file__).parent / "tool_server.py"


class Talk:
    def __init__(self, link: Link) -> None:
        self.link = link

    async def tools(self) -> list[dict[str, Any]]:
        return (await self.link.request("tools/list", {}, seconds=30))["tools"]

    async def call(self, tool: str, seconds: float = 60, **arguments: Any) -> tuple[str, bool]:
        """Text of the result, and whether it is a failure."""
        result = await self.link.request("tools/call", {"name": tool, "arguments": arguments}, seconds=seconds)
        return "\n".join(part.get("text", "") for part in result["content"]), bool(result.get("isError"))

    async def good(self, tool: str, **arguments: Any) -> str:
        text, failed = await self.call(tool, **arguments)
        assert not failed, text
        return text

    async def bad(self, tool: str, **arguments: Any) -> str:
        text, failed = await self.call(tool, **arguments)
        assert failed, text
        return text


class Running:
    def __init__(self) -> None:
        self.event = asyncio.Event()

    def started(self, value: object = None) -> None:
        self.event.set()


def configured(**values: Any) -> settings.Settings:
    return settings.load(values).settings


@contextlib.asynccontextmanager
async def talking(
    server: Server, secrets: dict[str, str] | None = None, *, era: Any = None, **values: Any
) -> AsyncIterator[Talk]:
    """The server started by its runner, and introduced to."""
    from dockyard.tools.sdk import Link

    async def asked(_method: str, _params: dict[str, Any]) -> dict[str, Any]:
        return {}

    async with runner(server.kind, configured(**values)).connect(server, secrets or {}) as transport:
        link = Link(server.name, transport, asked=asked, noted=lambda _method, _params: None, era=era)
        running = Running()
        serve = asyncio.create_task(link.serve(task_status=running))
        try:
            await running.event.wait()
            await link.open()
            yield Talk(link)
        finally:
            serve.cancel()
            await asyncio.gather(serve, return_exceptions=True)


@contextlib.asynccontextmanager
async def listening(app: Any, **more: Any) -> AsyncIterator[int]:
    """The port of an ASGI application served on loopback."""
    import uvicorn

    bound = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1, lifespan="on", **more))
    task = asyncio.create_task(server.serve(sockets=[bound]))
    try:
        while not server.started:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
        yield bound.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        bound.close()


def processes(word: str) -> list[int]:
    """Live processes, of whatever namespace, with this word in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if word.encode() in (path / "cmdline").read_bytes() and int(path.name) != os.getpid():
                found.append(int(path.name))
    return found


def script(path: Path = SERVER, **values: Any) -> Server:
    """A process server of this Python that runs a script."""
    from dockyard.tools.model import Sandbox

    sandbox = Sandbox(read=(str(path), *values.pop("read", ())), **values.pop("sandbox", {}))
    given = {"name": "small", "kind": "process", "command": (sys.executable, str(path)), "sandbox": sandbox, **values}
    return Server(**given)
