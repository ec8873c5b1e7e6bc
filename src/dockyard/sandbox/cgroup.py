"""A control group for one program in a sandbox, where this process may make one: memory, processes and processor share
of all that it begets together, which limits of single processes can't bound. Both versions of the kernel's interface.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import time
from pathlib import Path

PREFIX = "dockyard-tool-"
_PERIOD = 100_000
_numbers = itertools.count(1)
_JOIN = 'n=$1; shift; while [ "$n" -gt 0 ]; do echo 0 >"$1" || exit 125; shift; n=$((n-1)); done; exec "$@"'
EMPTY_SECONDS = 2.0
WATCH_SECONDS = 0.5
_LIMITS = {
    1: {"memory": "memory.limit_in_bytes", "pids": "pids.max", "cpu": "cpu.cfs_quota_us"},
    2: {"memory": "memory.max", "pids": "pids.max", "cpu": "cpu.max"},
}


class Group:
    """``folders`` by controller; empty where none can be made. Add processes by ``joins``: files that take a "0"."""

    def __init__(self, version: int, folders: dict[str, Path]) -> None:
        self.version = version
        self.folders = folders
        self._spent = False

    @property
    def joins(self) -> list[str]:
        return [str(folder / "cgroup.procs") for folder in dict.fromkeys(self.folders.values())]

    def entry(self) -> list[str]:
        """What goes before a command so that it starts inside; empty where there is no group."""
        joins = self.joins
        return ["/bin/sh", "-c", _JOIN, "sh", str(len(joins)), *joins] if joins else []

    def complaint(self) -> str:
        """Which limit it ran into, as half a sentence; empty if none."""
        if self._spent:
            return "it used more processor time than sandbox.seconds allows"
        memory, pids = self.folders.get("memory"), self.folders.get("pids")
        name = "memory.events" if self.version == 2 else "memory.oom_control"
        if memory is not None and _count(memory / name, "oom_kill"):
            return "it used more memory than sandbox.memory allows"
        if pids is not None and _count(pids / "pids.events", "max"):
            return "it wanted more processes than sandbox.processes allows"
        return ""

    async def watch(self, seconds: int) -> None:
        """End all of it when it has used so much processor time together."""
        while self._used() < seconds:  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(WATCH_SECONDS)
        self._spent = True
        self._kill()

    async def remove(self) -> None:
        """Kill what is left in it, and take it away; bounded."""
        left = set(self.folders.values())
        deadline = time.monotonic() + EMPTY_SECONDS
        while True:
            self._kill()
            left = {folder for folder in left if not _gone(folder)}
            if not left or time.monotonic() > deadline:
                return
            await asyncio.sleep(0.01)

    def _used(self) -> float:
        """Processor time of what is in it, with what those have waited for."""
        ticks = 0
        for file in self.joins[:1]:
            for pid in _lines(file):
                told = " ".join(_lines(f"/proc/{pid}/stat")).rpartition(")")[2].split()
                ticks += sum(map(int, told[11:15]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def _kill(self) -> None:
        for pid in {pid for file in self.joins for pid in _lines(file)}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def make(memory: int, processes: int, cpus: float) -> Group:
    """A new group with these limits (0: none), as far as this process may make one."""
    version, parents = _parents()
    values = {"memory": memory, "pids": processes, "cpu": int(cpus * _PERIOD)}
    wanted = {name: str(value) for name, value in values.items() if value and name in parents}
    if version == 2 and "cpu" in wanted:
        wanted["cpu"] += f" {_PERIOD}"
    _sweep({parents[name] for name in wanted})
    name = f"{PREFIX}{os.getpid()}-{next(_numbers)}"
    made: dict[str, Path] = {}
    for controller, value in wanted.items():
        folder = parents[controller] / name
        try:
            folder.mkdir(exist_ok=True)
            (folder / _LIMITS[version][controller]).write_text(value)
        except OSError:
            if folder not in made.values():
                with contextlib.suppress(OSError):
                    folder.rmdir()
            continue
        made[controller] = folder
        with contextlib.suppress(OSError):
            (folder / "memory.swap.max").write_text("0") if version == 2 and controller == "memory" else None
    return Group(version, made)


def _gone(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:  # somebody is still dying in it
        return False
    return True


def _parents() -> tuple[int, dict[str, Path]]:
    """The version, and by controller the folder that a new group can be made in."""
    mounts = {}
    for line in _lines("/proc/self/mounts"):
        _, path, kind, options = line.split()[:4]
        if kind == "cgroup2":
            mounts["2"] = Path(path)
        elif kind == "cgroup":
            mounts.update(dict.fromkeys(options.split(","), Path(path)))
    own = {}
    for line in _lines("/proc/self/cgroup"):
        number, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(",") if number != "0" else ["2"], path.lstrip("/")))
    old = {name: mounts[name] / own.get(name, "") for name in _LIMITS[1] if name in mounts and name in own}
    if old:
        return 1, {name: path for name, path in old.items() if os.access(path, os.W_OK)}
    if "2" not in mounts:
        return 2, {}
    # A group with processes can't give controllers to its children, so ours is made beside the one we are in.
    here = mounts["2"] / own.get("2", "")
    for parent in (here, here.parent):
        if parent.is_relative_to(mounts["2"]) and os.access(parent, os.W_OK):
            for name in _LIMITS[2]:
                with contextlib.suppress(OSError):
                    (parent / "cgroup.subtree_control").write_text(f"+{name}")
            given = " ".join(_lines(str(parent / "cgroup.subtree_control"))).split()
            if "pids" in given or "memory" in given:
                return 2, {name: parent for name in _LIMITS[2] if name in given}
    return 2, {}


def _sweep(parents: set[Path]) -> None:
    """Take away empty groups of processes of ours that have been killed."""
    for parent in parents:
        for folder in parent.glob(f"{PREFIX}*"):
            owner = folder.name.removeprefix(PREFIX).partition("-")[0]
            if owner.isdigit() and not Path(f"/proc/{owner}").exists():
                with contextlib.suppress(OSError):
                    folder.rmdir()


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _count(path: Path, key: str) -> int:
    for line in _lines(str(path)):
        name, _, value = line.partition(" ")
        if name == key and value.isdigit():
            return int(value)
    return 0
