"""Names outside, messages out of bytes, and calls that are parked: parts that need no server."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.message import SessionMessage

from dockyard.errors import InvalidRequest, Overloaded
from dockyard.tools.bridge import Asking, Parking
from dockyard.tools.naming import outside
from dockyard.tools.sdk_check import flaw
from dockyard.tools.sdk_lines import Lines, Pipe

words = st.text(min_size=1, max_size=90)
pairs = st.lists(st.tuples(st.sampled_from(["a", "a_b", "files", "x" * 70]), words), unique=True, max_size=12)


@given(pairs)
def test_names_are_unique_and_fit_for_every_client(found: list[tuple[str, str]]) -> None:
    names = outside(found, prefix=True)
    assert len(set(names)) == len(found)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in names)
    assert names == outside(found, prefix=True)


def test_without_prefix_only_shared_names_get_one() -> None:
    found = [("git", "log"), ("git", "status"), ("ci", "status")]
    assert outside(found, prefix=False) == ["log", "git__status", "ci__status"]


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=3), max_size=5), st.data())
def test_messages_survive_any_cut_of_the_stream(results: list[Any], data: st.DataObject) -> None:
    sent = [{"jsonrpc": "2.0", "id": number, "result": result} for number, result in enumerate(results)]
    stream = b"Welcome!\n" + b"".join(json.dumps(one).encode() + b"\n" for one in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    lines, got = Lines(), []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += lines.feed(stream[begin:end])
    assert [one.message.result for one in got if isinstance(one, SessionMessage)] == results


@pytest.mark.parametrize("order", ["id first", "id last"])
def test_what_is_too_large_fails_only_its_own_call(order: str) -> None:
    big = b'"' + b"x" * 5000 + b'"'
    whole = (
        b'{"jsonrpc":"2.0","id":7,"result":{"t":' + big + b"}}\n"
        if order == "id first"
        else b'{"result":{"t":' + big + b'},"jsonrpc":"2.0","id":7}\n'
    )
    lines = Lines(limit=1000)
    got = [message for part in range(0, len(whole), 100) for message in lines.feed(whole[part : part + 100])]
    (told,) = got
    assert isinstance(told, SessionMessage)
    assert told.message.id == 7
    assert f"{len(whole) - 1} bytes; 1000 are allowed" in told.message.error.message
    (fine,) = lines.feed(b'{"jsonrpc":"2.0","id":8,"result":{}}\n')
    assert fine.message.id == 8


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_closed_pipe_is_the_end_of_the_connection(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def asked() -> dict[str, Any]:
        process = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE)
        assert process.stdin is not None
        process.stdin.transport.abort()
        await process.wait()
        return await Pipe(process.stdin).ask("tools/call", {}, {})

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(asked())["error"]["message"] == "Connection closed"


def test_a_flaw_names_the_place_and_not_the_content() -> None:
    told = flaw("tools/call", {"content": [{"type": "text", "text": {"secret": "hunter2"}}]})
    assert told is not None
    assert told.startswith("content.0")
    assert "hunter2" not in told
    assert flaw("tools/call", {"content": [{"type": "text", "text": "x"}]}) is None
    assert flaw("tools/list", {"tools": [], "resultType": "input_required"}) is not None


def _question(asking: Asking) -> Any:
    async def work() -> dict[str, Any]:
        assert asking.ask is not None
        return {"told": await asking.ask("elicitation/create", {"message": "?"})}

    return work


@pytest.mark.anyio
async def test_parked_calls_are_bounded_and_expire() -> None:
    parking = Parking(seconds=0.2, most=2)
    parked = []
    for number in range(2):
        asking = Asking(relays=True)
        parked.append(await parking.begin("me", [number], asking, _question(asking)))
    asking = Asking(relays=True)
    with pytest.raises(Overloaded):
        await parking.begin("me", [3], asking, _question(asking))
    again = Asking(relays=True, state=parked[0]["requestState"], responses={"q1": {"action": "accept"}})
    assert await parking.resume("me", [0], again) == {"told": {"action": "accept"}}
    with pytest.raises(InvalidRequest):  # once
        await parking.resume("me", [0], again)
    other = Asking(relays=True, state=parked[1]["requestState"], responses={"q1": {}})
    with pytest.raises(InvalidRequest):
        await parking.resume("you", [1], other)
    await asyncio.sleep(0.4)
    assert len(parking) == 0
    with pytest.raises(InvalidRequest):
        await parking.resume("me", [1], other)
    await parking.close()
