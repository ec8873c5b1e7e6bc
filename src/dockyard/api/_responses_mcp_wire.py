"""The fields of a Responses request that are about tools which the server runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from dockyard.api._decode import explained
from dockyard.api._responses_wire import Item
from dockyard.errors import InvalidRequest, UnsupportedParameter
from dockyard.tools.model import Tool
from dockyard.types import Json, Principal

MOST_SERVERS = 64


class ToolFilter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tools by name, or by whether they say that they only read; with both, both must hold."""

    tool_names: list[str] | None = None
    read_only: bool | None = None

    def fits(self, tool: Tool, name: str) -> bool:
        hints = tool.raw.get("annotations")
        reads = isinstance(hints, dict) and hints.get("readOnlyHint") is True
        named = self.tool_names is None or name in self.tool_names
        return named and (self.read_only is None or self.read_only == reads)


class ApprovalFilter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tools that always ask, and tools that never do. Others ask if ``never`` is given."""

    always: ToolFilter | None = None
    never: ToolFilter | None = None


class McpTool(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of ``tools``."""

    type: Literal["mcp"]
    server_label: Annotated[str, Meta(pattern="^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
    server_url: str | None = None
    allowed_tools: list[str] | ToolFilter | None = None
    require_approval: Literal["always", "never"] | ApprovalFilter | None = None
    headers: dict[str, str] | None = None
    authorization: str | None = None
    server_description: str | None = None
    defer_loading: bool | None = None
    allowed_callers: list[Literal["direct", "programmatic"]] | None = None
    connector_id: str | None = None
    tunnel_id: str | None = None

    def allows(self, tool: Tool, name: str) -> bool:
        wanted = self.allowed_tools
        if isinstance(wanted, list):
            return name in wanted
        return wanted is None or wanted.fits(tool, name)

    def asks(self, tool: Tool, name: str) -> bool:
        """Whether the client wants to be asked; unless it says otherwise, it does."""
        wanted = self.require_approval
        if not isinstance(wanted, ApprovalFilter):
            return wanted != "never"
        if wanted.always is not None and wanted.always.fits(tool, name):
            return True
        return wanted.never is not None and not wanted.never.fits(tool, name)


class Hosted(msgspec.Struct, kw_only=True):
    """What a request wants of tools that the server runs. ``choice`` is its ``tool_choice`` if that names one of them.
    ``whole``: all servers of the profile, as it has them, since a route names that and the request names none.

    ``principal`` is who asks, ``heard`` the items of the conversation, ``new`` those of this request.
    """

    tools: list[McpTool]
    principal: Principal
    choice: Json = None
    profile: str = "default"
    whole: bool = False
    most: int | None = None
    code: bool = False
    heard: list[Item] = []
    new: list[Item] = []


def read(tools: Iterable[tuple[int, Item]]) -> list[McpTool]:
    """The entries of type ``mcp``, checked. Raises InvalidRequest, UnsupportedParameter with the path."""
    found: list[McpTool] = []
    for number, tool in tools:
        at = f"tools[{number}]"
        try:
            one = msgspec.convert(tool, McpTool)
        except msgspec.ValidationError as error:
            wrong = explained(error, McpTool)
            where = f"{at}.{wrong.param}" if wrong.param else at
            raise type(wrong)(f"{at}: {wrong.message}", param=where, hint=wrong.hint) from None
        for field in ("connector_id", "tunnel_id"):
            if getattr(one, field) is not None:
                raise UnsupportedParameter(f"{at}.{field} is OpenAI's own", param=f"{at}.{field}", hint="give a URL")
        if one.allowed_callers is not None and "direct" not in one.allowed_callers:
            raise UnsupportedParameter(f"{at}.allowed_callers must have 'direct'", param=f"{at}.allowed_callers")
        if one.server_url is None and (one.headers or one.authorization):
            raise InvalidRequest(
                f"{at}: headers go with `server_url`", param=f"{at}.headers", hint="the profile holds its own"
            )
        if any(one.server_label == other.server_label for other in found):
            raise InvalidRequest(f"two servers are called {one.server_label!r}", param=f"{at}.server_label")
        found.append(one)
    if len(found) > MOST_SERVERS:
        raise InvalidRequest(f"{MOST_SERVERS} servers are the most in one request", param="tools")
    return found
