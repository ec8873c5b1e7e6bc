"""A thousand calls while servers are killed at random: every call has its own answer or a clear error, nothing stays.

Four clients of the SDK call through the gateway's HTTP door three servers: two sandboxed processes and, where this
machine can start a container engine of its own, one in a container. A killer picks any process of theirs (server,
sandbox, container's command line) and sends SIGKILL. In the end the gateway is told to stop, and what is left counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks._bars import Row, main
from benchmarks.mcp._serving import ROOT, dockyard
from dockyard.tools.model import Enabled, Profile, Sandbox, Server

CALLS = 1000
CLIENTS = 4
PAUSE = 0.4
"""Seconds between kills, on average."""
SCRIPT = ROOT / "tests" / "tools_runners" / "plain_server.py"


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        script = Path(folder) / f"server_{os.getpid()}.py"
        shutil.copy(SCRIPT, script)
        python = next(path for path in ("/usr/bin/python3", sys.executable) if Path(path).exists())
        box = Sandbox(read=(str(script),))
        servers = [
            Server(name=name, kind="process", command=(python, str(script)), sandbox=box) for name in ("one", "two")
        ]
        engine = stack.enter_context(containers())
        if engine is not None:
            image, command = engine.image, ("python3", str(script))
            servers.append(Server(name="boxed", kind="container", image=image, command=command, sandbox=box))
        profile = Profile(name="default", servers=tuple(Enabled(server=one) for one in servers))
        environ = {} if engine is None else engine.environ
        with patched(environ), dockyard(Path(folder) / "home", profile) as (_, url):
            seen = asyncio.run(exercise(url, [one.name for one in servers], script.name))
        yield from judged(seen, engine)
        left = settled(lambda: processes(script.name))
        boxes = settled(lambda: engine.left()) if engine is not None else []
        told = f"{len(left)} processes, {len(boxes)} containers of {seen['kills']} kills"
        where = "processes and containers" if engine is not None else "processes; no engine can be started here"
        yield Row(f"left when the gateway has ended ({where})", told, "nothing", not left and not boxes)


def judged(seen: Counter[str], engine: Any) -> Iterator[Row]:
    replies = seen["answered"] + seen["told"]
    told = f"{seen['answered']} answered, {seen['told']} clear errors, {seen['unclear']} unclear, {seen['wrong']} wrong"
    yield Row(
        f"{CALLS} calls among {seen['kills']} kills",
        f"{told}, {seen['lost']} lost, {seen['late']} after 30 s",
        "each one its answer or an error that names its server",
        replies == CALLS and seen["kills"] > CALLS / 50,
    )
    if engine is None:
        yield Row("with containers", "no engine can be started here", "said", None)


async def exercise(url: str, names: list[str], mark: str) -> Counter[str]:
    from mcp import Client

    seen: Counter[str] = Counter()
    dice = random.Random(11)
    async with contextlib.AsyncExitStack() as stack:
        modes: list[Any] = ["auto", "legacy"]
        clients = [await stack.enter_async_context(Client(f"{url}/mcp", mode=modes[at % 2])) for at in range(CLIENTS)]
        for one in clients:
            await one.list_tools()
        for name in names:  # all of them run before the first is killed
            await clients[0].call_tool(f"{name}__echo", {"text": "first"})
        killer = asyncio.create_task(kill(mark, dice, seen))
        await asyncio.gather(
            *(calls(one, at, range(at, CALLS, CLIENTS), names, seen) for at, one in enumerate(clients))
        )
        killer.cancel()
        await asyncio.gather(killer, return_exceptions=True)
    return seen


async def calls(client: Any, at: int, numbers: range, names: list[str], seen: Counter[str]) -> None:
    dice = random.Random(at)
    for number in numbers:
        name, text = dice.choice(names), f"text {number}"
        try:
            async with asyncio.timeout(30):
                answer = await client.call_tool(f"{name}__echo", {"text": text})
        except TimeoutError:
            seen["late"] += 1
            continue
        except Exception as error:  # noqa: BLE001 - whatever a client gets is counted
            print("lost:", type(error).__name__, error, file=sys.stderr)
            seen["lost"] += 1
            continue
        said = answer.content[0].text if answer.content else ""
        if not answer.is_error:
            seen["answered" if said == text else "wrong"] += 1
        elif f"server '{name}'" in said:
            seen["told"] += 1
            await asyncio.sleep(0.05)
        else:
            print("unclear:", said, file=sys.stderr)
            seen["unclear"] += 1
        await asyncio.sleep(dice.uniform(0, 0.03))


async def kill(mark: str, dice: random.Random, seen: Counter[str]) -> None:
    while True:
        await asyncio.sleep(dice.expovariate(1 / PAUSE))
        if there := processes(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(dice.choice(there), signal.SIGKILL)
                seen["kills"] += 1


def processes(mark: str) -> list[int]:
    """Processes of whatever namespace that have the mark in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (path / "cmdline").read_bytes()
            if mark.encode() in words and b"benchmarks" not in words and int(path.name) != os.getpid():
                found.append(int(path.name))
    return found


def settled(count: Any) -> list[Any]:
    """What is still there after a while: a slow machine's engine takes its time to remove."""
    end = time.monotonic() + 15
    while (left := count()) and time.monotonic() < end:
        time.sleep(0.2)
    return list(left)


class Containers:
    """An engine of the benchmark's own, as the tests start one, with one image."""

    def __init__(self, engine: Any, image: str) -> None:
        self.environ: dict[str, str] = {key: engine.environ[key] for key in ("DOCKER_HOST", "DOCKER_CONFIG")}
        self.image = image
        self._engine = engine

    def left(self) -> list[str]:
        told: str = self._engine.docker("ps", "--all", "--quiet", "--filter", "label=dockyard.tool")
        return told.split()


@contextlib.contextmanager
def containers() -> Iterator[Containers | None]:
    sys.path.append(str(ROOT / "tests"))
    from container import engine as engines  # type: ignore[import-not-found]

    if engines.missing():
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        running = engines.start("run", Path(folder))
        try:
            running.docker("import", str(engines.rootfs()), engines.BASE)
            yield Containers(running, engines.BASE)
        finally:
            engines.stop(Path(folder))


@contextlib.contextmanager
def patched(values: dict[str, str]) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


if __name__ == "__main__":
    sys.exit(main({"kills": rows}))
