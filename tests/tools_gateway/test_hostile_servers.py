"""One bad server never harms the others: what it does is contained, named, and over in time."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from door_help import ME, Inside, Lets, Spawned, hostile, inside, toolbox_of
from mcp.server.mcpserver import MCPServer

from dockyard.errors import NotFound
from dockyard.tools.model import ToolFailed
from dockyard.tools.pool import Limits

pytestmark = pytest.mark.anyio

BAD = {
    "silence": "did not answer",
    "huge": "100000073 bytes; 4194304 are allowed",
    "endless": "ended while",
    "flood": "did not answer",
    "die": "ended while",
    "latin": "no UTF-8",
    "shape": "invalid result: content",
    "liar": "broke its own outputSchema at n",
    "deep": "no JSON-RPC",
    "no_rpc": "no JSON-RPC",
    "other_id": "did not answer",
    "nothing": "no JSON-RPC",
}


@pytest.mark.parametrize("tool", BAD)
async def test_it_fails_with_its_name_and_the_others_go_on(tmp_path: Path, tool: str) -> None:
    limits = Limits(ping_seconds=0.5)
    box = toolbox_of(tmp_path, Spawned(), hostile(call_seconds=1.0), hostile(name="honest"), limits=limits)
    session = box.session(ME)
    try:
        assert (await box.call(session, "honest__ok", {})).text == "call 1"
        bad = asyncio.create_task(box.call(session, f"hostile__{tool}", {}))
        await asyncio.sleep(0.1)
        assert (await box.call(session, "honest__ok", {})).text == "call 2"
        with pytest.raises(ToolFailed, match="'hostile'") as failure:
            await bad
        assert BAD[tool] in failure.value.message
        assert (await box.call(session, "honest__ok", {})).text == "call 3"
        assert (await box.call(session, "hostile__ok", {})).text
    finally:
        await box.close()


async def test_a_result_is_bounded_whatever_it_came_over(tmp_path: Path) -> None:
    def flooder() -> Any:
        server = MCPServer("flooder")

        @server.tool()
        def flood(size: int) -> str:
            """So many bytes."""
            return "x" * size

        return server._lowlevel_server

    box = toolbox_of(tmp_path, Inside({"flooder": flooder}), inside("flooder"))
    session = box.session(ME)
    try:
        assert len((await box.call(session, "flooder__flood", {"size": 1000})).text) == 1000
        with pytest.raises(ToolFailed, match=r"'flooder' answered 'tools/call' with .* 4194304 are allowed"):
            await box.call(session, "flooder__flood", {"size": 5 << 20})
    finally:
        await box.close()


async def test_definitions_that_are_wrong_are_left_out(tmp_path: Path) -> None:
    box = toolbox_of(tmp_path, Spawned(), hostile())
    try:
        names = [tool.name for tool in await box.tools(box.session(ME))]
        assert names[0] == "ok"
        assert names.count("ok") == 1
        assert "no_schema" not in names
        assert "bad_schema" not in names
        assert "far_ref" in names  # nothing is fetched for it, and it takes no such argument
        (status,) = await box.status()
        assert "inputSchema" in status["flaws"]["tool no_schema"]
        assert status["flaws"]["tool bad_schema"].startswith("inputSchema: not a JSON Schema")
    finally:
        await box.close()


async def test_an_argument_whose_schema_is_elsewhere_is_refused(tmp_path: Path) -> None:
    box = toolbox_of(tmp_path, Spawned(), hostile())
    try:
        with pytest.raises(ToolFailed, match="schema"):
            await box.call(box.session(ME), "hostile__far_ref", {"a": 1})
    finally:
        await box.close()


async def test_a_tool_that_changes_in_mid_session_is_looked_at_again(tmp_path: Path) -> None:
    safety = Lets()
    box = toolbox_of(tmp_path, Spawned(), hostile(), safety=safety)
    session = box.session(ME)
    try:
        before = {tool.id: tool.description for tool in await box.tools(session)}
        changes = box.changes(session)
        heard = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        await box.call(session, "hostile__change", {})
        assert (await asyncio.wait_for(heard, 5)).what == "tools"
        after = {tool.id: tool.description for tool in await box.tools(session)}
        assert before["hostile__ok"] == ""
        assert "evil" in after["hostile__ok"]
        await changes.aclose()
    finally:
        await box.close()


async def test_a_server_that_comes_back_with_other_tools_is_not_called(tmp_path: Path) -> None:
    """The definition that was agreed to is not the one that would run now."""
    runner = Spawned()
    box = toolbox_of(tmp_path, runner, hostile())
    session = box.session(ME)
    try:
        await box.call(session, "hostile__change", {})
        assert "evil" in next(tool.description for tool in await box.tools(session) if tool.name == "ok")
        os.kill(runner.pids[-1], 9)
        await asyncio.sleep(0.2)
        with pytest.raises(ToolFailed, match="changed or dropped"):
            await box.call(session, "hostile__ok", {})
    finally:
        await box.close()


@pytest.mark.parametrize("how", ["mute", "dead"])
async def test_a_server_that_does_not_start_is_left_out(tmp_path: Path, how: str) -> None:
    limits = Limits(first_pause=60, start_seconds=1.0, probe_seconds=0.3)
    box = toolbox_of(tmp_path, Spawned(), hostile(how), hostile(name="honest"), limits=limits)
    session = box.session(ME)
    try:
        assert {tool.server for tool in await box.tools(session)} == {"honest"}
        status = {one["name"]: one for one in await box.status()}
        assert status["hostile"]["state"] == "failed"
        assert "'hostile'" in status["hostile"]["reason"]
        assert status["honest"]["state"] == "ready"
        with pytest.raises(NotFound):
            await box.call(session, "hostile__ok", {})
    finally:
        await box.close()


async def test_a_server_that_dies_of_the_newer_era_is_met_in_the_older(tmp_path: Path) -> None:
    runner = Spawned()
    box = toolbox_of(tmp_path, runner, hostile("young"))
    try:
        assert (await box.call(box.session(ME), "hostile__ok", {})).text == "call 1"
        assert len(runner.pids) == 2
        (status,) = await box.status()
        assert (status["era"], status["version"]) == ("legacy", "2025-06-18")
    finally:
        await box.close()
