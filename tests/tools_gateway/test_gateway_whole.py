"""The gateway as it is installed: real profiles, real safety, keys, and both ways in."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
from door_help import listening
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from dockyard.settings import Settings
from dockyard.tools.model import Enabled, Profile, Server
from dockyard.tools.profiles import Profiles
from dockyard.tools.toolbox import Toolbox

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent
FUNCTIONS = Server(name="sums", kind="function", command=("gateway_functions:double", "gateway_functions:shout"))
HEAD = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
BEGIN = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "raw", "version": "1"},
    },
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a server in the default profile, and one with only part of it in another."""
    profiles = Profiles(tmp_path)
    profiles.put(Profile(name="default", servers=(Enabled(server=FUNCTIONS),)))
    few = Enabled(server=FUNCTIONS, tools=("double",), approve=("*",))
    profiles.put(Profile(name="few", servers=(few,), prefix=False))
    return tmp_path


@contextlib.asynccontextmanager
async def gateway(home: Path, **settings: Any) -> AsyncIterator[str]:
    toolbox = Toolbox(Settings(home=str(home), tools_functions=("gateway_functions",)))
    async with listening(toolbox, **settings) as url:
        yield url


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_over_standard_streams(home: Path, mode: str) -> None:
    given = {"DOCKYARD_HOME": str(home), "DOCKYARD_TOOLS_FUNCTIONS": "gateway_functions", "PYTHONPATH": str(HERE)}
    command = StdioServerParameters(
        command=sys.executable, args=["-m", "dockyard", "mcp", "gateway", "run"], env={**os.environ, **given}
    )
    async with Client(command, mode=mode) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["sums__double", "sums__shout"]
        assert (await client.call_tool("sums__double", {"number": 21})).content[0].text == "42"
        assert (await client.call_tool("sums__shout", {"text": "a"})).content[0].text == "A"


def test_the_gateway_ends_with_its_client(home: Path) -> None:
    command = [sys.executable, "-m", "dockyard", "mcp", "gateway", "run"]
    environ = {**os.environ, "DOCKYARD_HOME": str(home)}
    done = subprocess.run(command, input=b"", capture_output=True, env=environ, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, b"")
    done = subprocess.run(
        [*command, "--profile", "nobody"], input=b"", capture_output=True, env=environ, timeout=60, check=False
    )
    assert done.returncode == 3
    assert b"nobody" in done.stderr


async def test_profiles_have_doors_of_their_own(home: Path) -> None:
    async with gateway(home) as url, Client(f"{url}/p/few/mcp") as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["double"]
        asked = await client.call_tool("double", {"number": 1})
        assert asked.is_error
        assert "approval" in asked.content[0].text
        assert asked.meta is not None
        assert asked.meta["dockyard/approval"]


async def test_unknown_things_are_said_in_words(home: Path) -> None:
    async with gateway(home) as url, httpx.AsyncClient() as http, Client(f"{url}/mcp") as client:
        gone = await http.post(f"{url}/p/nobody/mcp", json=BEGIN, headers=HEAD)
        assert gone.status_code == 404
        assert "nobody" in gone.json()["error"]["message"]
        wrong = await client.call_tool("sums__double", {"number": "many"})
        assert wrong.is_error
        assert "arguments of 'sums__double': number" in wrong.content[0].text
        with pytest.raises(Exception, match="no tool 'sums__dubble'"):
            await client.call_tool("sums__dubble", {"number": 1})


async def test_a_session_belongs_to_the_key_that_began_it(home: Path) -> None:
    keys = ("sk-ann-0123456789", "sk-ben-0123456789")
    async with gateway(home, api_keys=keys) as url, httpx.AsyncClient(headers=HEAD) as http:
        assert (await http.post(f"{url}/mcp", json=BEGIN)).status_code == 401
        ann, ben = ({"authorization": f"Bearer {key}"} for key in keys)
        begun = await http.post(f"{url}/mcp", json=BEGIN, headers=ann)
        assert begun.status_code == 200
        session = {"mcp-session-id": begun.headers["mcp-session-id"]}
        ping = {"jsonrpc": "2.0", "id": 2, "method": "ping"}
        assert (await http.post(f"{url}/mcp", json=ping, headers={**ann, **session})).status_code == 200
        assert (await http.post(f"{url}/mcp", json=ping, headers={**ben, **session})).status_code == 404
        assert (await http.post(f"{url}/p/few/mcp", json=ping, headers={**ann, **session})).status_code == 404
        assert (await http.delete(f"{url}/mcp", headers={**ben, **session})).status_code == 404
        assert (await http.delete(f"{url}/mcp", headers={**ann, **session})).status_code == 200
        assert (await http.post(f"{url}/mcp", json=ping, headers={**ann, **session})).status_code == 404


