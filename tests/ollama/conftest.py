"""A real server for the official clients; how to start one lives with the tests of the API."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "api"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, starter_gguf: Path) -> Iterator[str]:
    """The URL of a server whose store holds SmolLM2 under the name ``tiny``."""
    from serving import serving

    from dockyard.artifact.store import Store
    from dockyard.ops.pack import Sources, package
    from dockyard.settings import Settings

    home = tmp_path_factory.mktemp("ollama")
    store = Store.open(Settings(home=str(home)))
    package(store, Sources(weights=(starter_gguf,)), reference=store.named("tiny"), link=True)
    with serving(home, context=1024, log_level="warning") as found:
        yield found.url
