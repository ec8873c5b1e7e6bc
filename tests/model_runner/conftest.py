"""A home with the starter model and a server on it; how to start one lives with the tests of the API."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dockyard.artifact.packing import pack_files
from dockyard.artifact.reference import parse
from dockyard.artifact.store import Store

sys.path.insert(0, str(Path(__file__).parent.parent / "api"))
sys.path.insert(0, str(Path(__file__).parent.parent / "formats"))


@pytest.fixture(scope="module")
def runner_home(tmp_path_factory: pytest.TempPathFactory, starter_gguf: Path) -> Path:
    """A home whose store holds the starter model as ``smollm2``."""
    home = tmp_path_factory.mktemp("runner")
    pack_files(Store(home / "store"), {starter_gguf.name: starter_gguf}, reference=parse("smollm2"), link=True)
    return home


@pytest.fixture(scope="module")
def server(runner_home: Path) -> Iterator[str]:
    """The URL of a server on that home that stays offline."""
    from serving import serving

    with serving(runner_home, offline=True, log_level="warning") as found:
        yield found.url
