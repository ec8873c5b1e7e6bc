"""Docker's or Podman's command line: what it is told of a tool server, and which image it runs.

An image that is not named by digest is resolved once, and what it was then is run from then on: the record is a file in
Dockyard's home.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path

import msgspec

from dockyard.errors import DigestMismatch, EngineUnavailable, InvalidRequest
from dockyard.sandbox import jail
from dockyard.settings import Settings
from dockyard.tools.model import Server, ToolFailed
from dockyard.tools.runners import _sandbox
from dockyard.tools.runners._command import ran

SECONDS = 60.0
PULL_SECONDS = 900.0
INSTALL = "install Docker or Podman, and let Dockyard's user reach it (DOCKER_HOST)"
_REFERENCE = re.compile(r"^[a-z0-9][A-Za-z0-9._/:-]*(@sha256:[0-9a-f]{64})?$")
_KEPT = ("DOCKER_", "CONTAINER_", "CONTAINERS_", "XDG_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT")
_AWAY = re.compile(r"[Cc]annot connect to|permission denied while trying to connect|no such host")
LABEL = "dockyard.tool"
OWNER = "dockyard.owner"


class Cli:
    """The command line of a container engine, in the environment that it needs and nothing more.

    The first of Docker and Podman whose engine answers is asked from then on.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._record = settings.home_path / "tools" / "images.json"
        self._answers = ""

    @property
    def program(self) -> str:
        """What is asked; empty if neither is here."""
        return self._answers or next(iter(self._programs()), "")

    def _programs(self) -> list[str]:
        return [found for name in ("docker", "podman") if (found := shutil.which(name))]

    @property
    def environ(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if name.startswith(_KEPT) or name in ("PATH", "HOME")}
        return {"PATH": "/usr/local/bin:/usr/bin:/bin", **own}

    async def run(
        self, *words: str, seconds: float = SECONDS, env: dict[str, str] | None = None, pass_fds: Sequence[int] = ()
    ) -> tuple[int, str, str]:
        """Status, output, errors. Raises EngineUnavailable where no engine answers."""
        told = "there is no docker or podman here"
        for program in [self._answers] if self._answers else self._programs():
            done = await ran([program, *words], seconds=seconds, env={**(env or {}), **self.environ}, pass_fds=pass_fds)
            if not done[0] or not _AWAY.search(done[2]):
                self._answers = program
                return done
            told = f"the container engine does not answer: {done[2].strip()[:300]}"
        raise EngineUnavailable(told, hint=INSTALL)

    async def image(self, server: Server) -> str:
        """The identity of the image to run, here after this. Raises ToolFailed, DigestMismatch."""
        from filelock import AsyncFileLock

        if "@" in server.image:
            return await self._present(server, server.image)
        self._record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        async with AsyncFileLock(self._record.with_suffix(".lock")):
            known = self.recorded(server)
            if known is None:
                identity = await self._present(server, server.image)
                self._write(server.image, identity, await self._digest(identity))
                return identity
            status, _, _ = await self.run("image", "inspect", "--format", "{{.Id}}", known["id"])
            if status == 0:
                return known["id"]
            identity = await self._present(server, known["digest"] or server.image)
            if identity != known["id"]:
                raise DigestMismatch(
                    f"server {server.name!r}: the image {server.image} is not the one that it was resolved to",
                    param="image",
                    hint=f"look at what changed, and take its line out of {self._record}",
                )
            return identity

    def recorded(self, server: Server) -> dict[str, str] | None:
        """What a tag was resolved to: ``id``, and ``digest`` (empty for an image that no registry has)."""
        return self._all().get(server.image)

    def _all(self) -> dict[str, dict[str, str]]:
        if not self._record.is_file():
            return {}
        return msgspec.json.decode(self._record.read_bytes(), type=dict[str, dict[str, str]])

    def _write(self, image: str, identity: str, digest: str) -> None:
        part = self._record.with_suffix(".part")
        part.write_bytes(msgspec.json.encode({**self._all(), image: {"id": identity, "digest": digest}}))
        part.replace(self._record)

    async def _present(self, server: Server, reference: str) -> str:
        inspect = ("image", "inspect", "--format", "{{.Id}}", reference)
        status, out, _ = await self.run(*inspect)
        if status:
            if self._settings.offline or self._settings.tools_pull == "never":
                raise ToolFailed(
                    f"server {server.name!r}: the image {reference} is not here, and images are not pulled",
                    param="image",
                    hint="pull it, or change the settings tools_pull and offline",
                )
            status, _, error = await self.run("pull", "--quiet", reference, seconds=PULL_SECONDS)
            if status:
                raise ToolFailed(f"server {server.name!r}: {reference} can't be pulled: {error.strip()[-500:]}")
            status, out, _ = await self.run(*inspect)
        if status:
            raise ToolFailed(f"server {server.name!r}: there is no image {reference}", param="image")
        return out.strip()

    async def _digest(self, identity: str) -> str:
        status, out, _ = await self.run("image", "inspect", "--format", "{{json .RepoDigests}}", identity)
        found = msgspec.json.decode(out) if status == 0 and out.strip() not in ("", "null") else []
        return str(found[0]) if found else ""


