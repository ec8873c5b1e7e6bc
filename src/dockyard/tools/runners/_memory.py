"""Tools that are answered in this process: the package's low-level server at the far end of a pair of streams."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from dockyard.errors import DockyardError
from dockyard.tools.model import Outcome
from dockyard.tools.runners._groups import unwrapped
from dockyard.tools.sdk import Transport
from dockyard.types import Json

Call = Callable[[str, dict[str, Json]], Awaitable[Outcome]]


@contextlib.asynccontextmanager
async def serving(name: str, tools: Sequence[dict[str, Json]], call: Call) -> AsyncIterator[Transport]:
    """A transport to a server that lists ``tools`` (MCP definitions) and answers calls with ``call``."""
    import mcp_types as types
    from mcp.client._memory import InMemoryTransport
    from mcp.server.lowlevel import Server

    definitions = [types.Tool.model_validate(tool) for tool in tools]

    async def listed(_context: Any, _params: Any) -> Any:
        return types.ListToolsResult(tools=definitions)

    async def called(_context: Any, params: Any) -> Any:
        try:
            outcome = await call(params.name, params.arguments or {})
        except DockyardError as error:
            outcome = text(error.message, failed=True)
        return types.CallToolResult.model_validate(
            {"content": outcome.content, "structuredContent": outcome.structured, "isError": outcome.is_error}
        )

    server: Server[Any] = Server(name, on_list_tools=listed, on_call_tool=called)
    with unwrapped():
        async with InMemoryTransport(server) as (read, write):
            yield Transport(read=read, write=write)


def text(words: str, *, structured: Json = None, failed: bool = False) -> Outcome:
    return Outcome(content=[{"type": "text", "text": words}], structured=structured, is_error=failed)
