"""A link to one MCP server, in whichever protocol era it speaks. Only ``sdk*.py`` know the ``mcp`` package.

Messages stay as the server wrote them: the package's own client would drop fields that it does not know and raise on
results that are slightly wrong. What a result must be is checked where it is passed on.

Eras: "legacy" (up to 2025-11-25) opens with ``initialize`` and may ask the client back while it works on a request;
"modern" (2026-07-28) says who asks in every request, and instead of asking returns what it needs ("input_required").
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, NamedTuple

from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import (
    MCP_METHOD_HEADER,
    MCP_NAME_HEADER,
    MCP_PROTOCOL_VERSION_HEADER,
    NAME_BEARING_METHODS,
    encode_header_value,
    mcp_param_headers,
    x_mcp_header_map,
)
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp_types import (
    CLIENT_CAPABILITIES_META_KEY,
    CLIENT_INFO_META_KEY,
    CONNECTION_CLOSED,
    INTERNAL_ERROR,
    LOG_LEVEL_META_KEY,
    METHOD_NOT_FOUND,
    PROTOCOL_VERSION_META_KEY,
    SERVER_INFO_META_KEY,
    UNSUPPORTED_PROTOCOL_VERSION,
)
from mcp_types.version import (
    HANDSHAKE_PROTOCOL_VERSIONS,
    LATEST_HANDSHAKE_VERSION,
    LATEST_MODERN_VERSION,
    MODERN_PROTOCOL_VERSIONS,
)

from dockyard.errors import DockyardError
from dockyard.tools.model import ToolFailed
from dockyard.tools.sdk_direct import UNUSABLE, Direct, Elsewhere, Resume, traced
from dockyard.types import Json

log = logging.getLogger(__name__)

Era = Literal["legacy", "modern"]
Progress = Callable[[float, float | None, str | None], Awaitable[None]]
Asked = Callable[[str, dict[str, Json]], Awaitable[dict[str, Json]]]
"""Answers a server's request: method and params in, result out. Raises ``Refusal``."""
Noted = Callable[[str, dict[str, Json]], None]

MESSAGE_LIMIT = 4 << 20
"""Bytes of one message from a server."""
PROBE_SECONDS = 5.0
START_SECONDS = 30.0
MOST_PAGES = 100
MOST_ITEMS = 10_000
NOTES_PER_SECOND = 1000
"""Messages of a server beyond which it is made to wait: what it sends costs the gateway time."""

FORGOTTEN = "Session terminated"
"""How the package says that a server no longer knows this session: it is over, and the next call begins another."""
LOST = ("Connection closed", "SSE stream ")
"""How errors begin that the connection's end makes. Their code is also the first that servers take for their own."""

LEGACY_CAPABILITIES: dict[str, Json] = {
    "roots": {"listChanged": True},
    "sampling": {"tools": {}},
    "elicitation": {"form": {}, "url": {}},
}
"""What a legacy server is told at its start, for all clients that it will ever have: whoever can't is named later."""


class Transport(NamedTuple):
    """What a runner's ``connect`` yields: streams of the package's ``SessionMessage``, and the process behind them.

    A plain pair of streams will do as well. ``direct`` is a shorter way for requests, where there is one.
    """

    read: Any
    write: Any
    pid: int | None = None
    direct: Direct | None = None


