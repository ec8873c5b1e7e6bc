"""Debian's docker-registry, started and stopped by the suite, and a store for each test."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dockyard.artifact.store import Store
from dockyard.settings import Settings

READER = "reader:$2y$05$L457Ls6VuwkxaDjxkAVO8OcFg4lKzuVUsCkxXVEPqIkMSlUKD59j6"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home" / "store")


@pytest.fixture
def other(tmp_path: Path) -> Store:
    """Somebody else's store."""
    return Store(tmp_path / "other" / "store")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=str(tmp_path / "home"), starter="")


@pytest.fixture(scope="session")
def docker_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of Debian's docker-registry with deletes allowed."""
    with _started(tmp_path_factory.mktemp("docker-registry"), "") as host:
        yield host


@pytest.fixture(scope="session")
def closed_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The same behind a name and a password: "reader" and "open sesame"."""
    folder = tmp_path_factory.mktemp("closed-registry")
    (folder / "htpasswd").write_text(READER + "\n")
    with _started(folder, f"auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}\n") as host:
        yield host


@contextmanager
def _started(folder: Path, more: str) -> Iterator[str]:
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed (Debian package docker-registry)")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{probe.getsockname()[1]}"
    (folder / "conf.yml").write_text(
        "version: 0.1\n"
        "log: {level: error, accesslog: {disabled: true}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}\n"
        f"http: {{addr: {host}}}\n{more}"
    )
    with (folder / "log").open("wb") as log:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
        process = subprocess.Popen(
            [program, "serve", str(folder / "conf.yml")], stdout=log, stderr=subprocess.STDOUT, env=clean
        )
    try:
        _wait_for(f"http://{host}/v2/", process, folder / "log")
        yield host
    finally:
        process.kill()
        process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(200):
        if process.poll() is not None:
            pytest.fail(f"docker-registry ended: {log.read_text()}")
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except urllib.error.HTTPError as error:
            error.close()
            return
        except OSError:
            time.sleep(0.05)
    pytest.fail(f"docker-registry did not start: {log.read_text()}")
