"""A hub of its own for each test that asks: a real server on a free port, in a process of its own."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from dockyard.artifact.store import Store

Start = Callable[..., "Hub"]


class Hub:
    """A running hub: ``url``, its ``host:port``, an HTTP client, and its store opened a second time."""

    def __init__(self, port: int, home: Path, process: subprocess.Popen[bytes]) -> None:
        self.host = f"127.0.0.1:{port}"
        self.url = f"http://{self.host}"
        self.home = home
        self.process = process
        self.http = httpx.Client(base_url=self.url, timeout=30)
        self.store = Store(home / "store")

    def push_blob(self, name: str, data: bytes, digest: str) -> httpx.Response:
        return self.http.post(f"/v2/{name}/blobs/uploads/", params={"digest": digest}, content=data)


@contextlib.contextmanager
def _running(home: Path, keys: str, quota: int) -> Iterator[Hub]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    environ = {**os.environ, "DOCKYARD_HOME": str(home), "DOCKYARD_STORE_QUOTA": str(quota)}
    if keys:
        environ["DOCKYARD_API_KEYS"] = keys
    command = [sys.executable, "-m", "dockyard", "hub", "--port", str(port)]
    with (home.parent / f"{home.name}.log").open("wb") as log:
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
    hub = Hub(port, home, process)
    try:
        for _ in range(400):
            if process.poll() is not None:
                raise RuntimeError((home.parent / f"{home.name}.log").read_text())
            with contextlib.suppress(httpx.TransportError):
                hub.http.get("/v2/")
                break
            time.sleep(0.05)
        yield hub
    finally:
        hub.http.close()
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise


@pytest.fixture(scope="session")
def start_hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Start a hub with these keys and this quota on a home of its own, or on the one given."""
    with contextlib.ExitStack() as stack:

        def start(*, keys: str = "", quota: int = 0, home: Path | None = None) -> Hub:
            return stack.enter_context(_running(home or tmp_path_factory.mktemp("hub"), keys, quota))

        yield start


@pytest.fixture(scope="session")
def hub(start_hub: Start) -> Hub:
    """One open hub that all tests share; each uses repositories of its own."""
    return start_hub()


@pytest.fixture(scope="session")
def guarded(start_hub: Start) -> Hub:
    """A hub with a key that may pull and one that may push."""
    return start_hub(keys="pull-key,push-key:manage")


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository that no other test uses."""
    return "t/" + request.node.name.lower().translate(str.maketrans("[]_ :/@", "-------")).strip("-")
