"""How many bytes all models together may take of this machine, by the rules and right now."""

from __future__ import annotations

import os

import msgspec
import psutil

from dockyard import hardware
from dockyard.hardware import Hardware
from dockyard.settings import Settings

SHARE = 0.85


class Machine:
    """The machine as the fleet sees it.

    The budget is what the settings say, else 85 % of the memory; and at most what is left of all memory beside this
    process and a reserve. Given a ``Hardware`` nothing is measured: that is the machine, and it is all ours.
    """

    def __init__(self, settings: Settings, given: Hardware | None = None) -> None:
        self._given = given
        self.hardware = given or hardware.detect()
        total = self.hardware.memory_total
        self.reserve = max(48 << 20, total // 50) if given is None else 0
        own = psutil.Process().memory_info().rss if given is None else 0
        wanted = settings.memory_budget or int(total * SHARE)
        left = max(0, total - own - self.reserve)
        self.budget = min(wanted, left)
        self.source = "`memory_budget` in the settings" if settings.memory_budget else f"85 % of {size(total)}"
        if left < wanted:
            self.source = f"what Dockyard itself and a reserve leave of {size(total)}"

    def ceiling(self, ours: int) -> int:
        """Bytes that models could have now if all of ours, which hold ``ours``, were gone."""
        if self._given is not None:
            return self._given.memory_available
        return max(0, hardware.memory()[1] + ours - self.reserve)

    def with_room(self, room: int) -> Hardware:
        """The hardware as one engine shall see it: ``room`` bytes may be taken."""
        return msgspec.structs.replace(self.hardware, memory_available=room)


def resident(pid: int | None) -> int:
    """Resident bytes of a process and its children; 0 for none or one that is gone."""
    if pid is None or pid == os.getpid():
        return 0
    try:
        process = psutil.Process(pid)
        return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))
    except psutil.Error:
        return 0


def size(count: int) -> str:
    """Bytes for a reader: ``1.5 GiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
