"""Sessions stay warm, belong to one owner, end when idle, and leave nothing behind however they end."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import psutil
import pytest
from door_help import ME, Spawned, hostile, toolbox_of

from dockyard.errors import Overloaded
from dockyard.tools.model import ToolFailed
from dockyard.tools.pool import Limits
from dockyard.types import Principal

pytestmark = pytest.mark.anyio

PATIENT = hostile(call_seconds=30.0)


async def test_one_process_for_many_calls(tmp_path: Path) -> None:
    runner = Spawned()
    box = toolbox_of(tmp_path, runner, PATIENT)
    try:
        session = box.session(ME)
        told = [(await box.call(session, "hostile__ok", {})).text for _ in range(5)]
        told += [one.text for one in await asyncio.gather(*(box.call(session, "hostile__ok", {}) for _ in range(5)))]
        assert told == [f"call {number}" for number in range(1, 11)]
        assert len(runner.pids) == 1
    finally:
        await box.close()


async def test_owners_do_not_share_a_process(tmp_path: Path) -> None:
    runner = Spawned()
    box = toolbox_of(tmp_path, runner, PATIENT)
    try:
        for name in ("ann", "ben", "ann"):
            await box.call(box.session(Principal(name=name)), "hostile__ok", {})
        assert len(runner.pids) == 2
        assert (await box.call(box.session(Principal(name="ben")), "hostile__ok", {})).text == "call 2"
    finally:
        await box.close()


async def test_more_owners_than_sessions_take_turns(tmp_path: Path) -> None:
    runner = Spawned()
    box = toolbox_of(tmp_path, runner, hostile(call_seconds=30.0), limits=Limits(most=2))
    try:
        for name in ("ann", "ben", "cid"):
            await box.call(box.session(Principal(name=name)), "hostile__ok", {})
        assert len(runner.pids) == 3
        assert not psutil.pid_exists(runner.pids[0])
        slow = [
            asyncio.create_task(box.call(box.session(Principal(name=name)), "hostile__silence", {}))
            for name in ("ben", "cid")
        ]
        await asyncio.sleep(0.2)
        with pytest.raises(Overloaded, match="all at work"):
            await box.call(box.session(Principal(name="ann")), "hostile__ok", {})
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
    finally:
        await box.close()


async def test_what_is_idle_ends_and_is_started_again(tmp_path: Path) -> None:
    runner = Spawned()
    box = toolbox_of(tmp_path, runner, PATIENT, limits=Limits(idle_seconds=0.2))
    try:
        session = box.session(ME)
        await box.call(session, "hostile__ok", {})
        for _ in range(100):
            await asyncio.sleep(0.05)
            if not psutil.pid_exists(runner.pids[0]):
                break
        assert (await box.status())[0]["state"] == "idle"
        assert next(tool.name for tool in await box.tools(session)) == "ok"
        assert len(runner.pids) == 1  # the list was known
        assert (await box.call(session, "hostile__ok", {})).text == "call 1"
        assert len(runner.pids) == 2
    finally:
        await box.close()


async def test_calls_among_random_kills(tmp_path: Path) -> None:
    """Each call has an answer or a failure that names the server; no process stays."""
    runner, dice = Spawned(), random.Random(4)
    box = toolbox_of(tmp_path, runner, hostile("child", call_seconds=30.0))
    session = box.session(ME)
    answered = 0
    failures: list[str] = []
    children: set[int] = set()
    try:
        for _ in range(150):
            if dice.random() < 0.15 and runner.pids and psutil.pid_exists(runner.pids[-1]):
                children |= {child.pid for child in psutil.Process(runner.pids[-1]).children(recursive=True)}
                os.kill(runner.pids[-1], 9)
            try:
                async with asyncio.timeout(10):
                    answered += bool((await box.call(session, "hostile__ok", {})).text)
            except ToolFailed as error:
                failures.append(error.message)
        assert answered + len(failures) == 150
        assert answered > 100
        assert all("'hostile'" in failure for failure in failures)
    finally:
        await box.close()
    assert len(runner.pids) > 5
    assert not [pid for pid in {*runner.pids, *children} if _lives(pid)]


async def test_a_failing_server_rests_longer_each_time(tmp_path: Path) -> None:
    runner = Spawned()
    box = toolbox_of(tmp_path, runner, hostile("dead"), limits=Limits(first_pause=100))
    try:
        await box.tools(box.session(ME))
        starts = len(runner.pids)
        await box.tools(box.session(ME))
        assert len(runner.pids) == starts
        (status,) = await box.status()
        assert status["state"] == "failed"
        assert "ended while it started" in status["reason"]
    finally:
        await box.close()


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
