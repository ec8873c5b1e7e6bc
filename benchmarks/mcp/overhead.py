"""What the gateway adds to a warm call: the SDK's client, through Dockyard and straight, to one and the same server.

The server is the SDK's own over HTTP on loopback, in a process of its own; so is the gateway, with all its safety on.
Blocks of calls alternate between the two ways, and the difference of the medians of each pair of blocks is a sample.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from benchmarks._bars import Row, main, median, spread
from benchmarks.mcp._serving import dockyard, program
from dockyard.tools.model import Enabled, Profile, Sandbox, Server

BAR = 2.0
BLOCKS = 10
CALLS = 150
WARM = 50


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder, program("-m", "benchmarks.mcp._bare", "http") as (_, bare):
        remote = Server(name="bare", kind="remote", url=bare)
        piped = Server(
            name="piped",
            kind="process",
            command=(sys.executable, "-m", "benchmarks.mcp._bare", "stdio"),
            env={"PYTHONPATH": str(Path.cwd())},
            sandbox=Sandbox(read=(str(Path(__file__).parents[1]),)),
        )
        profiles = [Profile(name=one.name, servers=(Enabled(server=one),)) for one in (remote, piped)]
        with dockyard(Path(folder), *profiles, tools_private=["127.0.0.1"]) as (_process, url):
            for mode, bar in (("auto", BAR), ("legacy", None)):
                era = "2026-07-28" if mode == "auto" else "2025-11-25"
                added, straight = asyncio.run(measured(f"{url}/p/bare/mcp", bare, mode))
                met = None if bar is None else median(added) < bar
                told = f"{spread(added, '.2f')} ms on top of {median(straight):.2f} ms"
                yield Row(f"p50 added to a warm call, {era}", told, f"< {BAR:g} ms" if bar else "said", met)
            added, straight = asyncio.run(measured(f"{url}/p/piped/mcp", bare, "auto"))
            told = f"{spread(added, '.2f')} ms on top of {median(straight):.2f} ms"
            yield Row("the same with a sandboxed server on pipes behind it", told, "said", None)


async def measured(gateway: str, bare: str, mode: str) -> tuple[list[float], list[float]]:
    """Milliseconds that the gateway added, and those of the straight way, a figure a pair of blocks."""
    added, straight = [], []
    async with client(gateway, mode) as (through, names), client(bare, mode) as (direct, plain):
        for _ in range(2):
            await block(through, names, WARM)
            await block(direct, plain, WARM)
        for turn in range(BLOCKS):
            if turn % 2:
                behind, short = await block(through, names, CALLS), await block(direct, plain, CALLS)
            else:
                short, behind = await block(direct, plain, CALLS), await block(through, names, CALLS)
            added.append(behind - short)
            straight.append(short)
    return added, straight


@contextlib.asynccontextmanager
async def client(url: str, mode: Any) -> AsyncIterator[tuple[Any, str]]:
    """A client of the SDK, and what it calls the tool."""
    from mcp import Client

    async with Client(url, mode=mode) as found:
        (tool,) = (await found.list_tools()).tools
        yield found, tool.name


async def block(one: Any, name: str, calls: int) -> float:
    """The median of the calls, in milliseconds."""
    took = []
    for number in range(calls):
        began = time.perf_counter()
        answer = await one.call_tool(name, {"a": number, "b": 1})
        took.append((time.perf_counter() - began) * 1e3)
        assert answer.content[0].text == str(number + 1)
    return median(took)


if __name__ == "__main__":
    sys.exit(main({"overhead": rows}))
