"""The machine as control groups cut it: trees of files stand for /proc and /sys."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from dockyard.hardware import detect, memory

GIB = 1 << 30
MIB = 1 << 20
MEMINFO = "MemTotal: 16777216 kB\nMemFree: 1048576 kB\nMemAvailable: 8388608 kB\nMapped: 524288 kB\nShmem: 0 kB\n"
V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def tree(root: Path, files: dict[str, str]) -> Path:
    base = {"proc/meminfo": MEMINFO, "proc/self/status": "Name:\tx\nCpus_allowed_list:\t0-5,8-9\n"}
    for name, text in {**base, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_groups_the_machine_is_what_the_kernel_says(tmp_path: Path) -> None:
    found = detect(tree(tmp_path, {}))
    assert (found.cores, found.memory_total) == (8, 16 * GIB)
    assert found.memory_available == 8 * GIB - 512 * MIB, "mapped files are in use"
    assert found.accelerators == ()


def test_version_2_in_a_container_with_its_own_namespace(tmp_path: Path) -> None:
    stat = f"anon {100 * MIB}\ninactive_file {60 * MIB}\nactive_file {50 * MIB}\nfile_mapped {30 * MIB}\n"
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/memory.max": f"{512 * MIB}\n",
            "sys/fs/cgroup/memory.current": f"{212 * MIB}\n",
            "sys/fs/cgroup/memory.stat": stat,
            "sys/fs/cgroup/cpu.max": "150000 100000\n",
        },
    )
    found = detect(root)
    assert found.memory_total == 512 * MIB
    assert found.memory_available == (512 - 212 + 60 + 50 - 30) * MIB
    assert found.cores == 1, "a quota of 1.5 cores runs one spinning thread at a time"


def test_version_2_takes_the_tightest_group_on_the_way_up(tmp_path: Path) -> None:
    top = "sys/fs/cgroup"
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/outer/inner\n",
            "proc/self/mountinfo": V2_MOUNT,
            f"{top}/outer/memory.max": f"{2 * GIB}\n",
            f"{top}/outer/memory.current": f"{1900 * MIB}\n",
            f"{top}/outer/cpu.max": "300000 100000\n",
            f"{top}/outer/inner/memory.max": "max\n",
            f"{top}/outer/inner/memory.high": f"{3 * GIB}\n",
            f"{top}/outer/inner/memory.current": f"{10 * MIB}\n",
            f"{top}/outer/inner/cpu.max": "max 100000\n",
        },
    )
    found = detect(root)
    assert found.memory_total == 2 * GIB
    assert found.memory_available == 2 * GIB - 1900 * MIB, "a neighbour in the outer group holds the rest"
    assert found.cores == 3


V1_MOUNTS = (
    "31 25 0:27 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "32 25 0:28 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "33 25 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
)
V1_GROUPS = "5:memory:{path}\n4:cpu,cpuacct:{path}\n0::{path}\n"


@pytest.mark.parametrize(
    ("mounted", "path", "below"),
    [("/", "/docker/abc", "/docker/abc"), ("/docker/abc", "/docker/abc", ""), ("/", "/not/visible/here", "")],
    ids=["host", "container without a namespace", "path of another namespace"],
)
def test_version_1(tmp_path: Path, mounted: str, path: str, below: str) -> None:
    memory_folder, cpu_folder = f"sys/fs/cgroup/memory{below}", f"sys/fs/cgroup/cpu,cpuacct{below}"
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": V1_GROUPS.format(path=path),
            "proc/self/mountinfo": V1_MOUNTS.format(root=mounted),
            f"{memory_folder}/memory.limit_in_bytes": f"{GIB}\n",
            f"{memory_folder}/memory.usage_in_bytes": f"{700 * MIB}\n",
            f"{memory_folder}/memory.stat": f"active_file 1\ntotal_active_file {100 * MIB}\n"
            f"total_inactive_file {100 * MIB}\ntotal_mapped_file {50 * MIB}\n",
            f"{cpu_folder}/cpu.cfs_quota_us": "200000\n",
            f"{cpu_folder}/cpu.cfs_period_us": "100000\n",
        },
    )
    found = detect(root)
    assert found.memory_total == GIB
    assert found.memory_available == (1024 - 700 + 150) * MIB
    assert found.cores == 2


def test_version_1_knows_of_a_limit_above_that_it_cannot_see(tmp_path: Path) -> None:
    folder = "sys/fs/cgroup/memory"
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": V1_GROUPS.format(path="/"),
            "proc/self/mountinfo": V1_MOUNTS.format(root="/"),
            f"{folder}/memory.limit_in_bytes": "9223372036854771712\n",
            f"{folder}/memory.usage_in_bytes": f"{MIB}\n",
            f"{folder}/memory.stat": f"hierarchical_memory_limit {256 * MIB}\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
    )
    found = detect(root)
    assert (found.memory_total, found.memory_available) == (256 * MIB, 255 * MIB)
    assert found.cores == 8


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "garbage\n::\n", "proc/self/mountinfo": "1 2\n - \n- cgroup2 x\n"},
        {
            "proc/self/cgroup": "0::/../../..\n",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/memory.max": "many\n",
            "sys/fs/cgroup/cpu.max": "0 0\n",
        },
        {"proc/self/status": "Cpus_allowed_list:\tx-y\n"},
    ],
)
def test_nonsense_is_left_out_of_the_account(tmp_path: Path, files: dict[str, str]) -> None:
    found = detect(tree(tmp_path, files))
    assert found.memory_total == 16 * GIB
    assert found.cores == (os.cpu_count() if "proc/self/status" in files else 8)


def test_where_there_is_no_proc_the_system_is_asked_otherwise(tmp_path: Path) -> None:
    total, available = memory(tmp_path)
    assert total == psutil.virtual_memory().total
    assert 0 < available < total


def test_a_mount_point_with_a_space(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "0::/\n",
            "proc/self/mountinfo": V2_MOUNT.replace("/sys/fs/cgroup", "/sys/fs/c\\040group"),
            "sys/fs/c group/memory.max": f"{GIB}\n",
        },
    )
    assert detect(root).memory_total == GIB


def test_accelerators_are_what_their_driver_reports(tmp_path: Path) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'NVIDIA H100, 80GB HBM3, 81559, 80000'\necho 'Broken, [N/A], [N/A]'\n")
    smi.chmod(0o755)
    (gpu,) = detect(tree(tmp_path, {}), smi=str(smi)).accelerators
    assert (gpu.name, gpu.memory_total, gpu.memory_available) == ("NVIDIA H100, 80GB HBM3", 81559 * MIB, 80000 * MIB)
    assert detect(tmp_path, smi=str(tmp_path / "missing")).accelerators == ()


def test_this_machine() -> None:
    found = detect()
    assert 1 <= found.cores <= len(os.sched_getaffinity(0))
    assert 0 < found.memory_available < found.memory_total <= psutil.virtual_memory().total
