"""The short way of a modern client's ``tools/call``, the one request that is made often: its rules and its answer.

The package makes a connection, a session and four models of every request. Here a request is checked by the package's
own rules (its ladder of envelope and headers, its model of the method), and goes to the same handler. Whatever is not
plainly right is left to the package, which knows how to refuse it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from mcp.server.runner import modern_error_data
from mcp.shared.inbound import (
    ERROR_CODE_HTTP_STATUS,
    MCP_METHOD_HEADER,
    MCP_NAME_HEADER,
    MCP_PROTOCOL_VERSION_HEADER,
    InboundModernRoute,
    classify_inbound_request,
    x_mcp_header_map,
)
from mcp_types import SERVER_INFO_META_KEY, methods
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from dockyard.tools.sdk_direct import encoded, traced
from dockyard.types import Json

METHOD = "tools/call"
ROUTING = (MCP_PROTOCOL_VERSION_HEADER, MCP_METHOD_HEADER, MCP_NAME_HEADER)
_NEEDED = {MCP_PROTOCOL_VERSION_HEADER.encode(): "version", MCP_METHOD_HEADER.encode(): "method"}

Notify = Callable[[str, dict[str, Json]], Awaitable[None]]


class Caller:
    """One request. Stands for the package's context, as far as ``Front`` looks at that.

    ``notify`` sends what is said before the answer.
    """

    method = METHOD

    def __init__(self, message: dict[str, Any], version: str, request: Any, notify: Notify) -> None:
        self.id: int | str = message["id"]
        self.params: dict[str, Any] = message["params"]
        self.protocol_version = version
        self.request = request
        self.request_id = self.id
        envelope = self.params["_meta"]
        self.meta = dict(envelope)
        self._token = envelope.get("progressToken")
        if self._token is not None:
            self.meta["progress_token"] = self._token
        route_info = envelope.get(_INFO)
        self.client: str = str(route_info.get("name")) if isinstance(route_info, dict) else ""
        self.capabilities: dict[str, Json] = envelope[_CAPABILITIES]
        self._notify = notify

    @property
    def session(self) -> Caller:
        return self

    async def report_progress(self, done: float, total: float | None = None, text: str | None = None) -> None:
        told = {"progressToken": self._token, "progress": done, "total": total, "message": text}
        await self._notify("notifications/progress", {key: one for key, one in told.items() if one is not None})

    async def send_notification(self, note: Any, related_request_id: Any = None) -> None:
        del related_request_id  # it goes where the answer will go
        told = note.model_dump(by_alias=True, mode="json", exclude_none=True)
        await self._notify(told["method"], told.get("params") or {})


_INFO = "io.modelcontextprotocol/clientInfo"
_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"


def declared_by(context: Any) -> dict[str, Json]:
    """The capabilities of the client of a request, of this sort or of the package's."""
    if isinstance(context, Caller):
        return context.capabilities
    declared = context.session.client_capabilities
    return declared.model_dump(by_alias=True, mode="json", exclude_none=True) if declared else {}


def client_of(context: Any) -> str:
    """What that client calls itself."""
    if isinstance(context, Caller):
        return context.client[:200]
    known = context.session.client_params
    return str(known.client_info.name)[:200] if known is not None else ""


def is_for_us(headers: dict[bytes, bytes]) -> bool:
    """Whether these headers are of a call that may take the short way; cheap."""
    accept = headers.get(b"accept", b"")
    return (
        headers.get(b"mcp-method") == METHOD.encode()
        and headers.get(b"mcp-protocol-version", b"").decode("latin-1") in MODERN_PROTOCOL_VERSIONS
        and headers.get(b"content-type", b"").lower().startswith(b"application/json")
        and b"application/json" in accept
        and b"text/event-stream" in accept
        and not traced()
    )


def read(body: bytes, pairs: list[tuple[bytes, bytes]], schema: Callable[[str], Json]) -> dict[str, Any] | None:
    """The message of a call that is right in all its parts, or None. ``schema`` gives a tool's schema by name."""
    routing = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs if name.startswith(b"mcp-")]
    named = dict(routing)
    if len(named) != len(routing) or not named.keys() <= set(ROUTING):
        return None  # said twice, or arguments in headers
    try:
        message = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if not isinstance(message, dict) or message.get("method") != METHOD or message.get("jsonrpc") != "2.0":
        return None
    number, params = message.get("id"), message.get("params")
    if isinstance(number, bool) or not isinstance(number, int | str) or not isinstance(params, dict):
        return None
    route = classify_inbound_request(message, headers=named)
    if not isinstance(route, InboundModernRoute) or not isinstance(route.client_capabilities, dict):
        return None
    try:
        methods.validate_client_request(METHOD, route.protocol_version, params)
    except (ValidationError, KeyError, ValueError):
        return None
    if params.get("arguments") and x_mcp_header_map(schema(params["name"]) or {}):
        return None
    return message


async def answered(
    caller: Caller, server: Any, handler: Callable[..., Awaitable[dict[str, Json]]]
) -> tuple[int, bytes]:
    """What the handler makes of it: HTTP status and JSON-RPC response."""
    try:
        result = await handler(caller, None)
    except Exception as failure:  # noqa: BLE001 - an answer is made of it, as the package does
        error = modern_error_data(failure)
        status = ERROR_CODE_HTTP_STATUS.get(error.code, 200)
        told = error.model_dump(by_alias=True, mode="json", exclude_none=True)
        return status, encoded({"jsonrpc": "2.0", "id": caller.id, "error": told})
    meta = {**(result.get("_meta") or {}), SERVER_INFO_META_KEY: server.server_info_stamp}
    return 200, encoded({"jsonrpc": "2.0", "id": caller.id, "result": {**result, "_meta": meta}})
