"""A worker started ahead of the need: taken once, thrown away if nobody wants it, its output where it belongs."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from dockyard import engines
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


@pytest.mark.parametrize(
    ("flags", "said"), [(["--host", "0.0.0.0", "--model", "echo"], "no keys"), (["--model", "echo", "--modl"], "modl")]
)
def test_a_start_that_is_refused_leaves_no_spare(flags: list[str], said: str) -> None:
    process = subprocess.Popen([sys.executable, "-m", "dockyard", "serve", *flags], stderr=subprocess.PIPE, text=True)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 2
    assert said in told
    spares = [p for p in psutil.process_iter(["cmdline"]) if str(process.pid) in (p.info["cmdline"] or [])[5:6]]
    psutil.wait_procs(spares, timeout=10)
    assert not [p for p in spares if p.is_running()]
