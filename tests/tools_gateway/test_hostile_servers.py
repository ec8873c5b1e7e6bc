"""One bad server never harms the others: what it does is contained, named, and over in time."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from door_help import ME, Inside, Lets, Spawned, hostile, inside, toolbox_of
from mcp.server.mcpserver import MCPServer

from dockyard.tools.model import Server, ToolFailed
from dockyard.tools.pool import Limits

pytestmark = pytest.mark.anyio

BAD = {
    "silence": "did not answer",
    "huge": " bytes; 4194304 are allowed",
    "endless": "ended while",
    "flood": "did not answer",
    "die": "ended while",
    "latin": "no UTF-8",
    "shape": "invalid result: content",
    "liar": "broke its own outputSchema at n",
    "deep": "no JSON-RPC",
    "no_rpc": "its error has no code",
    "other_id": "did not answer",
    "nothing": "something that is no object",
}


async def test_a_tool_of_a_server_that_still_starts_is_waited_for(tmp_path: Path) -> None:
    sign = tmp_path / "now"
    late = Server(name="late", kind="spawned", command=("hostile.py", "late", str(sign)), call_seconds=60.0)
    never = Server(name="never", kind="spawned", command=("hostile.py", "late", str(tmp_path / "no")), call_seconds=0.1)
    box = toolbox_of(tmp_path, Spawned(), late, never, hostile(name="honest"), limits=Limits(list_seconds=0.1))
    session = box.session(ME)
    try:
        assert "late" not in {tool.server for tool in await box.tools(session)}
        called = asyncio.create_task(box.call(session, "late__ok", {}))
        with pytest.raises(ToolFailed, match="'never' has not listed its tools: it is still starting"):
            await box.call(session, "never__ok", {})
        flaws = {str(row["name"]): row["flaws"] for row in await box.status()}
        assert flaws["late"] == {"tools": "it is still starting"}
        sign.touch()
        assert (await called).text == "call 1"
        assert "late" in {tool.server for tool in await box.tools(session)}
    finally:
        await box.close()


@pytest.mark.parametrize("tool", BAD)
async def test_it_fails_with_its_name_and_the_others_go_on(tmp_path: Path, tool: str) -> None:
    limits = Limits(ping_seconds=0.5)
    patience = 1.0 if BAD[tool] == "did not answer" else 60.0
    box = toolbox_of(tmp_path, Spawned(), hostile(call_seconds=patience), hostile(name="honest"), limits=limits)
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


async def test_an_error_of_a_server_s_own_is_not_its_end(tmp_path: Path) -> None:
    """Its code is the one that the protocol's package has for connections that ended."""
    runner = Spawned()
    box = toolbox_of(tmp_path, runner, hostile(call_seconds=60.0))
    session = box.session(ME)
    try:
        with pytest.raises(ToolFailed, match="no luck today"):
            await box.call(session, "hostile__own_error", {})
        assert (await box.call(session, "hostile__ok", {})).text == "call 2"
        assert len(runner.pids) == 1
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
        with pytest.raises(ToolFailed, match="server 'hostile' could not list its tools"):
            await box.call(session, "hostile__ok", {})
    finally:
        await box.close()


async def test_a_server_that_was_killed_keeps_its_tools(tmp_path: Path) -> None:
    """Its next start may fail too: the call says whose server that is, and a later one works."""
    runner = Spawned()
    box = toolbox_of(tmp_path, runner, hostile(call_seconds=30.0), limits=Limits(first_pause=0.05))
    session = box.session(ME)
    failures: list[str] = []
    try:
        assert (await box.call(session, "hostile__ok", {})).text == "call 1"
        os.kill(runner.pids[-1], 9)
        while box._pool.sessions(hostile(call_seconds=30.0)):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
        box._directory.shelf(hostile(call_seconds=30.0), ME.name, "tools").fresh = False
        starting = asyncio.create_task(box.tools(session))
        while len(runner.pids) < 2:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.01)
        os.kill(runner.pids[-1], 9)
        assert "hostile__ok" in {tool.id for tool in await starting}
        for _ in range(20):
            try:
                assert (await box.call(session, "hostile__ok", {})).text == "call 1"
                break
            except ToolFailed as error:
                failures.append(error.message)
                await asyncio.sleep(0.1)
        else:
            pytest.fail("it never came back")
        assert all("server 'hostile'" in failure for failure in failures)
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
