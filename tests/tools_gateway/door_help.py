"""Tool servers in this process, and a gateway over real HTTP: the SDK's own parts behind and in front."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from mcp.server.lowlevel.server import Server as McpServer
from mcp.server.runner import serve_dual_era_loop, serve_loop
from mcp.shared.memory import create_client_server_memory_streams

from dockyard.api import create_app
from dockyard.settings import Settings
from dockyard.tools.model import Approval, Decision, Enabled, Outcome, Profile, Server, Session, Tool
from dockyard.tools.pool import Limits
from dockyard.tools.sdk_lines import streams
from dockyard.tools.toolbox import Toolbox
from dockyard.types import Json, Principal

ME = Principal(name="me")


class Inside:
    """A runner whose servers are functions in this process: by name, each makes a server of the SDK."""

    name = "inside"

    def __init__(self, made: dict[str, Callable[[], McpServer[Any]]], *, legacy: bool = False) -> None:
        self.made = made
        self.legacy = legacy
        self.running = 0
        self.started = 0

    def refuses(self, server: Server) -> str | None:
        return None

    @contextlib.asynccontextmanager
    async def connect(self, server: Server, secrets: dict[str, str]) -> AsyncIterator[Any]:
        self.started += 1
        self.running += 1
        inside = self.made[server.name]()
        async with create_client_server_memory_streams() as (ours, theirs):
            work = asyncio.create_task(self._serve(inside, theirs))
            try:
                yield ours
            finally:
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
                self.running -= 1

    async def _serve(self, inside: McpServer[Any], streams: Any) -> None:
        read, write = streams
        async with inside.lifespan(inside) as state:
            if self.legacy:
                await serve_loop(inside, read, write, lifespan_state=state)
            else:
                await serve_dual_era_loop(inside, read, write, lifespan_state=state)


class Lets:
    """A safety that lets everything pass, but for tools that a test named. ``seen`` are the audited calls."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.asks: set[str] = set()
        self.denies: set[str] = set()
        self.granted: set[str] = set()

    revision = 0

    def instructions(self, server: Server, text: str) -> str:
        return text

    def quarantine(self, server: str | None = None) -> list[Any]:
        return []

    def visible(self, session: Session, tool: Tool) -> bool:
        return True

    def clean(self, value: Json) -> Json:
        return value

    def error(self, error: Any) -> Any:
        return error

    def secrets_of(self, server: Server) -> dict[str, str]:
        return {}

    def define(self, server: Server, raws: list[dict[str, Json]]) -> list[Tool]:
        return [Tool(id=raw["name"], server=server.name, name=raw["name"], raw=raw) for raw in raws]

    def decide(self, session: Session, tool: Tool, arguments: dict[str, Json], *, asks: bool = False) -> Decision:
        if tool.name in self.denies:
            return Decision(action="deny", reason="the test says so")
        return Decision(action="ask" if asks or tool.name in self.asks else "allow", reason="the test asks")

    def outgoing(self, session: Session, tool: Tool, arguments: dict[str, Json]) -> dict[str, Json]:
        return arguments

    def incoming(self, session: Session, tool: Tool, outcome: Outcome) -> Outcome:
        return outcome

    def request(self, session: Session, tool: Tool, arguments: dict[str, Json], reason: str) -> Approval:
        return Approval(
            id="a1", principal="me", tool=tool.id, arguments_digest="", arguments=arguments, reason=reason, expires=0
        )

    def redeem(self, approval: str | None, session: Session, tool: Tool, arguments: dict[str, Json]) -> bool:
        if approval is not None and approval in self.granted:
            self.granted.discard(approval)
            return True
        return False

    def audit(self, session: Session, tool: Tool, arguments: dict[str, Json], **facts: Any) -> None:
        self.seen.append((tool.id, facts))


class Fixed:
    """Profiles that a test made."""

    def __init__(self, *profiles: Profile) -> None:
        self.all = {profile.name: profile for profile in profiles}

    def get(self, name: str) -> Profile:
        from dockyard.errors import NotFound

        if name not in self.all:
            raise NotFound(f"there is no profile {name!r}", param="profile")
        return self.all[name]


def profile_of(*servers: Server, name: str = "default", **options: Any) -> Profile:
    return Profile(name=name, servers=tuple(Enabled(server=server) for server in servers), **options)


def toolbox_of(
    home: Path,
    runner: Any,
    *servers: Server,
    safety: Lets | None = None,
    limits: Limits | None = None,
    profiles: list[Profile] | None = None,
    **options: Any,
) -> Toolbox:
    every = profiles if profiles is not None else [profile_of(*servers, **options)]
    return Toolbox(
        Settings(home=str(home)),
        safety=safety or Lets(),
        profiles=Fixed(*every),
        runner=lambda kind: runner,
        limits=limits,
    )


def inside(name: str, **options: Any) -> Server:
    return Server(name=name, kind="inside", **options)


@contextlib.asynccontextmanager
async def listening(toolbox: Toolbox, **settings: Any) -> AsyncIterator[str]:
    """A gateway on a real socket; yields its address."""
    app: Any = create_app(msgspec.structs.replace(toolbox.settings, **settings))
    app.site.toolbox = toolbox
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1, lifespan="on")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve(sockets=[bound]))
    try:
        while not server.started:
            await asyncio.sleep(0.02)
            assert not task.done()
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        await toolbox.close()
        bound.close()


class Spawned:
    """A runner of plain processes, without a sandbox: a script of this folder and its argument."""

    name = "spawned"

    def __init__(self) -> None:
        self.pids: list[int] = []

    def refuses(self, server: Server) -> str | None:
        return None

    @contextlib.asynccontextmanager
    async def connect(self, server: Server, secrets: dict[str, str]) -> AsyncIterator[Any]:
        script, *words = server.command
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-S",
            str(Path(__file__).parent / script),
            *words,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self.pids.append(process.pid)
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            async with streams(process.stdout, process.stdin, pid=process.pid) as transport:
                yield transport
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process._transport.close()  # type: ignore[attr-defined]  # what floods is never read to its end
            await process.wait()


def hostile(how: str = "well", name: str = "hostile", **options: Any) -> Server:
    return Server(name=name, kind="spawned", command=("hostile.py", how), **{"call_seconds": 2.0, **options})
