"""A real Docker Compose brings up a project with ``models:`` against Dockyard; a container then talks to the model."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from container.engine import BASE, Engine, missing, rootfs, start, stop

PROJECT = """
services:
  app:
    image: {image}
    network_mode: host
    command: ["python3", "-c", "{program}"]
    models:
      llm: {{endpoint_var: AI_URL, model_var: AI_MODEL}}
models:
  llm:
    model: ai/smollm2
    context_size: 1024
    runtime_flags: ["--temp", "0"]
"""
PROVIDER = """
services:
  app:
    image: {image}
    network_mode: host
    command: ["python3", "-c", "{program}"]
    depends_on: [ai]
  ai:
    provider: {{type: model, options: {{model: ai/smollm2, context-size: 1024}}}}
"""
ASK = (
    "import json,os,urllib.request as u;"
    "b=json.dumps(dict(model=os.environ['AI_MODEL'],max_tokens=4,messages=[dict(role='user',content='Hi')])).encode();"
    "r=u.Request(os.environ['AI_URL']+'chat/completions',b,{'content-type':'application/json'});"
    "print('answer', json.load(u.urlopen(r))['usage']['completion_tokens'])"
)


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine on the machine's own network, whose command line has our plug-in."""
    if why := missing():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("compose")
    engine = start("build", folder)
    try:
        plugin = engine.config / "cli-plugins" / "docker-model"
        plugin.write_text(f'#!/bin/sh\nexec {sys.executable} -m dockyard.cli.docker_model "$@"\n')
        plugin.chmod(0o755)
        engine.docker("import", str(rootfs()), BASE)
        yield engine
    finally:
        stop(folder)


@pytest.mark.container
@pytest.mark.model
@pytest.mark.parametrize("project", [PROJECT, PROVIDER], ids=["models", "provider"])
def test_compose_wires_a_container_to_a_model(
    docker: Engine, server: str, runner_home: Path, tmp_path: Path, project: str
) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text(project.format(image=BASE, program=ASK.replace("\\", "").replace('"', '\\"')))
    # Compose hands its own environment on to plug-ins.
    environ = {"DOCKYARD_HOME": str(runner_home), "DOCKYARD_OFFLINE": "true"}
    words = ("compose", "--file", str(file), "--project-name", "dockyard-models", "--progress", "plain")
    try:
        told = docker.docker(
            *words, "up", "--abort-on-container-exit", "--exit-code-from", "app", timeout=100, **environ
        )
        logs = docker.docker(*words, "logs", "app", **environ)
        assert "answer 4" in logs, told + logs
        listed = docker.docker("model", "configure", "show", **environ)
        assert '"context-size": 1024' in listed
    finally:
        docker.docker(*words, "down", "--timeout", "1", **environ)


def test_docker_lists_the_plug_in(docker: Engine) -> None:
    told = docker.docker("info", "--format", "{{range .ClientInfo.Plugins}}{{.Name}} {{.Vendor}} {{.Version}};{{end}}")
    assert "model Dockyard v1." in told


def test_the_command_is_installed_as_docker_looks_for_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dockyard.cli.docker_model", "docker-cli-plugin-metadata"],
        capture_output=True,
        text=True,
        env=dict(os.environ),
        timeout=60,
        check=True,
    )
    assert '"SchemaVersion": "0.1.0"' in done.stdout
    assert done.stderr == ""
