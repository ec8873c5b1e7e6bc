"""Two real Dockyards, one behind the other, and a server that plays whatever a test scripts."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "api"))

KEY = "sk-inner-0123456789"


@pytest.fixture(scope="module")
def inner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The other server: it wants ``KEY``."""
    from serving import serving

    with serving(tmp_path_factory.mktemp("inner"), api_keys=[KEY], log_level="warning") as found:
        yield found


@pytest.fixture(scope="module")
def outer(inner: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Serves the inner one's models: as ``there/…`` in OpenAI's API, as ``claude/…`` in Anthropic's."""
    from serving import serving

    home = tmp_path_factory.mktemp("outer")
    (home / "key").write_text(f"{KEY}\n")
    upstreams = {
        "there": {"base_url": f"{inner.url}/v1", "api_key_file": str(home / "key"), "models": ["echo"]},
        "locked": {"base_url": f"{inner.url}/v1", "models": ["echo"]},
        "claude": {"provider": "anthropic", "base_url": inner.url, "api_key_file": str(home / "key")},
    }
    aliases = ["best=there/echo"]
    with serving(home, upstreams=upstreams, aliases=aliases, log_level="debug") as found:
        yield found
        assert KEY not in found.log.read_text()
