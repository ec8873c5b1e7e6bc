"""A pull is killed at twenty random moments; the one that is left alone ends with the right bytes."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from registry_samples import digest_of, keep, noise

from dockyard.artifact.store import Store
from dockyard.artifact.transfer import push
from dockyard.settings import Settings

KILLS = 20
PULLING = Path(__file__).parent / "pulling.py"


@pytest.mark.timeout(300)
def test_twenty_kills_and_then_the_right_bytes(
    docker_registry: str, other: Store, store: Store, settings: Settings, tmp_path: Path
) -> None:
    layers = [noise(size, seed) for seed, size in enumerate((96 << 20, 33 << 20, 3_000_001, 17, 0))]
    keep(other, "big", *layers)
    name = f"{docker_registry}/killed/model:v1"
    digest = push(other, "big", settings, to=name).digest
    draw = random.Random()
    killed = 0
    progress: list[int] = []
    while killed < KILLS:
        process = _start(tmp_path, name)
        _wait_for_work(store, process, progress[-1] if progress else 0)
        time.sleep(draw.uniform(0.0, 0.06))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if process.returncode == 0:
            _forget(store, layers)
            progress.clear()
        else:
            killed += 1
            progress.append(_here(store))
            for layer in layers:
                path = store.blob_path(digest_of(layer))
                assert not path.exists() or path.stat().st_size == len(layer)
    process = _start(tmp_path, name)
    out, _ = process.communicate(timeout=120)
    assert out.strip() == digest
    for layer in layers:
        assert digest_of(store.blob_path(digest_of(layer)).read_bytes()) == digest_of(layer)
    assert [path for path in store.incoming.iterdir() if path.suffix != ".lock"] == []
    assert store.fsck() == []


def _start(home: Path, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PULLING), str(home / "home"), name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _wait_for_work(store: Store, process: subprocess.Popen[str], before: int) -> None:
    """Until the process is past its start: it holds a lease, or has ended."""
    end = time.monotonic() + 20
    while time.monotonic() < end and process.poll() is None:
        if any((store.root / "leases").iterdir()):
            return
        time.sleep(0.002)


def _here(store: Store) -> int:
    return sum(
        path.stat().st_blocks for path in (*store.incoming.iterdir(), *(store.root / "blobs" / "sha256").iterdir())
    )


def _forget(store: Store, layers: list[bytes]) -> None:
    """It was done before the kill came: begin again, so that every kill meets a pull at work."""
    for layer in layers:
        store.blob_path(digest_of(layer)).unlink(missing_ok=True)
