"""``dockyard explain`` and its route: the choice of an engine, memory, pipeline and settings, with nothing loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from litestar.testing import TestClient

from dockyard.api import create_app
from dockyard.settings import Settings


def explain(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "DOCKYARD_HOME": str(home), "DOCKYARD_CONTEXT": "1024"}
    command = [sys.executable, "-m", "dockyard", "explain", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=100, check=False)


def test_a_model_is_explained_without_a_server(runner_home: Path, tmp_path: Path) -> None:
    (tmp_path / "store").symlink_to(runner_home / "store")
    done = explain(tmp_path, "smollm2")
    assert done.returncode == 0, done.stderr
    assert "engine    llamacpp" in done.stdout
    assert "not       encoder: it reads" in done.stdout
    assert "setting   context = 1024" in done.stdout
    assert "inbound   identify: Who calls" in done.stdout
    assert "no server runs here" in done.stdout
    found = json.loads(explain(tmp_path, "smollm2", "--json").stdout)
    assert (found["engine"], found["mode"], found["outcome"]) == ("llamacpp", "generate", "load")
    (replica,) = found["replicas"]
    assert (replica["context"], replica["state"]) == (1024, "unloaded")
    assert replica["predicted"]["weights"] > 90_000_000
    assert found["budget"] >= sum(replica["predicted"].values())
    assert not found["resident"]


def test_a_server_is_asked_where_one_runs(runner_home: Path, server: str) -> None:
    done = explain(runner_home, "echo", "--kind", "embed")
    assert done.returncode == 0, done.stderr
    assert "echo is built in" in done.stdout
    assert "no server runs here" not in done.stdout
    assert "setting   context" not in done.stdout  # the server's settings count, not the command's


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (("no/such",), 3, "no/such"),
        (("echo", "--kind", "dance"), 2, "there is no kind 'dance'"),
        ((), 2, "MODEL"),
    ],
)
def test_mistakes_of_the_command(tmp_path: Path, words: tuple[str, ...], code: int, text: str) -> None:
    done = explain(tmp_path, *words)
    assert done.returncode == code
    assert text in done.stderr


def test_the_route_says_how_a_model_is_configured(tmp_path: Path) -> None:
    app = create_app(Settings(home=str(tmp_path)), trusted=True)
    with TestClient(app, base_url="http://127.0.0.1:12434") as client:
        assert client.get("/api/dockyard/explain?model=echo").json()["configured"] is None
        client.post("/engines/_configure", json={"model": "echo", "context-size": 512})
        found = client.get("/api/dockyard/explain", params={"model": "echo"}).json()
        assert found["configured"]["context"] == 512
        assert [one["step"] for one in found["pipeline"]][:2] == ["identify", "reserve"]
        assert client.get("/api/dockyard/explain").status_code == 400


def test_explaining_is_managing(tmp_path: Path) -> None:
    app = create_app(Settings(home=str(tmp_path), api_keys=("sk-plain",)))
    with TestClient(app, base_url="http://127.0.0.1:12434") as client:
        headers = {"authorization": "Bearer sk-plain"}
        assert client.get("/api/dockyard/explain?model=echo").status_code == 401
        assert client.get("/api/dockyard/explain?model=echo", headers=headers).status_code == 403
