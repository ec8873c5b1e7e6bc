"""``dockyard bench`` as a user calls it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dockyard.artifact.store import Store
from dockyard.fleet import tuned
from dockyard.settings import Settings


def dockyard(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "DOCKYARD_HOME": str(home)}
    command = [sys.executable, "-m", "dockyard", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environ, timeout=100, check=False)


def test_the_figures_of_a_model(tmp_path: Path) -> None:
    done = dockyard(tmp_path, "bench", "echo", "--streams", "4", "--tokens", "8", "--requests", "8", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["answers"], found["failed"], found["tokens"], found["streams"]) == (8, 0, 64, 4)
    assert 0 < found["ttft_p50"] <= found["ttft_p95"]
    shown = dockyard(tmp_path, "bench", "echo", "--rate", "50", "--requests", "5", "--tokens", "4").stdout
    assert shown.startswith("5 answers, 50 asked for a second, ")
    assert "TPOT" in shown


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    done = dockyard(tmp_path, "bench", "localhost:1/none")
    assert done.returncode in (3, 4)
    assert "error:" in done.stderr


def test_what_is_built_in_can_not_be_tuned(tmp_path: Path) -> None:
    done = dockyard(tmp_path, "bench", "echo", "--tune")
    assert done.returncode == 2
    assert "nothing to choose" in done.stderr


@pytest.mark.model
def test_the_best_way_to_load_is_found_drawn_and_kept(tmp_path: Path) -> None:
    assert dockyard(tmp_path, "pull", "smollm2").returncode == 0
    flags = ("--streams", "2", "--tokens", "4", "--requests", "2", "--minutes", "0.02", "--json")
    done = dockyard(tmp_path, "bench", "smollm2", "--tune", *flags, "--picture", str(tmp_path / "front.svg"))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["trials"][0]["label"] == "as it is"
    assert found["best"]["many"]["tokens"] == 8
    assert (tmp_path / "front.svg").read_text().startswith("<svg")
    digest = Store.open(Settings(home=str(tmp_path))).resolve("smollm2").digest
    kept = tuned.read(tmp_path, digest)
    assert kept is not None
    assert kept.engine == found["best"]["options"].get("engine")
