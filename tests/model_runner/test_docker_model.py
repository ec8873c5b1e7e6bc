"""The ``docker-model`` command: what Docker and Compose call, in the words and shapes that they read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest


def docker_model(home: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DOCKYARD_HOME": str(home), "DOCKYARD_OFFLINE": "true", **environ}
    command = [sys.executable, "-m", "dockyard.cli.docker_model", *words]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=100, check=False)


def test_docker_learns_what_it_is(tmp_path: Path) -> None:
    done = docker_model(tmp_path, "docker-cli-plugin-metadata")
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert (found["SchemaVersion"], found["Vendor"]) == ("0.1.0", "Dockyard")
    major, minor, patch = (int(part) for part in found["Version"].removeprefix("v").split("."))
    assert (major, minor, patch) >= (1, 0, 6)  # Compose hands runtime flags on from there


@pytest.mark.model
def test_compose_s_four_verbs(server: str, runner_home: Path) -> None:
    listed = docker_model(runner_home, "ls", "--json")
    assert listed.stderr == ""
    (model,) = json.loads(listed.stdout)
    assert {"docker.io/ai/smollm2:latest", "ai/smollm2:latest", "ai/smollm2", "smollm2"} <= set(model["tags"])
    pulled = docker_model(runner_home, "pull", "ai/smollm2")
    assert (pulled.returncode, pulled.stdout) == (0, "Using cached model\n")
    done = docker_model(runner_home, "configure", "--context-size", "768", "ai/smollm2", "--", "--temp", "0.5")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    (kept,) = json.loads(docker_model(runner_home, "configure", "show", "smollm2").stdout)
    assert kept["Config"]["context-size"] == 768
    assert kept["Config"]["defaults"]["sampling"] == {"temperature": 0.5}
    status = docker_model(runner_home, "status", "--json")
    assert status.stderr == ""
    found = json.loads(status.stdout)
    assert found["running"] is True
    assert found["endpoint"] == f"{server}/v1/"
    assert found["backends"]["llama.cpp"].startswith("Running")


@pytest.mark.model
def test_docker_s_way_to_call_it_and_another_host(server: str, runner_home: Path, tmp_path: Path) -> None:
    through = docker_model(runner_home, "--log-level", "error", "model", "ls", "-q")
    assert through.stdout.startswith("sha256:")
    elsewhere = docker_model(tmp_path, "ls", "-q", MODEL_RUNNER_HOST=server)
    assert elsewhere.stdout == through.stdout
    end = time.monotonic() + 60
    docker_model(runner_home, "configure", "smollm2", "--keep-alive", "-1")
    while "llama.cpp" not in (shown := docker_model(runner_home, "ps").stdout):
        assert time.monotonic() < end, shown
    end = time.monotonic() + 60
    while "Unloaded 1 " not in (told := docker_model(runner_home, "unload", "smollm2").stdout):
        assert time.monotonic() < end, told
    assert "Dockyard" in docker_model(runner_home, "version").stdout
    assert json.loads(docker_model(runner_home, "requests").stdout) == []
    assert docker_model(runner_home, "inspect", "smollm2").stdout.startswith("id ")  # Dockyard's own verb


@pytest.mark.model
def test_a_provider_service_of_compose(server: str, runner_home: Path) -> None:
    words = ("compose", "--project-name=demo", "up", "--model=ai/smollm2", "--context-size=512", "app")
    done = docker_model(runner_home, *words)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"type": "setenv", "message": f"URL={server}/v1/"} in told
    assert {"type": "setenv", "message": "MODEL=ai/smollm2"} in told
    missing = docker_model(runner_home, "compose", "up", "--model=no/such", "app")
    assert missing.returncode == 1
    last = json.loads(missing.stdout.splitlines()[-1])
    assert last["type"] == "error"
    nameless = docker_model(runner_home, "compose", "up", "app")
    assert (nameless.returncode, "options.model" in nameless.stdout) == (1, True)
    about = json.loads(docker_model(runner_home, "compose", "metadata").stdout)
    assert [one["name"] for one in about["up"]["parameters"] if one["required"]] == ["model"]
    assert docker_model(runner_home, "compose", "down", "--model=ai/smollm2", "app").returncode == 0


def test_without_a_server_the_store_is_still_there(tmp_path: Path) -> None:
    assert json.loads(docker_model(tmp_path, "ls", "--json").stdout) == []
    status = docker_model(tmp_path, "status", "--json")
    assert status.returncode == 4
    assert json.loads(status.stdout)["running"] is False
    configured = docker_model(tmp_path, "configure", "smollm2")
    assert configured.returncode == 4
    assert "dockyard serve" in configured.stderr


def test_mistakes_are_two_lines_and_a_code(tmp_path: Path) -> None:
    done = docker_model(tmp_path, "dance")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: No such command 'dance'.")
    assert docker_model(tmp_path, "configure").returncode == 2
