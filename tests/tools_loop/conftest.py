"""A server with tools, and OpenAI's client for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

sys.path += [str(Path(__file__).parent), str(Path(__file__).parent.parent / "api")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from loop_serving import tooled

    with tooled(tmp_path_factory.mktemp("loop"), chat_tools={"talker*": "default"}, aliases=["talker=echo"]) as found:
        yield found


@pytest.fixture
def ann(server: Any) -> Iterator[openai.OpenAI]:
    from loop_serving import client

    with client(server) as found:
        yield found