async def test_a_client_with_a_key(home: Path) -> None:
    async with gateway(home, api_keys=("sk-ann-0123456789",)) as url:
        http = httpx2.AsyncClient(headers={"authorization": "Bearer sk-ann-0123456789"})
        async with http, Client(streamable_http_client(f"{url}/mcp", http_client=http)) as client:
            assert (await client.call_tool("sums__double", {"number": 4})).content[0].text == "8"


async def test_an_era_that_nobody_speaks(home: Path) -> None:
    async with gateway(home) as url, httpx.AsyncClient(headers=HEAD) as http:
        prefix = "io.modelcontextprotocol"
        meta = {f"{prefix}/protocolVersion": "2031-01-01", f"{prefix}/clientCapabilities": {}}
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}
        told = await http.post(
            f"{url}/mcp", json=call, headers={"mcp-protocol-version": "2031-01-01", "mcp-method": "tools/list"}
        )
        assert told.status_code == 400
        assert told.json()["error"]["code"] == -32022
        assert "2026-07-28" in told.json()["error"]["data"]["supported"]
        assert (await http.post(f"{url}/mcp", content=b"{")).status_code == 400


async def test_foreign_pages_stay_out(home: Path) -> None:
    async with gateway(home) as url, httpx.AsyncClient(headers=HEAD) as http:
        for bad in ({"origin": "https://evil.example"}, {"host": "evil.example"}):
            assert (await http.post(f"{url}/mcp", json=BEGIN, headers=bad)).status_code == 403


async def test_tools_as_plain_json(home: Path) -> None:
    async with gateway(home) as url, httpx.AsyncClient(base_url=f"{url}/api/dockyard/mcp") as http:
        (before,) = (await http.get("/servers")).json()["servers"]
        assert (before["name"], before["state"]) == ("sums", "idle")
        tools = (await http.get("/tools", params={"profile": "few"})).json()["tools"]
        assert [(tool["id"], tool["server"]) for tool in tools] == [("double", "sums")]
        assert tools[0]["schema"]["properties"]["number"]["type"] == "integer"
        called = await http.post("/call", json={"tool": "sums__double", "arguments": {"number": 5}})
        assert called.json()["content"][0]["text"] == "10"
        (after,) = (await http.get("/servers")).json()["servers"]
        assert (after["state"], after["calls"] > 0) == ("ready", True)
        asked = await http.post("/call", json={"profile": "few", "tool": "double", "arguments": {"number": 5}})
        assert asked.status_code == 403
        assert asked.json()["error"]["code"] == "approval_required"
        assert (await http.post("/call", json={"tool": "sums__x"})).status_code == 404
        assert (await http.post("/call", json={"tool": "sums__double", "arguments": {"n": 1}})).status_code == 400


async def test_calls_of_one_conversation_share_what_came_in(home: Path) -> None:
    strange = Server(
        name="mail",
        kind="function",
        command=("gateway_functions:shout",),
        labels={"*": ("untrusted-in", "private-data")},
    )
    sends = Server(name="post", kind="function", command=("gateway_functions:double",), labels={"*": ("external-out",)})
    Profiles(home).put(Profile(name="default", servers=(Enabled(server=strange), Enabled(server=sends))))
    async with gateway(home) as url, httpx.AsyncClient(base_url=f"{url}/api/dockyard/mcp") as http:

        async def use(tool: str, conversation: str, **arguments: Any) -> int:
            body = {"tool": tool, "arguments": arguments, "conversation": conversation}
            return (await http.post("/call", json=body)).status_code

        assert await use("mail__shout", "one", text="a") == 200
        assert await use("post__double", "one", number=1) == 403
        assert await use("post__double", "two", number=1) == 200
        assert await use("post__double", "", number=1) == 200
