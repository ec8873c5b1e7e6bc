"""All four pairs of protocol eras, client and server: what a tool may want of its client in the middle of a call."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import everything
import mcp_types as types
import pytest
from door_help import Inside, inside, listening, toolbox_of
from mcp import Client
from mcp.shared.exceptions import MCPError

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),
]

ERAS = [(client, old) for client in ("legacy", "auto") for old in (False, True)]
pairs = pytest.mark.parametrize(("client_era", "old"), ERAS)


async def elicited(context: Any, params: Any) -> types.ElicitResult:
    if "fields" in params.message:
        return types.ElicitResult(action="decline")
    field = next(iter(params.requested_schema["properties"]))
    return types.ElicitResult(action="accept", content={field: f"<{params.message}>"})


async def sampled(context: Any, params: Any) -> types.CreateMessageResult:
    words = params.messages[0].content.text
    return types.CreateMessageResult(
        role="assistant", content=types.TextContent(type="text", text=f"re: {words}"), model="m", stop_reason="endTurn"
    )


async def rooted(context: Any) -> types.ListRootsResult:
    return types.ListRootsResult(roots=[types.Root(uri="file:///home/me", name="me")])


@contextlib.asynccontextmanager
async def connected(home: Path, client_era: str, old: bool, **options: Any) -> AsyncIterator[tuple[Client, Inside]]:
    runner = Inside({"everything": everything.make}, legacy=old)
    async with listening(toolbox_of(home, runner, inside("everything"), prefix=False)) as url:
        async with Client(f"{url}/mcp", mode=client_era, **options) as client:
            yield client, runner


def words(result: Any) -> str:
    return str(result.content[0].text)


@pairs
async def test_a_tool_asks_its_client(tmp_path: Path, client_era: str, old: bool) -> None:
    callbacks = {"elicitation_callback": elicited, "sampling_callback": sampled, "list_roots_callback": rooted}
    async with connected(tmp_path, client_era, old, **callbacks) as (client, _):
        answered = await client.call_tool("test_elicitation", {"message": "color"})
        assert words(answered) == 'User response: action=accept, content={"response": "<color>"}'
        assert words(await client.call_tool("test_sampling", {"prompt": "hi"})) == "LLM response: re: hi"
        roots = await client.call_tool("test_input_required_result_list_roots", {})
        assert words(roots) == "Roots: ['file:///home/me']"
        prompt = await client.get_prompt("test_input_required_result_prompt")
        assert "What context should the prompt use?" in prompt.messages[0].content.text


@pairs
async def test_many_at_once_get_their_own_answers(tmp_path: Path, client_era: str, old: bool) -> None:
    """A legacy server does not say whose call its question is about: those that ask get a session for each caller."""
    async with connected(tmp_path, client_era, old, elicitation_callback=elicited) as (client, runner):
        await client.call_tool("test_elicitation", {"message": "first"})
        names = [f"color {number}" for number in range(5)]
        answers = await asyncio.gather(*(client.call_tool("test_elicitation", {"message": name}) for name in names))
        for name, answer in zip(names, answers, strict=True):
            assert f"<{name}>" in words(answer)
        assert runner.running <= 8


@pairs
async def test_a_client_that_cannot_be_asked(tmp_path: Path, client_era: str, old: bool) -> None:
    async with connected(tmp_path, client_era, old) as (client, _):
        if client_era == "legacy" and old:
            # The old server learns of it as the answer to its question, and words it itself.
            with pytest.raises(MCPError, match="sampling"):
                await client.call_tool("test_sampling", {"prompt": "hi"})
        else:
            with pytest.raises(MCPError) as failure:
                await client.call_tool("test_sampling", {"prompt": "hi"})
            assert failure.value.code == types.MISSING_REQUIRED_CLIENT_CAPABILITY
            assert failure.value.data == {"requiredCapabilities": {"sampling": {}}}
        assert "simple text" in words(await client.call_tool("test_simple_text", {}))


@pairs
async def test_progress_and_logs_come_before_the_result(tmp_path: Path, client_era: str, old: bool) -> None:
    steps: list[float] = []
    logs: list[str] = []

    async def progressed(done: float, total: float | None, text: str | None) -> None:
        steps.append(done)

    async def logged(params: Any) -> None:
        logs.append(params.data)

    options = {"logging_callback": logged, "log_level": "debug"}
    async with connected(tmp_path, client_era, old, **options) as (client, _):
        await client.call_tool("test_tool_with_progress", {}, progress_callback=progressed)
        await client.call_tool("test_tool_with_logging", {})
    assert steps == [0, 50, 100]
    assert logs == ["Tool execution started", "Tool processing data", "Tool execution completed"]


@pairs
async def test_what_a_client_gives_up_ends_at_the_server(tmp_path: Path, client_era: str, old: bool) -> None:
    async with connected(tmp_path, client_era, old) as (client, runner):
        with pytest.raises(MCPError, match="timed out"):
            await client.call_tool("test_slow", {}, read_timeout_seconds=0.3)
        assert "simple text" in words(await client.call_tool("test_simple_text", {}))
        assert runner.started == 1


@pytest.mark.parametrize("old", [False, True])
async def test_a_modern_client_listens(tmp_path: Path, old: bool) -> None:
    async with connected(tmp_path, "auto", old) as (client, _):
        await client.list_tools()
        uri = "test://watched-resource"
        async with client.listen(tools_list_changed=True, resource_subscriptions=[uri]) as stream:
            await asyncio.sleep(0.2)
            await client.call_tool("test_trigger_tool_change", {})
            assert type(await anext(stream)).__name__ == "ToolsListChanged"
            await client.call_tool("test_trigger_resource_change", {})
            assert (await anext(stream)).uri == uri


@pytest.mark.parametrize("old", [False, True])
async def test_a_legacy_client_is_told(tmp_path: Path, old: bool) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def told(message: Any) -> None:
        if hasattr(message, "method"):
            heard.put_nowait(message.method)

    async with connected(tmp_path, "legacy", old, message_handler=told) as (client, _):
        await client.list_tools()
        await asyncio.sleep(0.2)
        await client.call_tool("test_trigger_prompt_change", {})
        assert await asyncio.wait_for(heard.get(), 5) == "notifications/prompts/list_changed"
        await client.subscribe_resource("test://watched-resource")
        await asyncio.sleep(0.1)
        await client.call_tool("test_trigger_resource_change", {})
        assert await asyncio.wait_for(heard.get(), 5) == "notifications/resources/updated"
        await client.unsubscribe_resource("test://watched-resource")


async def test_a_parked_call_belongs_to_its_caller(tmp_path: Path) -> None:
    async with connected(tmp_path, "auto", old=True, elicitation_callback=elicited) as (client, _):
        asked = await client.session.call_tool("test_elicitation", {"message": "a"}, allow_input_required=True)
        assert asked.input_requests
        name = next(iter(asked.input_requests))
        answer = {name: types.ElicitResult(action="accept", content={"response": "x"})}
        for tool, state in (("test_sampling", asked.request_state), ("test_elicitation", "dockyard1.made-up")):
            with pytest.raises(MCPError, match="requestState"):
                await client.session.call_tool(
                    tool,
                    {"prompt": "a"} if tool == "test_sampling" else {"message": "a"},
                    input_responses=answer,
                    request_state=state,
                    allow_input_required=True,
                )
        done = await client.session.call_tool(
            "test_elicitation",
            {"message": "a"},
            input_responses=answer,
            request_state=asked.request_state,
            allow_input_required=True,
        )
        assert words(done) == 'User response: action=accept, content={"response": "x"}'
