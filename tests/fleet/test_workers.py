"""The fleet over real worker processes of the echo engine: killed, crowded, closed; and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from dockyard.errors import Overloaded, WorkerCrashed
from dockyard.fleet import Fleet, RestartPolicy
from dockyard.settings import Settings
from dockyard.types import LoadOptions, Message, Request

pytestmark = pytest.mark.anyio


def request(number: int, text: str) -> Request:
    return Request(id=f"r{number}", messages=(Message(role="user", content=text),))


def workers() -> list[psutil.Process]:
    """Workers of fleets in this process. A fleet's worker is its child: those of a command of another test are not."""
    found = []
    for child in psutil.Process().children():
        try:
            if "dockyard.engines.worker" in child.cmdline():
                found.append(child)
        except psutil.Error:
            continue
    return found


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@asynccontextmanager
async def fleet_of(home: Path, **settings: object) -> AsyncIterator[Fleet]:
    fleet = Fleet(Settings(home=str(home), **settings), None, restarts=RestartPolicy(base=0.01))
    await fleet.start()
    try:
        yield fleet
    finally:
        await fleet.close(drain=1.0)
    assert workers() == []
    assert fleet.schedule.ledger.charged == 0


async def say(fleet: Fleet, number: int, text: str) -> str:
    lease = await fleet.lease("echo-worker")
    try:
        return "".join([c.text async for chunks in lease.generate(request(number, text)) for c in chunks])
    finally:
        lease.release()


async def test_fifty_kills_in_the_middle_of_an_answer(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, echo_tokens_per_second=400) as fleet:
        words = " ".join(f"w{n}" for n in range(4000))  # ten seconds of it: no pause of a busy machine outlasts them
        assert await say(fleet, 0, "ready") == "ready"
        before = descriptors()
        for number in range(1, 51):
            leases = [await fleet.lease("echo-worker") for _ in range(3)]
            streams = [lease.generate(request(number * 10 + n, words)) for n, lease in enumerate(leases)]
            await asyncio.gather(*(anext(stream) for stream in streams))
            pid = leases[0].model.pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            for stream, lease in zip(streams, leases, strict=True):
                with pytest.raises(WorkerCrashed, match="SIGKILL"):
                    async for _ in stream:
                        pass
                lease.release()
            if number % 5 == 0:
                assert await say(fleet, number * 10 + 5, "still here") == "still here"
        assert await say(fleet, 1000, "and after all") == "and after all"
        (row,) = fleet.models()
        assert (row.restarts, row.active, row.queued, row.state) == (50, 0, 0, "ready")
        assert len(fleet.schedule.ledger) == 1
        assert len(workers()) == 1
        assert descriptors() <= before + 2


async def test_a_crowd_on_one_worker(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, parallel=4) as fleet:
        answers = await asyncio.gather(*(say(fleet, n, f"number {n} of many") for n in range(200)))
        assert answers == [f"number {n} of many" for n in range(200)]
        assert len(workers()) == 1


async def test_clients_that_hang_up_free_their_places(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, parallel=4, echo_tokens_per_second=100) as fleet:
        tasks = [asyncio.create_task(say(fleet, n, "word " * 500)) for n in range(40)]
        async with asyncio.timeout(30):
            while [row.active for row in fleet.models()] != [4]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(30):
            assert await say(fleet, 99, "free") == "free"
        assert fleet.models()[0].active == 0


async def test_a_worker_that_dies_while_it_is_idle_is_back_before_anyone_asks(tmp_path: Path) -> None:
    async with fleet_of(tmp_path) as fleet:
        await say(fleet, 1, "x")
        (worker,) = workers()
        worker.kill()
        async with asyncio.timeout(5):
            while [row.state for row in fleet.models()] != ["ready"] or fleet.models()[0].restarts != 1:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert [w.pid for w in workers()] != [worker.pid]


async def test_a_load_that_dies_tells_what_it_logged(tmp_path: Path) -> None:
    async with fleet_of(tmp_path) as fleet:
        options = LoadOptions(flags={"fault_on_load": "exit"})
        with pytest.raises(Exception, match=r"exit status 3.*about to exit while loading"):
            await fleet.preload("echo-worker", options)
        assert workers() == []
        assert fleet.schedule.ledger.charged == 0
        assert any("about to exit" in line for line in fleet.logs())


async def test_closing_ends_workers_with_answers_under_way(tmp_path: Path) -> None:
    async with fleet_of(tmp_path, echo_tokens_per_second=5) as fleet:
        lease = await fleet.lease("echo-worker")
        stream = lease.generate(request(1, "a b c d e f g h i j k l m n o p q r s t u v w x y z"))
        await anext(stream)
        await fleet.close(drain=0.1)
        with pytest.raises((Overloaded, WorkerCrashed)):
            async for _ in stream:
                pass
        lease.release()
