"""A real server for official clients; how to start one lives with the tests of the API."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "api"))

KEY = "sk-rerank"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The URL of a server, and the key that it wants."""
    from serving import serving

    with serving(tmp_path_factory.mktemp("rerank"), api_keys=[KEY], log_level="warning") as found:
        yield found.url, KEY
