"""The gateway as official clients see it, over HTTP, in both protocol eras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from door_help import Inside, inside, listening, toolbox_of
from mcp import Client
from mcp.server.mcpserver import MCPServer

pytestmark = pytest.mark.anyio


def adder() -> Any:
    server = MCPServer("adder")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    return server._lowlevel_server


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.parametrize("old", [False, True])
async def test_a_tool_is_listed_and_called(tmp_path: Path, mode: str, old: bool) -> None:
    runner = Inside({"adder": adder}, legacy=old)
    async with listening(toolbox_of(tmp_path, runner, inside("adder"))) as url:
        async with Client(f"{url}/mcp", mode=mode) as client:
            assert [tool.name for tool in (await client.list_tools()).tools] == ["adder__add"]
            result = await client.call_tool("adder__add", {"a": 2, "b": 3})
            assert result.structured_content == {"result": 5}
    assert runner.started == 1
    assert runner.running == 0