def wrong(server: Server, home: Path) -> str | None:
    """What of an entry can't be told to an engine, or None."""
    if not _REFERENCE.match(server.image):
        return f"server {server.name!r}: {server.image!r} is no image"
    if server.user and not re.match(r"^[A-Za-z0-9_.-]+(:[A-Za-z0-9_.-]+)?$", server.user):
        return f"server {server.name!r}: {server.user!r} is no user"
    try:
        volumes(server, home)
    except InvalidRequest as error:
        return error.message
    return None


def volumes(server: Server, home: Path) -> list[str]:
    """Words for ``--volume``. Host paths are read-only unless ``sandbox.write`` lists them. Raises InvalidRequest."""
    found = []
    for text in server.volumes:
        source, _, rest = text.partition(":")
        target, _, mode = rest.partition(":")
        if not target.startswith("/") or mode not in ("", "ro", "rw"):
            raise InvalidRequest(f"server {server.name!r}: {text!r} is not source:/target[:ro|:rw]", param="volumes")
        if source.startswith(("/", "~", ".")):
            path = str(Path(source).expanduser())
            writes = path in server.sandbox.write and mode != "ro"
            policy = {"write": (path,)} if writes else {"read": (path,)}
            checked = msgspec.structs.replace(
                server, cwd="", sandbox=msgspec.structs.replace(server.sandbox, **{"read": (), "write": (), **policy})
            )
            ((real, _),) = _sandbox.shared(checked, home).values()
            found.append(f"{real}:{target}:{'rw' if writes else 'ro'}")
        elif re.match(r"^[A-Za-z0-9][A-Za-z0-9_.-]+$", source):
            found.append(f"{source}:{target}:{mode or 'rw'}")
        else:
            raise InvalidRequest(f"server {server.name!r}: {source!r} is no volume", param="volumes")
    mounted = msgspec.structs.replace(server, cwd="")
    for inside, (real, write) in _sandbox.shared(mounted, home).items():
        found.append(f"{real}:{inside}:{'rw' if write else 'ro'}")
    if any(text.count(":") != 2 for text in found):
        raise InvalidRequest(f"server {server.name!r}: a path with a colon can't be a volume", param="volumes")
    return list(dict.fromkeys(found))


def arguments(
    server: Server, name: str, image: str, shared: Sequence[str], env_file: int, names: Sequence[str]
) -> list[str]:
    """Arguments of ``create``. Values of variables travel in a descriptor or the environment, never here."""
    policy = server.sandbox
    told = ["create", "--interactive", "--init", "--rm", "--name", name, "--pull", "never", "--log-driver", "none"]
    told += ["--label", f"{LABEL}={server.name}", "--label", f"{OWNER}={owner()}", "--hostname", "tool"]
    told += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--network", "none", "--read-only"]
    size = jail.SCRATCH_BYTES
    told += ["--tmpfs", f"{jail.TEMPORARY}:rw,nosuid,nodev,size={size},mode=1777", "--ulimit", "core=0"]
    told += ["--memory", str(policy.memory), "--memory-swap", str(policy.memory)] if policy.memory else []
    told += ["--pids-limit", str(policy.processes + 2)] if policy.processes else []
    told += ["--cpus", f"{policy.cpus:g}"] if policy.cpus else []
    told += ["--ulimit", f"cpu={policy.seconds}"] if policy.seconds else []
    told += ["--user", server.user] if server.user else []
    told += ["--workdir", server.cwd] if server.cwd else []
    for each in shared:
        told += ["--volume", each]
    for each in names:
        told += ["--env", each]
    return [*told, "--env-file", f"/dev/fd/{env_file}", image, *server.command]


def owner() -> str:
    """This process, so that a later one can tell whether it lives: machine, id, and when it began."""
    return f"{socket.gethostname()}/{os.getpid()}/{_began(os.getpid())}"


def orphaned(text: str) -> bool:
    """Whether this owner was a process of this machine that has ended."""
    host, _, rest = text.partition("/")
    pid, _, began = rest.partition("/")
    return host == socket.gethostname() and pid.isdigit() and began != _began(int(pid))


def _began(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
