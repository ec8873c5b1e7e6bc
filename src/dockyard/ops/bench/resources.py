"""What a run took of the machine: the workers' memory at its peak, their processor time, and energy where it is told.

Memory and processor time are of the processes that hold the model, with their children, and are known only on their own
machine. Energy is of whole processor packages (Intel's and AMD's RAPL counters), whatever else they did meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dockyard.client import AsyncClient
from dockyard.errors import DockyardError

if TYPE_CHECKING:
    import psutil

POWERCAP = Path("/sys/class/powercap")
SAMPLE_SECONDS = 0.1


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """``memory_peak`` in bytes (resident, summed over processes), ``cpu_seconds``, ``joules``; None where not told."""

    memory_peak: int | None = None
    cpu_seconds: float | None = None
    joules: float | None = None


class Watched:
    """``resources`` holds what was seen once the block has ended."""

    def __init__(self) -> None:
        self.resources = Resources()


@contextlib.asynccontextmanager
async def watch(client: AsyncClient, model: str) -> AsyncIterator[Watched]:
    """Watch the workers of ``model`` while the block runs; other people's servers tell nothing, and None it is then."""
    watched = Watched()
    pids = await _workers(client, model)
    used, energy = _used(pids), energy_of()
    peak = _resident(pids)
    began = time.monotonic()

    async def sample() -> None:
        nonlocal peak
        while True:
            await asyncio.sleep(SAMPLE_SECONDS)
            peak = max(peak, await asyncio.to_thread(_resident, pids))

    task = asyncio.create_task(sample())
    try:
        yield watched
    finally:
        task.cancel()
        after = energy_of()
        longer = time.monotonic() > began
        watched.resources = Resources(
            memory_peak=max(peak, _resident(pids)) if pids else None,
            cpu_seconds=max(0.0, _used(pids) - used) if pids else None,
            joules=_grown(energy, after) if longer else None,
        )


async def _workers(client: AsyncClient, model: str) -> list[int]:
    """The processes of this machine that hold the model, of a server that is on it too."""
    import psutil

    try:
        told = await client.load(model)
        rows = await client.ps()
    except DockyardError:
        return []
    names = {model, *(told.get(key) for key in ("reference", "digest", "model") if isinstance(told, dict))}
    pids = [row.get("pid") for row in rows if row.get("reference") in names or row.get("digest") in names]
    found = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            # Another machine's number may be some process of ours: ours is Python, as all workers are.
            if pid and "dockyard" in " ".join(psutil.Process(pid).cmdline()):
                found.append(int(pid))
    return found


def _resident(pids: list[int]) -> int:
    import psutil

    total = 0
    for process in _family(pids):
        with contextlib.suppress(psutil.Error):
            total += int(process.memory_info().rss)
    return total


def _used(pids: list[int]) -> float:
    import psutil

    total = 0.0
    for process in _family(pids):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _family(pids: list[int]) -> list[psutil.Process]:
    import psutil

    found = []
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            process = psutil.Process(pid)
            found += [process, *process.children(recursive=True)]
    return found


def energy_of(root: Path = POWERCAP) -> dict[str, tuple[int, int]] | None:
    """Each package's counter in microjoules, and where it turns over; None where there is none that may be read."""
    found = {}
    for zone in sorted(root.glob("intel-rapl:[0-9]*")):
        if ":" in zone.name.removeprefix("intel-rapl:"):
            continue  # a part of a package, which counts it already
        try:
            count = int((zone / "energy_uj").read_text())
            most = int((zone / "max_energy_range_uj").read_text())
        except (OSError, ValueError):
            continue
        found[zone.name] = (count, most)
    return found or None


def _grown(before: dict[str, tuple[int, int]] | None, after: dict[str, tuple[int, int]] | None) -> float | None:
    """Joules between two readings; a counter that turned over did so once."""
    if before is None or after is None:
        return None
    total = 0
    for name, (count, most) in after.items():
        if name in before:
            total += count - before[name][0] + (most if count < before[name][0] else 0)
    return total / 1e6
