"""What one replica may use of the machine: enforced by a control group where that can be made, else as well as can be.

Version 2 of the control groups bounds processor time and memory for certain. Where this process may not make a group
the worker is kept to whole cores by its affinity, and its memory is watched: resident size is what counts, which no
resource limit of a process bounds (``RLIMIT_AS`` counts address space, and a model's mapped weights with it).
"""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

from dockyard import hardware
from dockyard.fleet.machine import size

PERIOD = 100_000


class Limits:
    """The limits of one replica's worker: ``apply`` when it has been started, ``lift`` when it has ended.

    ``text`` says how they are enforced; ``watched`` is the bytes that somebody has to look after, None if the kernel
    does or there are none.
    """

    def __init__(self, cpus: float | None, memory: int | None, *, root: Path = hardware.ROOT) -> None:
        self.cpus = cpus
        self.memory = memory
        self.text = ""
        self.watched: int | None = None
        self._root = root
        self._group: Path | None = None

    def apply(self, pid: int) -> None:
        """Bound this process and its children. Never raises: what can't be enforced is said in ``text``."""
        if self.cpus is None and self.memory is None:
            return
        own = hardware.control_group(self._root)
        for parent in (own, own.parent) if own is not None else ():
            group = self._enter(parent, pid)
            if group is not None:
                self._group, self.watched = group, None
                self.text = f"limited to {self._told()} by the control group {group.name}"
                return
        self._fall_back(pid)

    def lift(self) -> None:
        """Take the control group away; its processes have ended."""
        if self._group is not None:
            with contextlib.suppress(OSError):
                self._group.rmdir()
            self._group = None

    def _told(self) -> str:
        parts = [f"{self.cpus:g} CPUs"] if self.cpus is not None else []
        parts += [size(self.memory)] if self.memory is not None else []
        return " and ".join(parts)

    def _enter(self, parent: Path, pid: int) -> Path | None:
        wanted = {"cpu": self.cpus, "memory": self.memory}
        names = [name for name, value in wanted.items() if value is not None]
        group = parent / f"dockyard-{pid}"
        try:
            enabled = (parent / "cgroup.subtree_control").read_text().split()
            missing = [name for name in names if name not in enabled]
            if missing:
                (parent / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in missing))
            group.mkdir()
        except OSError:
            return None
        try:
            if self.cpus is not None:
                (group / "cpu.max").write_text(f"{max(1000, int(self.cpus * PERIOD))} {PERIOD}")
            if self.memory is not None:
                (group / "memory.max").write_text(str(self.memory))
            (group / "cgroup.procs").write_text(str(pid))
        except OSError:
            with contextlib.suppress(OSError):
                group.rmdir()
            return None
        return group

    def _fall_back(self, pid: int) -> None:
        told = []
        if self.cpus is not None:
            told.append(self._pin(pid, math.ceil(self.cpus)))
        if self.memory is not None:
            self.watched = self.memory
            told.append(f"its memory watched, not enforced, at {size(self.memory)}")
        self.text = f"{' and '.join(told)} (no control group can be made here)"

    def _pin(self, pid: int, count: int) -> str:
        """Keep every thread of a process to so many cores; replicas begin at different ones."""
        if not hasattr(os, "sched_setaffinity"):
            return f"{self.cpus:g} CPUs by its number of threads only"
        allowed = sorted(os.sched_getaffinity(0))
        count = min(count, len(allowed))
        chosen = {allowed[(pid + number) % len(allowed)] for number in range(count)}
        try:
            threads = [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
        except OSError:
            threads = [pid]
        for thread in threads:
            with contextlib.suppress(OSError):  # it has ended meanwhile
                os.sched_setaffinity(thread, chosen)
        rounded = "" if count == self.cpus else f" ({self.cpus:g} were asked for)"
        return f"kept to {count} whole {'core' if count == 1 else 'cores'}{rounded}"
