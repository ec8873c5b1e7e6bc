"""``docker push`` and ``docker pull`` with a hub for a registry."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from container.engine import Engine, missing, start, stop

from .conftest import Hub

pytestmark = [pytest.mark.container]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    why = missing()
    if why:
        pytest.skip(why)
    running = start("build", tmp_path / "engine")
    try:
        yield running
    finally:
        stop(tmp_path / "engine")


def test_docker_pushes_and_pulls(guarded: Hub, engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "content").mkdir()
    (tmp_path / "content" / "file").write_bytes(os.urandom(12_000_000))
    subprocess.run(["tar", "-C", str(tmp_path / "content"), "-cf", str(tmp_path / "image.tar"), "."], check=True)
    image = f"{guarded.host}/t/docker:v1"
    made = engine.docker("import", str(tmp_path / "image.tar"), image).strip()
    assert "no basic auth credentials" in engine.docker("push", image, ok=False)
    engine.docker("login", "--username", "any", "--password", "push-key", guarded.host)
    pushed = engine.docker("push", image)
    digest = guarded.store.resolve("t/docker:v1").digest
    assert digest in pushed
    engine.docker("rmi", "--force", made)
    engine.docker("pull", image)
    assert engine.docker("image", "inspect", "--format", "{{.Id}}", image).strip() == made
