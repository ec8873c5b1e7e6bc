"""A real server for the official clients; how to start one lives with the tests of the API."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "api"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that wants the key "sk-anthropic"."""
    from serving import serving

    with serving(tmp_path_factory.mktemp("anthropic"), api_keys=["sk-anthropic"], log_level="warning") as found:
        yield found.url
