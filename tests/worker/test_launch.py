"""A worker started ahead of the need: taken once, thrown away if nobody wants it, its output where it belongs."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from dockyard import cli, engines
from dockyard.engines import launch
from dockyard.fleet.worker_process import WorkerProcess
from dockyard.hardware import detect
from dockyard.settings import Settings
from dockyard.types import LoadOptions, Message, Request

pytestmark = pytest.mark.anyio


async def test_a_spare_is_taken_by_the_next_worker(tmp_path: Path) -> None:
    files = engines.builtin("echo-worker")
    assert files is not None
    plan = engines.create("echo-worker").plan(files, LoadOptions(), Settings(), detect())
    launch.prepare("echo-worker")
    spare = the_spare()
    worker = WorkerProcess(files, plan, tmp_path / "logs" / "worker.log")
    await worker.start()
    try:
        assert worker.pid == spare.pid
        assert (tmp_path / "logs" / "worker.log").exists(), "its output goes to the model's log from now on"
        request = Request(id="r1", messages=(Message(role="user", content="two words"),))
        text = "".join([chunk.text async for chunks in worker.generate(request) for chunk in chunks])
        assert text == "two words"
        assert launch.take() is None
    finally:
        await worker.stop()
    assert not spare.is_running()


def the_spare() -> psutil.Process:
    """The kernel tells a program's arguments a moment after it has begun."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        for process in psutil.Process().children():
            if "dockyard.engines.worker" in process.cmdline():
                return process
    raise AssertionError("no spare was started")


async def test_a_spare_that_nobody_took_is_ended() -> None:
    launch.prepare("llamacpp")
    spare = the_spare()
    launch.discard()
    assert not spare.is_running()


async def test_a_spare_that_died_is_not_taken() -> None:
    launch.prepare("llamacpp")
    spare = the_spare()
    spare.kill()
    spare.wait()
    assert launch.take() is None


def test_a_start_that_is_refused_leaves_no_spare(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.call(["serve", "--host", "0.0.0.0", "--model", "echo"]) == 2
    assert "no keys" in capsys.readouterr().err
    assert not [p for p in psutil.Process().children() if "dockyard.engines.worker" in p.cmdline()]
