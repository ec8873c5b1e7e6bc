"""An application under test, and what its streams say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from litestar.testing import TestClient

from dockyard.api import create_app
from dockyard.settings import Settings
from scripted import ScriptedFleet

CHAT = "/v1/chat/completions"
LEGACY = "/v1/completions"
HELLO = {"model": "scripted", "messages": [{"role": "user", "content": "Hi"}]}


@contextmanager
def client(home: Path, fleet: Any = None, *, trusted: bool = True, **settings: Any) -> Iterator[TestClient[Any]]:
    """The application over a scripted fleet, as a loopback server has it."""
    app = create_app(Settings(home=str(home), **settings), fleet=fleet or ScriptedFleet(), trusted=trusted)
    with TestClient(app, base_url="http://127.0.0.1:12434") as found:
        yield found


def events(text: str) -> list[Any]:
    """The events of a stream; its end must be as OpenAI has it."""
    blocks = text.split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    found = [block.removeprefix("data: ") for block in blocks]
    if found[-1] == "[DONE]":
        found.pop()
    return [json.loads(one) for one in found]
