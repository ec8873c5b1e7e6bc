"""The short way of a modern client's call: the same answers as the package's, and whatever is special left to that."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import everything
import httpx
import pytest
from door_help import Inside, Spawned, hostile, inside, listening, toolbox_of
from mcp.server.lowlevel.server import Server as McpServer

from dockyard.tools import sdk_calls

pytestmark = pytest.mark.anyio

VERSION = "2026-07-28"
PREFIX = "io.modelcontextprotocol/"


def message(name: str, arguments: Any = None, **meta: Any) -> dict[str, Any]:
    envelope = {
        f"{PREFIX}protocolVersion": VERSION,
        f"{PREFIX}clientInfo": {"name": "test", "version": "1"},
        f"{PREFIX}clientCapabilities": {},
        **meta,
    }
    params = {"name": name, "arguments": arguments or {}, "_meta": envelope}
    return {"jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": params}


def headers(name: str, **more: str) -> dict[str, str]:
    return {
        "accept": "application/json, text/event-stream",
        "content-type": "application/json",
        "mcp-protocol-version": VERSION,
        "mcp-method": "tools/call",
        "mcp-name": name,
        **more,
    }


async def asked(url: str, body: Any, sent: dict[str, str]) -> tuple[int, str, Any]:
    async with httpx.AsyncClient(timeout=120) as client:
        found = await client.post(
            f"{url}/mcp", content=body if isinstance(body, bytes) else json.dumps(body), headers=sent
        )
    kind = found.headers.get("content-type", "").partition(";")[0]
    if kind == "text/event-stream":
        return (
            found.status_code,
            kind,
            [json.loads(line[6:]) for line in found.text.splitlines() if line[:6] == "data: "],
        )
    return found.status_code, kind, found.json()


def box(home: Path) -> Any:
    return toolbox_of(home, Inside({"everything": everything.make}), inside("everything"), prefix=False)


CASES: dict[str, tuple[Any, dict[str, str]]] = {
    "a call": (message("test_simple_text"), headers("test_simple_text")),
    "a tool that fails": (message("test_error_handling"), headers("test_error_handling")),
    "an unknown tool": (message("nothing"), headers("nothing")),
    "another name in the header": (message("test_simple_text"), headers("test_image_content")),
    "no envelope": (
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "test_simple_text"}},
        headers("test_simple_text"),
    ),
    "arguments that are a list": (
        {**message("x"), "params": {**message("x")["params"], "arguments": [1]}},
        headers("x"),
    ),
    "no JSON": (b"{", headers("x")),
    "a question that nobody answers": (message("test_sampling", {"prompt": "x"}), headers("test_sampling")),
    "a version of tomorrow": (message("x"), headers("x", **{"mcp-protocol-version": "2099-01-01"})),
    "an answer that is JSON only": (message("x"), headers("x", accept="application/json")),
}


@pytest.mark.parametrize("case", [name for name in CASES if name != "an answer that is JSON only"])
async def test_both_ways_answer_the_same(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body, sent = CASES[case]
    async with listening(box(tmp_path)) as url:
        await asked(url, message("test_simple_text"), headers("test_simple_text"))  # what starts slowly is a stream
        short = await asked(url, body, sent)
        monkeypatch.setattr(sdk_calls, "is_for_us", lambda _headers: False)
        assert short == await asked(url, body, sent)


async def legacy(url: str, name: str) -> Any:
    """The answer to a call of a client of the older era, as it is on the wire."""
    sent = {"accept": "application/json, text/event-stream"}
    who = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    async with httpx.AsyncClient(timeout=120, headers=sent) as client:
        begun = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": who}
        first = await client.post(f"{url}/mcp", json=begun)
        session = {"mcp-session-id": first.headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
        await client.post(f"{url}/mcp", json={"jsonrpc": "2.0", "method": "notifications/initialized"}, headers=session)
        called = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": name, "arguments": {}}}
        found = await client.post(f"{url}/mcp", json=called, headers=session)
    (last,) = [json.loads(line[6:]) for line in found.text.splitlines() if line[:7] == "data: {"]
    return last["result"]


async def test_fields_that_the_protocol_does_not_name_are_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = {"type": "text", "text": "x", "language": "en", "_meta": {"n": 1}}
    async with listening(toolbox_of(tmp_path, Spawned(), hostile(), prefix=False)) as url:
        await asked(url, message("ok"), headers("ok"))
        short = await asked(url, message("further"), headers("further"))
        monkeypatch.setattr(sdk_calls, "is_for_us", lambda _headers: False)
        assert await asked(url, message("further"), headers("further")) == short
        old = await legacy(url, "further")
    new = short[2]["result"]
    assert new["_meta"].pop(f"{PREFIX}serverInfo")["name"] == "dockyard"
    assert new.pop("resultType") == "complete"
    for one in (new, old):
        assert one["content"] == [block]
        assert one["further"] == {"a": [1]}
        assert one["_meta"] == {"evil.example/trace": "t"}
        assert one.keys() <= {"content", "isError", "further", "_meta"}


async def test_what_is_said_before_the_answer_makes_it_a_stream(tmp_path: Path) -> None:
    async with listening(box(tmp_path)) as url:
        body = message("test_tool_with_progress", progressToken="p")
        status, kind, seen = await asked(url, body, headers("test_tool_with_progress"))
    assert (status, kind) == (200, "text/event-stream")
    *told, last = seen
    assert [one["params"]["progress"] for one in told] == [0, 50, 100]
    assert {one["params"]["progressToken"] for one in told} == {"p"}
    assert last["id"] == "a"
    assert "result" in last


async def test_a_client_that_hangs_up_cancels(tmp_path: Path) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    def make() -> Any:
        import mcp_types as types

        async def listed(_context: Any, _params: Any) -> Any:
            return types.ListToolsResult(tools=[types.Tool(name="wait", input_schema={"type": "object"})])

        async def called(_context: Any, _params: Any) -> Any:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

        return McpServer("slow", on_list_tools=listed, on_call_tool=called)

    tools = toolbox_of(tmp_path, Inside({"slow": make}), inside("slow"), prefix=False)
    async with listening(tools) as url:
        work = asyncio.create_task(asked(url, message("wait"), headers("wait")))
        async with asyncio.timeout(20):
            await begun.wait()
            work.cancel()
            await cancelled.wait()
        await asyncio.gather(work, return_exceptions=True)


def test_arguments_in_headers_are_left_to_the_package() -> None:
    body = json.dumps(message("x", {"a": 1})).encode()
    pairs = [(name.encode(), value.encode()) for name, value in headers("x").items()]
    plain = {"type": "object", "properties": {"a": {"type": "integer"}}}
    mirrored = {"type": "object", "properties": {"a": {"type": "integer", "x-mcp-header": "A"}}}
    assert sdk_calls.read(body, pairs, lambda _name: plain) is not None
    assert sdk_calls.read(body, pairs, lambda _name: mirrored) is None
    assert sdk_calls.read(body, [*pairs, (b"mcp-param-a", b"1")], lambda _name: plain) is None
    assert sdk_calls.read(body, [*pairs, (b"mcp-name", b"x")], lambda _name: plain) is None
