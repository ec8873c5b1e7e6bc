"""The choice that a measurement made for a model on this machine: ``dockyard bench --tune`` writes it.

The fleet follows it where neither the caller nor the configuration say otherwise, on a machine like the one measured.
"""

from __future__ import annotations

import platform
import re
from pathlib import Path

import msgspec

from dockyard import hardware
from dockyard.types import LoadOptions


class Tuned(msgspec.Struct, frozen=True, kw_only=True):
    """One choice, and the machine that it was made on."""

    machine: str
    options: LoadOptions


def machine() -> str:
    """What a measurement depends on: the processor's name and how many of its cores may be used."""
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(errors="replace"), re.MULTILINE)
    except OSError:
        found = None
    name = found[1].strip() if found else platform.processor() or platform.machine()
    return f"{name}, {hardware.cores()} cores"


def read(home: Path, digest: str) -> LoadOptions | None:
    """The choice for the model with this digest; None where none was made here."""
    try:
        found = msgspec.json.decode(_path(home, digest).read_bytes(), type=Tuned)
    except (OSError, msgspec.DecodeError):
        return None  # a choice that can't be read is one that was not made: the next measurement writes it anew
    return found.options if found.machine == machine() else None


def write(home: Path, digest: str, options: LoadOptions) -> Path:
    """Keep a choice in the place of an earlier one; returns the file."""
    path = _path(home, digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(msgspec.json.encode(Tuned(machine=machine(), options=options)))
    part.replace(path)
    return path


def forget(home: Path, digest: str) -> None:
    """Load as by default again."""
    _path(home, digest).unlink(missing_ok=True)


def _path(home: Path, digest: str) -> Path:
    return home / "tuned" / f"{digest.replace(':', '-')}.json"
