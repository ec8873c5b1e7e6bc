"""A real server whose profile has tool servers made of functions."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from serving import serving

from dockyard.tools.model import Enabled, Profile, Server
from dockyard.tools.profiles import Profiles

HERE = Path(__file__).parent

ANN = "ann-has-a-long-secret"
BOSS = "boss-has-a-long-secret"
STRANGE = {"*": ("untrusted-in", "private-data")}
SENDS = {"*": ("external-out",)}


def functions(name: str, *names: str, labels: Any = None, **fields: Any) -> Enabled:
    """A tool server of these functions; without labels it is harmless."""
    command = tuple(f"loop_functions:{one}" for one in names)
    server = Server(name=name, kind="function", command=command, labels=labels or {"*": ()})
    return Enabled(server=server, **fields)


def profiles(home: Path) -> None:
    """What the tests use."""
    kept = Profiles(home)
    clock, sums, notes = functions("clock", "now"), functions("sums", "add"), functions("notes", "save", "drop")
    odd = functions("odd", "broken", "slow", "long")
    inbox = functions("inbox", "now", labels=STRANGE)
    outbox = functions("outbox", "save", labels=SENDS)
    kept.put(Profile(name="default", servers=(clock, sums, notes, odd, inbox, outbox)))
    kept.put(Profile(name="pair", servers=(functions("sums", "add"), functions("notes", "save", approve=("save",)))))
    kept.put(Profile(name="large", servers=(clock, sums, notes), search=True))


@contextlib.contextmanager
def tooled(home: Path, **settings: Any) -> Iterator[Any]:
    """A running server with these profiles; ``calls()`` tells what its functions were called with."""
    home.mkdir(parents=True, exist_ok=True)
    profiles(home)
    keys = [ANN, f"{BOSS}:manage"]
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setenv("LOOP_CALLS", str(home / "calls"))
        patch.setenv("PYTHONPATH", str(HERE))
        found: Any = stack.enter_context(serving(home, api_keys=keys, tools_functions=["loop_functions"], **settings))
        log = home / "calls"
        found.calls = lambda: log.read_text().splitlines() if log.exists() else []
        yield found


@contextlib.contextmanager
def client(server: Any, key: str = ANN) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0, timeout=300) as found:
        yield found
