"""Servers in containers of Docker or Podman, locked down: no capabilities, no new privileges, a root that can't be
written, bounded memory, processes and processor, and no network but a proxy to listed hosts.

One container a connection, ended with it. A watcher process that outlives Dockyard takes it away if Dockyard is killed,
and each start takes away what a machine's failure left.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import secrets as random
import shutil
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from dockyard.addresses import Guard
from dockyard.errors import EngineUnavailable, InvalidRequest
from dockyard.settings import Settings
from dockyard.tools.model import Server, ToolFailed
from dockyard.tools.runners import _egress, _engine, _given, _listen
from dockyard.tools.runners._child import child, finish
from dockyard.tools.runners._command import ran
from dockyard.tools.runners._log import ServerLog

REMOVE_SECONDS = 20.0
START_SECONDS = 15.0
LATE_SECONDS = 5.0
LATE_TRIES = 20
_numbers = itertools.count(1)
_WATCH = 'read -r _; exec "$@"'


class Container:
    name = "container"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cli = _engine.Cli(settings)
        self._guard = Guard(settings.tools_private)

    def refuses(self, server: Server) -> str | None:
        if not self._cli.program:
            return "there is no docker or podman here"
        if server.sandbox.hosts and (os.geteuid() != 0 or not shutil.which("nsenter")):
            return (
                f"server {server.name!r} wants to reach hosts: containers can, where Dockyard is root beside the engine"
            )
        return _engine.wrong(server, self._settings.home_path)

    def resolved(self, server: Server) -> str | None:
        """What the image's tag was resolved to: a digest of its registry, else its identity; None before a run."""
        if "@" in server.image:
            return server.image
        found = self._cli.recorded(server)
        return (found["digest"] or found["id"]) if found else None

    @contextlib.asynccontextmanager
    async def connect(self, server: Server, secrets: dict[str, str]) -> AsyncIterator[Any]:
        """Raises EngineUnavailable, InvalidRequest, ToolFailed (the image), DigestMismatch."""
        reason = self.refuses(server)
        if reason is not None:
            raise EngineUnavailable(reason, hint=_engine.INSTALL) if not self._cli.program else InvalidRequest(reason)
        env = {"HOME": "/tmp", **(_egress.variables() if server.sandbox.hosts else {})}  # noqa: S108 - in the container
        env |= _given.environment(server, secrets)
        await self._sweep()
        image = await self._cli.image(server)
        name = f"dockyard-tool-{os.getpid()}-{next(_numbers)}-{random.token_hex(4)}"
        log = ServerLog(self._settings.home_path / "logs" / "tools", server.name, secrets)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(log.close)
            await stack.enter_async_context(self._removed(name))
            await finish(self._create(server, name, image, env))
            argv = [self._cli.program, "start", "--attach", "--interactive", name]
            transport = await stack.enter_async_context(child(argv, name=server.name, env=self._cli.environ, log=log))
            if server.sandbox.hosts:
                listener = await self._listener(server, name)
                egress = _egress.Egress(server.sandbox.hosts, self._guard, log.tell)
                await stack.enter_async_context(egress.serve(listener))
            yield transport

    async def _create(self, server: Server, name: str, image: str, env: dict[str, str]) -> None:
        plain = {key: value for key, value in env.items() if "\n" not in value}
        broken = {key: value for key, value in env.items() if key not in plain}
        taken = [key for key in broken if key in self._cli.environ]
        if taken or any("=" in key or "\n" in key for key in env):
            raise InvalidRequest(
                f"server {server.name!r}: {(taken or list(env))[0]!r} can't be a variable", param="env"
            )
        descriptor = os.memfd_create("dockyard")
        try:
            os.write(descriptor, "".join(f"{key}={value}\n" for key, value in plain.items()).encode())
            os.lseek(descriptor, 0, os.SEEK_SET)
            shared = _engine.volumes(server, self._settings.home_path)
            words = _engine.arguments(server, name, image, shared, descriptor, list(broken))
            status, _, error = await self._cli.run(*words, env=broken, pass_fds=(descriptor,))
        finally:
            os.close(descriptor)
        if status < 0:
            await self._late(name)
        if status:
            raise ToolFailed(f"server {server.name!r}: its container can't be made: {error.strip()[-1000:]}")

    @contextlib.asynccontextmanager
    async def _removed(self, name: str) -> AsyncIterator[None]:
        """Takes the container away when left, and when this process is no more: the watcher's input ends either way."""
        watcher = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", _WATCH, "sh", self._cli.program, "rm", "--force", name),
            stdin=PIPE,
            stdout=DEVNULL,
            stderr=DEVNULL,
            env=self._cli.environ,
            start_new_session=True,
        )
        assert watcher.stdin is not None
        try:
            yield
        finally:
            watcher.stdin.close()
            await finish(self._gone(watcher, name))

    async def _gone(self, watcher: asyncio.subprocess.Process, name: str) -> None:
        try:
            async with asyncio.timeout(REMOVE_SECONDS):
                await watcher.wait()
        except TimeoutError:
            watcher.kill()
            await watcher.wait()
            await self._cli.run("rm", "--force", name)

    async def _late(self, name: str) -> None:
        """The command was killed, and the engine may still make what it was asked for: wait for that, and remove it."""
        for _ in range(LATE_TRIES):
            _, out, _ = await self._cli.run("rm", "--force", name)
            if name in out:
                return
            await asyncio.sleep(LATE_SECONDS / LATE_TRIES)

    async def _sweep(self) -> None:
        """Take away containers whose Dockyard has ended."""
        show = f'{{{{.ID}}}} {{{{.Label "{_engine.OWNER}"}}}}'
        status, out, error = await self._cli.run("ps", "--all", "--filter", f"label={_engine.OWNER}", "--format", show)
        if status:
            raise EngineUnavailable(
                f"the container engine does not answer: {error.strip()[:300]}", hint=_engine.INSTALL
            )
        found = [line.split(" ", 1) for line in out.splitlines() if " " in line]
        left = [identity for identity, owner in found if _engine.orphaned(owner)]
        if left:
            await self._cli.run("rm", "--force", *left)

    async def _listener(self, server: Server, name: str) -> socket.socket:
        """A socket on the container's own loopback, which is all the network that it has."""
        pid = await self._pid(server, name)
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with near, far:
            near.setblocking(False)
            argv = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-I", "-S", _listen.__file__]
            argv += [str(far.fileno()), str(_egress.PORT)]
            status, _, error = await ran(argv, seconds=START_SECONDS, pass_fds=(far.fileno(),))
            if status:
                raise ToolFailed(f"server {server.name!r}: no proxy can be put into its container: {error[-300:]}")
            _, (descriptor,), _, _ = socket.recv_fds(near, 1, 1)
            return socket.socket(fileno=descriptor)

    async def _pid(self, server: Server, name: str) -> int:
        """The container's first process. Raises EngineUnavailable if it is not one of this machine."""
        pid, identity = 0, ""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                while not pid:
                    status, out, _ = await self._cli.run("inspect", "--format", "{{.State.Pid}} {{.Id}}", name)
                    if status:
                        break
                    pid, identity = int(out.split()[0]), out.split()[1]
                    await asyncio.sleep(0 if pid else 0.05)
        if not pid:
            raise ToolFailed(f"server {server.name!r}: its container ended before it began")
        try:
            group = await asyncio.to_thread(Path(f"/proc/{pid}/cgroup").read_text)
        except OSError:
            group = ""
        if identity not in group:
            raise EngineUnavailable(
                f"server {server.name!r} wants to reach hosts, and its engine is not on this machine"
            )
        return pid


PLUGIN = Container
