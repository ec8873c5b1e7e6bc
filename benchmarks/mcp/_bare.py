"""Servers of the SDK alone, as programs: ``python -m benchmarks.mcp._bare http`` prints its address; ``stdio`` speaks.

One tool, ``add``; the least that a server can do, so that what a gateway adds is seen.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import mcp_types as types
from mcp.server.lowlevel import Server

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}


def server() -> Server[Any]:
    async def listed(_context: Any, _params: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[types.Tool(name="add", description="Adds.", input_schema=SCHEMA)])

    async def called(_context: Any, params: Any) -> types.CallToolResult:
        given = params.arguments or {}
        return types.CallToolResult(content=[types.TextContent(type="text", text=str(given["a"] + given["b"]))])

    return Server("bare", on_list_tools=listed, on_call_tool=called)


async def over_http() -> None:
    import uvicorn
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    manager = StreamableHTTPSessionManager(server())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await manager.handle_request(scope, receive, send)

    # asyncio sends small packets at once only where a socket says that it is TCP.
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    bound.bind(("127.0.0.1", 0))
    bound.listen()
    async with manager.run():
        print(f"http://127.0.0.1:{bound.getsockname()[1]}/mcp", flush=True)
        running = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        await running.serve(sockets=[bound])


async def over_pipes() -> None:
    from mcp.server.stdio import stdio_server

    bare = server()
    async with stdio_server() as (read, write):
        await bare.run(read, write, bare.create_initialization_options())


if __name__ == "__main__":
    asyncio.run(over_http() if sys.argv[1] == "http" else over_pipes())
