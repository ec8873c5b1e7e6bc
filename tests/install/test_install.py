"""What ``pip install .`` puts into an empty environment, as a user gets it."""

from __future__ import annotations

import json
import os
import subprocess
import time
import venv
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parent.parent.parent
MOST_MEGABYTES = 350
MOST_IMPORT_SECONDS = 0.1

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an environment with Dockyard and nothing else, at the versions that the lock names."""
    folder = tmp_path_factory.mktemp("install") / "env"
    venv.create(folder, with_pip=True)
    pip = [str(folder / "bin" / "pip"), "--quiet", "--disable-pip-version-check", "install"]
    command = [*pip, "--constraint", str(ROOT / "requirements-dev.lock"), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def output(*command: str) -> str:
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environ).stdout


def test_install_is_small_and_has_no_torch(installed: Path) -> None:
    megabytes = int(output("du", "-sm", str(installed)).split()[0])
    print(f"\ninstall: {megabytes} MB")
    assert megabytes < MOST_MEGABYTES
    names = output(str(installed / "bin" / "pip"), "list", "--format", "freeze").lower()
    for heavy in ("torch==", "numpy==", "transformers==", "nvidia", "triton=="):
        assert heavy not in names


def test_import_is_fast(installed: Path) -> None:
    code = "import time; t = time.perf_counter(); import dockyard; print(time.perf_counter() - t)"
    seconds = min(float(output(str(installed / "bin" / "python"), "-c", code)) for _ in range(5))
    print(f"\nimport dockyard: {seconds * 1000:.0f} ms")
    assert seconds < MOST_IMPORT_SECONDS


def test_command_runs(installed: Path) -> None:
    assert "0." in output(str(installed / "bin" / "dockyard"), "--version")
    assert "serve" in output(str(installed / "bin" / "dockyard"), "--help")


def test_a_verb_names_the_extra_that_it_lacks(installed: Path, starter_gguf: Path, tmp_path: Path) -> None:
    dockyard = str(installed / "bin" / "dockyard")
    environ = {"PATH": os.environ["PATH"], "DOCKYARD_HOME": str(tmp_path)}
    subprocess.run([dockyard, "package", str(starter_gguf), "small"], check=True, env=environ, timeout=60)
    command = [dockyard, "quantize", "small", "smaller", "--to", "gguf-q8_0"]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=60, check=False)
    assert done.returncode != 0
    assert "pip install 'dockyard[refit]'" in done.stderr


def test_an_evaluation_names_the_extra_before_it_asks_anything(installed: Path, tmp_path: Path) -> None:
    dockyard = str(installed / "bin" / "dockyard")
    environ = {"PATH": os.environ["PATH"], "DOCKYARD_HOME": str(tmp_path / "home")}
    (tmp_path / "items.jsonl").write_text('{"prompt": "a", "answer": "a"}\n')
    suite = 'name: tiny\ndata: items.jsonl\nprompt: "{prompt}"\nreference: answer\nscorers: [exact-match]\n'
    (tmp_path / "suite.yaml").write_text(suite)
    command = [dockyard, "eval", "run", str(tmp_path / "suite.yaml"), "echo"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=120, check=False)
    finally:
        subprocess.run([dockyard, "stop"], env=environ, capture_output=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "pip install 'dockyard[evaluate]'" in done.stderr
    assert not list((tmp_path / "home").rglob("*.journal*"))


def test_it_serves_with_nothing_else_installed(installed: Path, tmp_path: Path) -> None:
    """The development environment has more packages; here a dependency that was forgotten shows."""
    environ = {"PATH": os.environ["PATH"], "DOCKYARD_HOME": str(tmp_path / "home")}
    command = [str(installed / "bin" / "dockyard"), "serve", "--port", "0"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
    try:
        note = tmp_path / "home" / "server.json"
        for _ in range(300):
            if note.exists() or server.poll() is not None:
                break
            time.sleep(0.1)
        assert note.exists(), (tmp_path / "log").read_text()
        body = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
        answer = httpx.post(f"{json.loads(note.read_text())['url']}/v1/chat/completions", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        assert "hello" in answer.json()["choices"][0]["message"]["content"]
    finally:
        server.terminate()
        assert server.wait(30) == 0
