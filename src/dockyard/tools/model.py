"""Structs that cross the parts of ``tools``: what a server is, what it offers, who asks, and what comes back.

Tool definitions, content blocks and schemas stay JSON as MCP has them (revision 2026-07-28; older ones differ only in
fields that may be absent), so that what a server said is passed on as it was said.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal, Protocol

import msgspec

from dockyard.errors import DockyardError
from dockyard.types import Json, Principal

Label = Literal["untrusted-in", "private-data", "external-out", "destructive"]
"""What a tool can do to a conversation: bring in other people's words, read secrets, send out, or destroy."""

SEPARATOR = "__"


class Secret(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A secret that a server needs: its name in the secret store, and the variable or header that carries it."""

    name: str
    env: str = ""
    header: str = ""


class Sandbox(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a local server may touch. Default: nothing of the machine but its own scratch folder, and no network.

    ``read`` and ``write`` are host paths; ``hosts`` are ``name:port`` that it may reach. ``memory`` is bytes,
    ``processes`` a count, ``cpus`` cores, ``seconds`` the processor time of the whole server (0: no bound). What its
    processes use together, and ``cpus``, are bounded in containers and where control groups can be made; elsewhere
    ``memory`` and ``seconds`` hold for each process.
    """

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    memory: int = 1 << 30
    processes: int = 64
    cpus: float = 1.0
    seconds: int = 0


class Server(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One tool server, whatever catalogue it came from. ``kind`` is the name of the runner.

    process: ``command`` (argv), ``cwd``. container: ``image``, ``command``, ``volumes``. package: ``package``
    (``pypi:name==version`` or ``npm:name@version``), ``hashes``, ``command`` (its arguments). remote: ``url``,
    ``transport`` ("http" or "sse"), ``headers``. openapi: ``url`` or path of the document. function:
    ``module:attribute`` in ``command``. platform: nothing more. ``labels`` are by tool name, ``*`` for all.
    ``source`` says where the entry is from.
    """

    name: str
    kind: str
    title: str = ""
    description: str = ""
    command: tuple[str, ...] = ()
    cwd: str = ""
    env: dict[str, str] = {}
    secrets: tuple[Secret, ...] = ()
    image: str = ""
    volumes: tuple[str, ...] = ()
    user: str = ""
    package: str = ""
    hashes: tuple[str, ...] = ()
    url: str = ""
    transport: Literal["http", "sse"] = "http"
    headers: dict[str, str] = {}
    sandbox: Sandbox = Sandbox()
    config: dict[str, Json] = {}
    labels: dict[str, tuple[Label, ...]] = {}
    call_seconds: float = 60.0
    source: str = ""
    extra: dict[str, Json] = {}
    """Fields of a foreign format that Dockyard does not read but gives back when it writes that format again."""


class Enabled(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A server in a profile: a snapshot of its entry, the tools that are let through (None: all), its configuration."""

    server: Server
    tools: tuple[str, ...] | None = None
    approve: tuple[str, ...] = ()
    """Tools of it that always ask; ``*``: all."""


class Profile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A named set of servers for one purpose or client."""

    name: str
    description: str = ""
    servers: tuple[Enabled, ...] = ()
    search: bool = False
    """Offer ``search_tools`` and ``call_tool`` instead of the whole list."""
    prefix: bool = True
    """Names are ``server__tool``; without, a server's own names are kept where no two collide."""


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """A tool as clients see it: ``id`` is its name outside, ``name`` inside its server, ``raw`` its MCP definition."""

    id: str
    server: str
    name: str
    raw: dict[str, Json]
    labels: frozenset[Label] = frozenset()
    fingerprint: str = ""
    scope: str = "infer"
    """What a principal must be allowed to, to know of it and use it."""
    asks: bool = False
    """A person must agree to each use, unless a rule of the operator allows it."""

    @property
    def description(self) -> str:
        return str(self.raw.get("description") or "")

    @property
    def schema(self) -> dict[str, Json]:
        return dict(self.raw.get("inputSchema") or {"type": "object"})


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a call gave: MCP content blocks, structured content, and whether the tool says that it failed."""

    content: list[Json] = []
    structured: Json = None
    is_error: bool = False
    meta: dict[str, Json] = {}
    extra: dict[str, Json] = {}
    """Fields of a result that the protocol does not name, which it lets servers add."""

    @property
    def text(self) -> str:
        return "\n".join(str(part.get("text", "")) for part in self.content if part.get("type") == "text")


class Session(msgspec.Struct, kw_only=True):
    """One conversation with one client or model; mutable. ``taint`` is what has flowed in (safety reads and writes it).

    ``ask`` puts a question of a server (elicitation, sampling, roots) to the client; None: the client can't be asked.
    """

    principal: Principal
    profile: str
    client: str = ""
    id: str = msgspec.field(default_factory=lambda: secrets.token_hex(8))
    begun: float = msgspec.field(default_factory=time.time)
    taint: set[str] = set()
    ask: Callable[[str, Json], Awaitable[Json]] | None = None
    given: Profile | None = None
    """What this conversation may use, where that is not its profile: a part of it, or servers that it brought along."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What safety says of a call: let it, refuse it, or ask a person first."""

    action: Literal["allow", "deny", "ask"]
    reason: str = ""


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """A question to a person, bound to who asks, tool and digest of the arguments; good once, until ``expires``."""

    id: str
    principal: str
    tool: str
    arguments_digest: str
    arguments: Json
    reason: str
    expires: float


class ApprovalNeeded(DockyardError):
    """A person must agree first; ``approval`` is the question."""

    status = 403
    code = "approval_required"

    approval: Approval


class ToolDenied(DockyardError):
    """Policy refuses this call."""

    status = 403
    code = "tool_denied"


class ToolFailed(DockyardError):
    """The server of a tool died, hangs, floods, or speaks no MCP; the others go on."""

    status = 502
    code = "tool_failed"


class Runner(Protocol):
    """Starts servers of one kind. A file of ``runners/`` binds one as ``PLUGIN``."""

    name: str

    def refuses(self, server: Server) -> str | None:
        """Why it can't run here, or None; cheap."""
        ...

    def connect(self, server: Server, secrets: dict[str, str]) -> Any:
        """An async context manager that yields a transport for ``sdk.session``; leaving it leaves nothing behind.

        ``secrets`` are values by ``Secret.name``. Raises ToolFailed, EngineUnavailable (something is not installed).
        """
        ...
