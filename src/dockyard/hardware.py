"""What this process may use of its machine: cores, memory and accelerators.

A container's limits are the machine: the CPU quota and the memory limit of the process's own control group and of each
group above it (version 1, 2 or the hybrid of both) count, whichever is the tightest. Sizes are bytes.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import msgspec

ROOT = Path("/")


class Accelerator(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU as its driver reports it."""

    name: str
    memory_total: int
    memory_available: int
    kind: str = "cuda"


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    """What may be used, not what the box holds.

    ``cores`` is the number of threads that can run at once: the affinity mask cut by the CPU quota, rounded down and
    at least 1 (llama.cpp's threads spin, so a thread too many costs more than one too few). ``memory_available``
    counts page cache as free unless a process has it mapped, so that adding a process's resident size to it is sound.
    """

    cores: int
    memory_total: int
    memory_available: int
    accelerators: tuple[Accelerator, ...] = ()


def detect(root: Path = ROOT, *, smi: str | None = None) -> Hardware:
    """Look at the machine below ``root`` (a tree that holds ``proc`` and ``sys``).

    ``smi`` is the ``nvidia-smi`` to ask; by default the one on the path, and none for a ``root`` that is not the
    real one. Never raises: what can't be read is left out of the account.
    """
    total, available = memory(root)
    if smi is None and root == ROOT:
        smi = shutil.which("nvidia-smi")
    return Hardware(
        cores=cores(root),
        memory_total=total,
        memory_available=available,
        accelerators=tuple(_nvidia(smi)) if smi else (),
    )


def cores(root: Path = ROOT) -> int:
    """Threads that can run at once under the affinity mask and the CPU quotas."""
    count: float = _affinity(root)
    for folder in _groups(root, "cpu"):
        count = min(count, _quota(folder) or count)
    return max(1, int(count))


def memory(root: Path = ROOT) -> tuple[int, int]:
    """Total and available memory in bytes; cheap enough to ask before every load."""
    meminfo = _keyed(root / "proc/meminfo", scale=1024)
    if "MemTotal" in meminfo:
        total = meminfo["MemTotal"]
        available = meminfo.get("MemAvailable", meminfo.get("MemFree", 0))
        # The kernel calls mapped file pages available; a model's mapped weights are not free while it serves.
        available -= max(0, meminfo.get("Mapped", 0) - meminfo.get("Shmem", 0))
    else:
        import psutil

        found = psutil.virtual_memory()
        total, available = found.total, found.available
    machine = total
    for folder in _groups(root, "memory"):
        limit = _memory_limit(folder)
        if limit is not None and limit < machine:
            total = min(total, limit)
            available = min(available, limit - _memory_use(folder))
    return total, max(0, available)


def control_group(root: Path = ROOT) -> Path | None:
    """The folder of this process's control group in version 2; None where there is none, as under version 1."""
    return next((folder for folder in _groups(root, "memory") if (folder / "cgroup.subtree_control").is_file()), None)


def _affinity(root: Path) -> int:
    allowed = _status_field(root / "proc/self/status", "Cpus_allowed_list")
    count = 0
    for part in (allowed or "").split(","):
        first, _, last = part.strip().partition("-")
        if first.isdigit():
            count += int(last or first) - int(first) + 1
    return count or os.cpu_count() or 1


def _status_field(path: Path, name: str) -> str | None:
    for line in _text(path).splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    return None


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of the control groups that this process is in, its own first, up to the top that can be seen."""
    mounts: dict[str, tuple[str, str]] = {}
    for line in _text(root / "proc/self/mountinfo").splitlines():
        fields, _, tail = line.partition(" - ")
        parts, kind = fields.split(), tail.split()
        if len(parts) < 5 or not kind or kind[0] not in ("cgroup", "cgroup2"):
            continue
        options = set(kind[-1].split(","))
        if kind[0] == "cgroup2" or controller in options:
            mounts.setdefault(kind[0], (_unescape(parts[3]), _unescape(parts[4])))
    inside: dict[str, str] = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if controller in names.split(","):
            inside["cgroup"] = path
        elif number == "0" and not names:
            inside["cgroup2"] = path
    # In the hybrid layout a controller lives in one version only; the other's folders just lack its files.
    for kind_name, path in inside.items():
        if kind_name in mounts:
            yield from _upwards(root, *mounts[kind_name], path)


def _upwards(root: Path, mount_root: str, mount_point: str, path: str) -> Iterator[Path]:
    top = root / mount_point.lstrip("/")
    below = PurePosixPath(path)
    # Docker without a cgroup namespace mounts the container's own group as the top, while the path is the host's.
    with contextlib.suppress(ValueError):
        below = below.relative_to(mount_root)
    folder = top / str(below).lstrip("/")
    if ".." in below.parts or not folder.is_dir():
        folder = top
    while True:
        yield folder
        if folder == top:
            return
        folder = folder.parent


def _quota(folder: Path) -> float | None:
    """CPUs that a group may use on average, or None for no limit."""
    words = _text(folder / "cpu.max").split()
    if not words:
        words = [*_text(folder / "cpu.cfs_quota_us").split(), *_text(folder / "cpu.cfs_period_us").split()]
    if len(words) != 2 or not words[0].isdigit() or not words[1].isdigit() or int(words[1]) == 0:
        return None
    return int(words[0]) / int(words[1])


def _memory_limit(folder: Path) -> int | None:
    found = []
    for name in ("memory.max", "memory.high", "memory.limit_in_bytes"):
        text = _text(folder / name).strip()
        if text.isdigit():
            found.append(int(text))
    inherited = _keyed(folder / "memory.stat").get("hierarchical_memory_limit")
    if inherited is not None:
        found.append(inherited)
    return min(found, default=None)


def _memory_use(folder: Path) -> int:
    """Bytes that a group holds and could not give back at once: all but page cache that no process maps."""
    text = (_text(folder / "memory.current") or _text(folder / "memory.usage_in_bytes")).strip()
    stat = _keyed(folder / "memory.stat")

    def of(name: str) -> int:
        return stat.get(f"total_{name}", stat.get(name, 0))

    mapped = stat.get("file_mapped", of("mapped_file"))
    cache = max(0, of("inactive_file") + of("active_file") - mapped)
    return max(0, (int(text) if text.isdigit() else 0) - cache)


def _keyed(path: Path, *, scale: int = 1) -> dict[str, int]:
    """``name value`` lines, as in memory.stat and (with colons and kB) in meminfo."""
    found = {}
    for line in _text(path).splitlines():
        words = line.split()
        if len(words) >= 2 and words[1].isdigit():
            found[words[0].rstrip(":")] = int(words[1]) * scale
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _unescape(text: str) -> str:
    """Undo mountinfo's octal escapes of spaces and the like."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _nvidia(smi: str) -> Iterator[Accelerator]:
    query = [smi, "--query-gpu=name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        text = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return
    for line in text.splitlines():
        parts = [part.strip() for part in line.rsplit(",", 2)]
        if len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit():
            yield Accelerator(name=parts[0], memory_total=int(parts[1]) << 20, memory_available=int(parts[2]) << 20)
