"""Our client against our own hub: a round trip, a mount, and the referrers API."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from registry_samples import QUICK, digest_of, keep, noise

from dockyard.artifact.registry.client import Registry
from dockyard.artifact.registry.referrers import fallback_tag, referrers
from dockyard.artifact.store import Store
from dockyard.artifact.transfer import pull, push
from dockyard.settings import Settings

WEIGHTS = noise(12_000_000, 21)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    home = tmp_path / "hub"
    environ = {**os.environ, "DOCKYARD_HOME": str(home), "DOCKYARD_PORT": "0"}
    process = subprocess.Popen(
        [sys.executable, "-m", "dockyard", "hub"], env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(600):
            if (home / "server.json").exists() or process.poll() is not None:
                break
            time.sleep(0.05)
        yield json.loads((home / "server.json").read_text())["url"].rstrip("/").partition("://")[2]
    finally:
        process.terminate()
        process.wait(30)


def test_there_and_back(hub: str, store: Store, other: Store, settings: Settings) -> None:
    model = keep(store, "model", WEIGHTS, b"template")
    report = keep(store, "", b"report", subject=model)
    assert push(store, "model", settings, to=f"{hub}/team/one:v1") == model
    found = pull(other, f"{hub}/team/one:v1", settings)
    assert found.descriptor.digest == model.digest
    assert digest_of(other.blob_path(digest_of(WEIGHTS)).read_bytes()) == digest_of(WEIGHTS)
    push(other, f"{hub}/team/one:v1", settings, to=f"{hub}/team/two:v2")
    with Registry(hub, policy=QUICK) as registry:
        assert list(registry.catalog()) == ["team/one", "team/two"]
        assert [each.digest for each in referrers(registry, "team/one", model.digest)] == [report.digest]
        assert fallback_tag(model.digest) not in list(registry.tags("team/one"))
        registry.delete_manifest("team/two", model.digest)
        assert registry.manifest_digest("team/two", "v2") is None
