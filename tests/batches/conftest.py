"""A real server with two keys, OpenAI's client for each, and input files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

sys.path.append(str(Path(__file__).parent.parent / "api"))

ANN = "ann-has-a-long-secret"
BOB = "bob-has-a-long-secret"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from serving import serving

    home = tmp_path_factory.mktemp("batches")
    with serving(home, api_keys=[ANN, BOB], max_file=1 << 20, log_level="warning") as found:
        yield found


@pytest.fixture
def ann(server: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=ANN, max_retries=0) as found:
        yield found


@pytest.fixture
def bob(server: Any) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=BOB, max_retries=0) as found:
        yield found
