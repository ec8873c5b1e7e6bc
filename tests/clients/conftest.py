"""A real server, and the environments that other people's clients and test suites live in.

LangChain's standard tests bring pytest plug-ins that would change this suite's own rules, and npm's packages belong to
no Python environment at all: both are installed beside it, once, into ``.venv/client-suites``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clients_help import KEY
from filelock import FileLock

from dockyard.artifact.store import Store
from dockyard.ops.pack import Sources, package
from dockyard.settings import Settings
from suite_results import SUITES, note

sys.path.insert(0, str(Path(__file__).parent.parent / "api"))

PYTHON = ("langchain-openai", "langchain-tests", "schemathesis")
NODE = ("openai", "ai", "@ai-sdk/openai-compatible", "zod")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, starter_gguf: Path) -> Iterator[Any]:
    """A server with a key, the scripted model ``echo`` and the real one ``smol``."""
    from serving import serving

    home = tmp_path_factory.mktemp("clients")
    store = Store.open(Settings(home=str(home)))
    package(store, Sources(weights=(starter_gguf,)), reference=store.named("smol"))
    with serving(home, api_keys=[KEY], log_level="warning", deny_patterns=["forbidden"]) as found:
        yield found


@pytest.fixture(scope="session")
def suites_python() -> Path:
    """An interpreter that has the Python suites."""
    home = SUITES / "python"
    python = home / "bin" / "python"
    with _locked("python"):
        if not _installed(home, PYTHON):
            venv.create(home, with_pip=True, clear=True)
            _install(home, PYTHON, [str(python), "-m", "pip", "install", "-q", *PYTHON])
    return python


@pytest.fixture(scope="session")
def suites_node() -> Path:
    """The folder whose ``node_modules`` has the Node clients."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed")
    home = SUITES / "node"
    with _locked("node"):
        if not _installed(home, NODE):
            command = ["npm", "install", "--no-audit", "--no-fund", "--silent", "--prefix", str(home), *NODE]
            _install(home, NODE, command)
    return home


@pytest.fixture(scope="session")
def record() -> Callable[[str, str, str], None]:
    """Notes that a suite passed: its name, version, and how much of it. ``scripts/compatibility.py`` reads that."""
    return note


def _locked(name: str) -> FileLock:
    SUITES.mkdir(parents=True, exist_ok=True)
    return FileLock(SUITES / f"{name}.lock")


def _installed(home: Path, names: tuple[str, ...]) -> bool:
    stamp = home / "installed"
    return stamp.exists() and stamp.read_text() == " ".join(names)


def _install(home: Path, names: tuple[str, ...], command: list[str]) -> None:
    home.mkdir(exist_ok=True)
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    if done.returncode:
        pytest.skip(f"{names[0]} and the rest could not be installed: {done.stderr.strip()[-200:]}")
    (home / "installed").write_text(" ".join(names))
