"""Local programs in a sandbox (bubblewrap): a root that can't be written, scratch folders of their own, no network.

What a server may see, reach and use is ``Server.sandbox``. Hosts are reached through an HTTP proxy of ours, which is
all the network that there is in the sandbox. Limits hold for the whole tree where this process may make control
groups, else for each process. The tree ends with its first process, and that with Dockyard, however it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from dockyard.addresses import Guard
from dockyard.errors import DockyardError, EngineUnavailable
from dockyard.sandbox import cgroup, jail, user
from dockyard.settings import Settings
from dockyard.tools.model import Server
from dockyard.tools.runners import _egress, _given, _relay, _sandbox
from dockyard.tools.runners._child import child, finish
from dockyard.tools.runners._log import ServerLog

INSTALL = "apt-get install bubblewrap (or dnf, pacman, apk); servers of kind container need no bubblewrap"
_OWN_PROCESSES = 6
"""Of the sandbox itself, in its control group."""
_PREFIX = "dockyard-tool-"
_PATH = "/usr/local/bin:/usr/bin:/bin"


class Process:
    """Runs ``Server.command``. ``packages`` may use its ``launch`` for programs of their own."""

    name = "process"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._guard = Guard(settings.tools_private)

    def refuses(self, server: Server) -> str | None:
        if not server.command:
            return f"server {server.name!r} has no command"
        return unavailable() or self._wrong(server)

    def _wrong(self, server: Server) -> str | None:
        try:
            _sandbox.shared(server, self._settings.home_path)
            for host in server.sandbox.hosts:
                _egress.split(host)
        except (DockyardError, ValueError) as error:
            return str(error)
        return None

    @contextlib.asynccontextmanager
    async def connect(self, server: Server, secrets: dict[str, str]) -> AsyncIterator[Any]:
        async with self.launch(server, secrets, server.command) as transport:
            yield transport

    @contextlib.asynccontextmanager
    async def launch(
        self, server: Server, secrets: dict[str, str], command: Sequence[str], extra: Sequence[Path] = ()
    ) -> AsyncIterator[Any]:
        """A transport to ``command`` in the server's sandbox, which sees ``extra`` too. Raises EngineUnavailable."""
        missing = unavailable()
        if missing:
            raise EngineUnavailable(missing, hint=INSTALL)
        program = _program(server, command[0])
        binds = {str(path): (path.resolve(), False) for path in (*jail.needs(program), *extra)}
        binds |= _sandbox.shared(server, self._settings.home_path)
        env = {
            "PATH": f"{Path(program).parent}:{_PATH}",
            "HOME": jail.HOME,
            "LANG": "C.UTF-8",
            "TMPDIR": jail.TEMPORARY,
        }
        env |= _given.environment(server, secrets)
        log = ServerLog(self._settings.home_path / "logs" / "tools", server.name, secrets)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(log.close)
            prefix: list[str] = []
            relay = None
            if server.sandbox.hosts:
                relay = await self._way_out(server, stack, log)
                python = jail.python()
                binds |= {str(path): (path.resolve(), False) for path in jail.needs(python)}
                prefix = [python, "-I", "-S", jail.RELAY, jail.SOCKET, str(_egress.PORT)]
                env = {**_egress.variables(), **env}
            files = {path: stack.enter_context(jail.content(text)) for path, text in jail.FILES.items()}
            inside = jail.arguments(binds, files, cwd=server.cwd, relay=relay)
            group = _group(server)
            stack.push_async_callback(lambda: finish(group.remove()))
            limits = _limits(server, group)
            if server.sandbox.seconds:
                watch = asyncio.create_task(group.watch(server.sandbox.seconds))
                stack.callback(watch.cancel)
            runs_as = await self._user(server, binds, relay)
            bwrap = [*group.entry(), *user.prefix(runs_as), jail.found("bwrap")]
            argv = [*bwrap, *inside, "--", *limits, *prefix, program, *command[1:]]
            transport = child(
                argv,
                name=server.name,
                env=env,
                log=log,
                pass_fds=tuple(files.values()),
                complaint=group.complaint,
            )
            yield await stack.enter_async_context(transport)

    async def _user(
        self, server: Server, binds: dict[str, tuple[Path, bool]], relay: tuple[Path, Path] | None
    ) -> int | None:
        """Who the server is outside of its sandbox; its way out is that user's from now on."""
        script = [] if relay is None else [relay[0]]
        found = await asyncio.to_thread(user.chosen, server.name, binds, script)
        if found is not None and relay is not None:
            for path in (relay[1].parent, relay[1]):
                os.chown(path, found, found)
        return found

    async def _way_out(self, server: Server, stack: contextlib.AsyncExitStack, log: ServerLog) -> tuple[Path, Path]:
        """A proxy for this server; the relay's script, and the socket that it shall lead to."""
        _sweep()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-")))
        socket = folder / "egress.sock"
        await stack.enter_async_context(_egress.Egress(server.sandbox.hosts, self._guard, log.tell).listen(socket))
        return Path(_relay.__file__), socket


def _sweep() -> None:
    """Take away folders of processes of ours that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(folder, ignore_errors=True)


def unavailable() -> str | None:
    """Why no sandbox can be made here, or None. Cheap: whether the kernel lets us is found out by the first start."""
    if sys.platform != "linux":
        return "tool servers of kind process need Linux, for their sandbox"
    missing = [name for name in ("bwrap", "prlimit") if jail.found(name) == ""]
    return f"the sandbox of tool servers needs {' and '.join(missing)}, not found here" if missing else None


def _program(server: Server, word: str) -> str:
    """The program's absolute path. Raises EngineUnavailable."""
    if "/" in word:
        path = Path(server.cwd or ".", Path(word).expanduser())
        found = str(path) if path.is_absolute() and os.access(path, os.X_OK) else ""
    else:
        found = shutil.which(word) or ""
    if not found:
        raise EngineUnavailable(
            f"server {server.name!r}: there is no program {word!r} here", hint="give the absolute path of one"
        )
    return os.path.normpath(found)


def _group(server: Server) -> cgroup.Group:
    policy = server.sandbox
    return cgroup.make(policy.memory, policy.processes and policy.processes + _OWN_PROCESSES, policy.cpus)


def _limits(server: Server, group: cgroup.Group) -> list[str]:
    """What is set on each process since the control group does not bound it. Raises EngineUnavailable."""
    policy = server.sandbox
    if policy.processes and "pids" not in group.folders and os.geteuid() == 0:
        raise EngineUnavailable(
            "the number of a tool server's processes can't be bounded here: the kernel does not count root's",
            hint="run Dockyard as an ordinary user, or where it may make control groups",
        )
    return jail.limits(
        processes=0 if "pids" in group.folders else policy.processes,
        memory=0 if "memory" in group.folders else policy.memory,
        seconds=policy.seconds,
    )


PLUGIN = Process