class Refusal(ToolFailed):
    """A JSON-RPC error in answer to a request: the server's own word, to be passed on. ``rpc`` is its code."""

    code = "tool_refused"

    def __init__(self, message: str, *, rpc: int = INTERNAL_ERROR, data: Json = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.rpc = rpc
        self.data = data


class Gone(ToolFailed):
    """The connection ended before the answer came."""

    code = "tool_server_gone"


class Paced:
    """The read side of a transport, no faster than a server may send."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._second = 0.0
        self._seen = 0

    async def receive(self) -> Any:
        now = time.monotonic()
        if now - self._second >= 1:
            self._second, self._seen = now, 0
        self._seen += 1
        if self._seen > NOTES_PER_SECOND:
            await asyncio.sleep(self._second + 1 - now)
        return await self._stream.receive()

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __aiter__(self) -> Paced:
        return self

    async def __anext__(self) -> Any:
        from anyio import EndOfStream

        try:
            return await self.receive()
        except EndOfStream:
            raise StopAsyncIteration from None

    async def __aenter__(self) -> Paced:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


class Link:
    """One open connection. ``name`` is the server's, for errors. Run ``serve`` in a task, then ``open``.

    ``asked`` answers requests of the server, ``noted`` gets its notifications. ``ended`` is set when it is over.
    """

    def __init__(self, name: str, transport: Any, *, asked: Asked, noted: Noted, era: Era | None = None) -> None:
        read, write = transport[0], transport[1]
        self.name = name
        self.pid: int | None = transport[2] if len(transport) > 2 else None
        self._direct: Direct | None = transport[3] if len(transport) > 3 and not traced() else None
        self.era: Era = era or "modern"
        self.version = LATEST_HANDSHAKE_VERSION
        self.capabilities: dict[str, Json] = {}
        self.info: dict[str, Json] = {}
        self.instructions = ""
        self.ended = asyncio.Event()
        self._known = era
        self._asked = asked
        self._noted = noted
        self._headers: dict[str, dict[tuple[str, ...], str]] = {}
        self._dispatcher: JSONRPCDispatcher[Any] = JSONRPCDispatcher(Paced(read), write)

    async def serve(self, *, task_status: Any = None) -> None:
        """Pump messages until the connection ends."""
        try:
            await self._dispatcher.run(self._request, self._notify, task_status=task_status or _Unheard())
        finally:
            self.ended.set()

    async def open(self, probe_seconds: float = PROBE_SECONDS) -> None:
        """Find out the era and agree on a version. Raises ToolFailed."""
        if self._known != "legacy" and await self._discover(probe_seconds):
            return
        self.era = "legacy"
        offer = {"protocolVersion": LATEST_HANDSHAKE_VERSION, "capabilities": LEGACY_CAPABILITIES, "clientInfo": me()}
        try:
            told = await self._send("initialize", offer, START_SECONDS, {"cancel_on_abandon": False})
        except Refusal as error:
            # A slow modern server may have taken the probe that was given up on, and has only that era from then on.
            if error.rpc == UNSUPPORTED_PROTOCOL_VERSION and await self._discover(probe_seconds):
                return
            raise ToolFailed(f"server {self.name!r} does not let us in: {error.message}") from error
        version = told.get("protocolVersion")
        if version not in HANDSHAKE_PROTOCOL_VERSIONS:
            raise ToolFailed(f"server {self.name!r} speaks protocol version {str(version)[:40]!r}, which is unknown")
        self.version = version
        self._learn(told, told.get("serverInfo"))
        await self.notify("notifications/initialized")

    async def _discover(self, seconds: float) -> bool:
        """Whether it is a modern server."""
        self.era, self.version = "modern", LATEST_MODERN_VERSION
        try:
            told = await self.request("server/discover", {}, seconds=seconds)
        except Gone:
            raise
        except ToolFailed:
            return False
        supported = told.get("supportedVersions")
        if not isinstance(supported, list):
            return False
        mutual = [version for version in MODERN_PROTOCOL_VERSIONS if version in supported]
        if not mutual:
            return False
        self.version = mutual[-1]
        meta = told.get("_meta")
        self._learn(told, meta.get(SERVER_INFO_META_KEY) if isinstance(meta, dict) else None)
        return True

    def _learn(self, told: dict[str, Json], info: Json) -> None:
        capabilities, text = told.get("capabilities"), told.get("instructions")
        self.capabilities = capabilities if isinstance(capabilities, dict) else {}
        self.info = info if isinstance(info, dict) else {}
        self.instructions = text if isinstance(text, str) else ""

    def offers(self, *path: str) -> bool:
        """Whether the server declared this capability, as in ``offers("tools", "listChanged")``."""
        node: Json = self.capabilities
        for word in path:
            node = node.get(word) if isinstance(node, dict) else None
        return node is not None and node is not False

    async def request(
        self,
        method: str,
        params: Mapping[str, Json],
        *,
        seconds: float | None,
        on_progress: Progress | None = None,
        capabilities: Mapping[str, Json] | None = None,
        level: str | None = None,
        request_id: str | None = None,
    ) -> dict[str, Json]:
        """Its result as the server wrote it. ``capabilities`` are those of the client that this is done for.

        Raises Refusal (an error in answer), Gone, and ToolFailed for silence of ``seconds`` and oversized answers.
        """
        stamped, options = self._stamp(method, params, capabilities or {}, level)
        if on_progress is not None:
            options["on_progress"] = on_progress
        if request_id is not None:
            options["request_id"] = request_id
        if method in ("initialize", "server/discover"):
            options["cancel_on_abandon"] = False
        return await self._send(method, stamped, seconds, options)

    async def _send(
        self, method: str, params: dict[str, Json], seconds: float | None, options: dict[str, Any]
    ) -> dict[str, Json]:
        if self.ended.is_set():
            raise Gone(f"server {self.name!r} has ended")
        try:
            async with asyncio.timeout(seconds):
                result = await self._result(method, params, options)
        except TimeoutError:
            raise ToolFailed(f"server {self.name!r} did not answer {method!r} within {seconds:g} s") from None
        except MCPError as error:
            lost = error.code == CONNECTION_CLOSED and error.message.startswith(LOST)
            if self.ended.is_set() or lost or error.message == FORGOTTEN:
                self.ended.set()  # before the pump has noticed: nobody shall be sent here again
                raise Gone(f"server {self.name!r} ended while it worked on {method!r}") from None
            if isinstance(error.data, dict) and error.data.get("dockyard") == UNUSABLE:
                raise ToolFailed(f"server {self.name!r} sent an unusable answer: {error.message}") from None
            raise Refusal(error.message, rpc=error.code, data=error.data) from None
        if not isinstance(result, dict):
            raise ToolFailed(f"server {self.name!r} answered {method!r} with something that is no object")
        return result

    async def _result(self, method: str, params: dict[str, Json], options: dict[str, Any]) -> Json:
        """Raises MCPError for an error in answer."""
        if self._direct is not None and options.keys() == {"headers"}:
            try:
                answer = await self._direct.ask(method, params, options["headers"])
            except Elsewhere:
                self._direct = None
            except Resume as broken:
                await asyncio.sleep(broken.seconds)
                options = {**options, "resumption_token": broken.event}
            else:
                if (error := answer.get("error")) is None:
                    return answer.get("result")
                raise MCPError(error["code"], error["message"], error.get("data"))
        return await self._dispatcher.send_raw_request(method, params, options)  # type: ignore[arg-type]

    async def notify(self, method: str, params: dict[str, Json] | None = None) -> None:
        """A notification to a legacy server; modern ones take none."""
        if self.era == "legacy":
            await self._dispatcher.notify(method, params, self._stamp("", {}, {})[1])  # type: ignore[arg-type]

    def listed(self, tools: list[dict[str, Json]]) -> None:
        """Remember which arguments of these tools travel in headers too, where the transport has headers."""
        for tool in tools:
            schema = tool.get("inputSchema")
            if isinstance(schema, dict) and isinstance(tool.get("name"), str):
                self._headers[tool["name"]] = x_mcp_header_map(schema)

    def _stamp(
        self, method: str, params: Mapping[str, Json], capabilities: Mapping[str, Json], level: str | None = None
    ) -> tuple[dict[str, Json], dict[str, Any]]:
        """Params and options as this era wants them."""
        headers = {MCP_PROTOCOL_VERSION_HEADER: self.version}
        if self.era == "legacy":
            return dict(params), {"headers": headers}
        meta: dict[str, Json] = {
            **(params.get("_meta") or {}),
            PROTOCOL_VERSION_META_KEY: self.version,
            CLIENT_INFO_META_KEY: me(),
            CLIENT_CAPABILITIES_META_KEY: dict(capabilities),
        }
        if level is not None:
            meta[LOG_LEVEL_META_KEY] = level
        headers[MCP_METHOD_HEADER] = method
        key = NAME_BEARING_METHODS.get(method)
        if key is not None and isinstance(params.get(key), str):
            headers[MCP_NAME_HEADER] = encode_header_value(params[key])
        if method == "tools/call" and (paths := self._headers.get(str(params.get("name")))):
            headers.update(mcp_param_headers(paths, params.get("arguments") or {}))
        return {**params, "_meta": meta}, {"headers": headers}

    async def _request(self, _context: Any, method: str, params: Mapping[str, Any] | None) -> dict[str, Any]:
        if method == "ping":
            return {}
        if method not in ("sampling/createMessage", "elicitation/create", "roots/list"):
            raise MCPError(METHOD_NOT_FOUND, "Method not found", method)
        try:
            return await self._asked(method, dict(params or {}))
        except Refusal as error:
            raise MCPError(error.rpc, error.message, error.data) from None
        except DockyardError as error:
            raise MCPError(INTERNAL_ERROR, error.message) from None

    async def _notify(self, _context: Any, method: str, params: Mapping[str, Any] | None) -> None:
        self._noted(method, dict(params or {}))


class _Unheard:
    def started(self, value: object = None) -> None:
        pass


async def pages(link: Link, method: str, key: str, *, seconds: float) -> list[dict[str, Json]]:
    """All items of a list method, page by page, bounded. Items that are no objects are left out."""
    items: list[dict[str, Json]] = []
    cursors: set[str] = set()
    cursor: str | None = None
    async with asyncio.timeout(seconds):
        for _ in range(MOST_PAGES):
            page = await link.request(method, {} if cursor is None else {"cursor": cursor}, seconds=None)
            found = page.get(key)
            if not isinstance(found, list):
                raise ToolFailed(f"server {link.name!r} answered {method!r} without {key!r}")
            items.extend(item for item in found if isinstance(item, dict))
            cursor = page.get("nextCursor")
            if not isinstance(cursor, str) or cursor in cursors or len(items) >= MOST_ITEMS:
                break
            cursors.add(cursor)
    return items[:MOST_ITEMS]


def me() -> dict[str, Json]:
    """How Dockyard introduces itself."""
    from dockyard import __version__

    return {"name": "dockyard", "version": __version__}
