"""No worker outlives its gateway, however the gateway goes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

GATEWAY = """
import asyncio, sys
from pathlib import Path
from dockyard.engines import builtin, create
from dockyard.fleet.worker_process import WorkerProcess
from dockyard.hardware import detect
from dockyard.settings import Settings
from dockyard.types import LoadOptions, Message, Request, Sampling

async def main():
    files, flags = builtin("echo-worker"), {"fault_on_load": sys.argv[2]} if sys.argv[2] else {}
    plan = create("echo-worker").plan(files, LoadOptions(flags=flags), Settings(echo_tokens_per_second=100), detect())
    worker = WorkerProcess(files, plan, Path(sys.argv[1]) / "log")
    task = asyncio.create_task(worker.start())
    while worker.pid is None:
        await asyncio.sleep(0.01)
    if not flags:
        await task
        sampling = Sampling(max_tokens=100000, ignore_eos=True)
        await worker.generate(Request(id="a", prompt="on and on", sampling=sampling)).__anext__()
    print(worker.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
@pytest.mark.parametrize("moment", ["while it streams", "while it loads"])
def test_the_worker_dies_with_its_gateway(tmp_path: Path, signal_: signal.Signals, moment: str) -> None:
    fault = "stall" if moment == "while it loads" else ""
    gateway = subprocess.Popen([sys.executable, "-c", GATEWAY, str(tmp_path), fault], stdout=subprocess.PIPE)
    assert gateway.stdout is not None
    with gateway.stdout:
        worker = psutil.Process(int(gateway.stdout.readline()))
    os.kill(gateway.pid, signal_)
    gateway.wait()
    deadline = time.monotonic() + 5
    while worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the worker is an orphan"
        time.sleep(0.01)


def test_a_worker_whose_parent_is_gone_already_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dockyard.engines.worker", "0", "1", ""]
    assert subprocess.run(command, stdin=subprocess.DEVNULL, timeout=20).returncode == 0
