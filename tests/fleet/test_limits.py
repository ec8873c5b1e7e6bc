"""Limits of one worker: in a control group where one can be made, else by affinity, and memory watched."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from dockyard.engines import Choice, LoadPlan
from dockyard.engines.echo_worker import EchoWorker
from dockyard.fleet import Fleet, Parts
from dockyard.fleet.limits import Limits
from dockyard.hardware import Hardware
from dockyard.settings import Settings
from dockyard.types import LoadOptions, Memory, ModelFiles

MIB = 1 << 20


def tree(root: Path, *, controllers: str) -> Path:
    """A machine with control groups of version 2; this process is in ``/service/main``."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text("30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
    (root / "proc/self/cgroup").write_text("0::/service/main\n")
    top = root / "sys/fs/cgroup"
    for folder in (top / "service" / "main", top / "service", top):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup.subtree_control").write_text(controllers)
    return top / "service" / "main"


def test_a_control_group_bounds_processor_time_and_memory(tmp_path: Path) -> None:
    own = tree(tmp_path, controllers="memory")
    limits = Limits(1.5, 512 * MIB, root=tmp_path)
    limits.apply(4711)
    group = own / "dockyard-4711"
    assert (group / "cpu.max").read_text() == "150000 100000"
    assert (group / "memory.max").read_text() == str(512 * MIB)
    assert (group / "cgroup.procs").read_text() == "4711"
    assert (own / "cgroup.subtree_control").read_text() == "+cpu"
    assert limits.text == "limited to 1.5 CPUs and 512 MiB by the control group dockyard-4711"
    assert limits.watched is None
    for file in group.iterdir():
        file.unlink()  # a real group's files go with it
    limits.lift()
    assert not group.exists()


def test_without_a_control_group_whole_cores_and_a_watch_are_what_there_is(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        limits = Limits(0.5, 64 * MIB, root=tmp_path)
        limits.apply(process.pid)
        assert len(os.sched_getaffinity(process.pid)) == 1
        assert limits.watched == 64 * MIB
        assert "kept to 1 whole core (0.5 were asked for)" in limits.text
        assert "watched, not enforced" in limits.text
        limits.lift()
    finally:
        process.communicate(b"\n")


def test_no_limits_touch_nothing(tmp_path: Path) -> None:
    limits = Limits(None, None, root=tmp_path)
    limits.apply(os.getpid())
    assert (limits.text, limits.watched) == ("", None)


class Modest(EchoWorker):
    """Claims to take next to nothing."""

    def plan(self, files: ModelFiles, options: LoadOptions, settings: Settings, hardware: Hardware) -> LoadPlan:
        found = super().plan(files, options, settings, hardware)
        return msgspec.structs.replace(found, predicted=Memory(workspace=MIB))


@pytest.mark.anyio
async def test_a_worker_is_bound_before_it_loads_and_ended_when_it_takes_too_much(tmp_path: Path) -> None:
    parts = Parts(choose=lambda *_: Choice(Modest(), "it was asked for"))
    fleet = Fleet(Settings(home=str(tmp_path)), None, parts=parts)
    await fleet.start()
    try:
        row = await fleet.preload("echo-worker", LoadOptions(cpus=1.0))
        assert row.pid is not None
        assert "kept to 1 whole core" in row.limits or "by the control group" in row.limits
        if "whole core" in row.limits:
            assert len(os.sched_getaffinity(row.pid)) == 1
            await fleet.preload("echo-worker", LoadOptions(memory=2 * MIB))
            async with asyncio.timeout(20):
                while not any("and its own limit is 2 MiB" in row.reason for row in fleet.models()):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
    finally:
        await fleet.close()
