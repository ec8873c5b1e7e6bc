"""Verbs that talk to a running server, and what the server leaves behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

pytestmark = pytest.mark.model
Run = Callable[..., "subprocess.CompletedProcess[str]"]


class Server:
    """``dockyard serve`` on a free port."""

    def __init__(self, home: Path, *flags: str) -> None:
        command = [sys.executable, "-m", "dockyard", "serve", "--port", "0", *flags]
        environ = {**os.environ, "DOCKYARD_HOME": str(home)}
        self.process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
        self.said: list[str] = []
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if found := re.search(r"API (http://\S+)/v1,", line):
                self.url = found[1]
                break
        else:
            pytest.fail(f"the server did not start: {''.join(self.said)}")
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr:
            self.said += self.process.stderr

    def end(self, number: int | None = signal.SIGTERM) -> int:
        """The exit code, after a signal or without one."""
        if number is not None and self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(30)
        self._reader.join()
        return code


@pytest.fixture(scope="module")
def home(stocked_home: Path) -> Path:
    return stocked_home


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    started = Server(home, "--model", "smollm2")
    try:
        yield started
        assert started.end() == 0
    finally:
        started.end(signal.SIGKILL)


def test_run_finds_the_server_of_its_home_and_loads_nothing_itself(dockyard: Run, home: Path, server: Server) -> None:
    done = dockyard("run", "smollm2", "Say hello.", "--max-tokens", "8", "--stats", home=home)
    assert done.returncode == 0
    assert done.stdout.strip()
    (model,) = [row for row in json.loads(dockyard("ps", "--json", home=home).stdout) if row["engine"] == "llamacpp"]
    assert model["reference"] == "smollm2"
    assert model["state"] == "ready"
    assert model["predicted"]["weights"] > 90_000_000
    assert model["measured"] > 100_000_000
    table = dockyard("ps", home=home).stdout
    assert table.split()[:4] == ["MODEL", "ENGINE", "STATE", "REQUESTS"]


def test_a_server_is_found_by_url_too(dockyard: Run, server: Server, tmp_path: Path) -> None:
    assert dockyard("run", "echo", "hi", "--host", server.url).stdout == "hi\n"
    assert dockyard("run", "echo", "hi", environ={"DOCKYARD_HOST": server.url}).stdout == "hi\n"
    missing = dockyard("run", "no-such-model", "hi", "--host", server.url)
    assert missing.returncode == 3
    assert "no-such-model" in missing.stderr


def test_status(dockyard: Run, home: Path, server: Server) -> None:
    found = json.loads(dockyard("status", "--json", home=home).stdout)
    assert found["running"]
    assert found["url"] == server.url
    assert found["machine"]["cores"] >= 1
    nothing = dockyard("status", "--json")
    assert (nothing.returncode, json.loads(nothing.stdout)) == (4, {"running": False})


def test_a_loaded_model_is_not_removed_from_under_the_server(dockyard: Run, home: Path, server: Server) -> None:
    assert dockyard("run", "smollm2", "Hi", "--max-tokens", "2", home=home).returncode == 0
    assert dockyard("tag", "smollm2", "alias:v1", home=home).returncode == 0
    refused = dockyard("rm", "alias:v1", home=home)
    assert refused.returncode == 5
    assert "loaded" in refused.stderr
    assert "--force" in refused.stderr
    assert dockyard("rm", "--force", "alias:v1", home=home).returncode == 0
    assert "llamacpp" not in dockyard("ps", home=home).stdout


def test_unload(dockyard: Run, home: Path, server: Server) -> None:
    assert dockyard("run", "smollm2", "Hi", "--max-tokens", "2", home=home).returncode == 0
    assert dockyard("unload", home=home).returncode == 2
    assert dockyard("unload", "smollm2", home=home).stdout == "1 unloaded\n"
    assert json.loads(dockyard("unload", "--all", "--json", home=home).stdout)["unloaded"] >= 0
    assert dockyard("unload", "no-such-model", home=home).returncode == 3


def test_logs_follow_until_interrupted(dockyard: Run, home: Path, server: Server) -> None:
    dockyard("run", "smollm2", "Hi", "--max-tokens", "2", home=home)
    told = dockyard("logs", "smollm2", home=home).stdout
    assert "smollm2 loaded by llamacpp in" in told
    assert "xllamacpp" in told
    assert "listening on" in dockyard("logs", home=home).stdout
    environ = {**os.environ, "DOCKYARD_HOME": str(home)}
    command = [sys.executable, "-m", "dockyard", "logs", "-f"]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        time.sleep(2)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, said) == (130, "")


def test_a_stream_broken_by_the_servers_end_is_an_error_not_a_hang(dockyard: Run, tmp_path: Path) -> None:
    own = Server(tmp_path / "own", "--echo-tokens-per-second", "5")
    environ = {**os.environ, "DOCKYARD_HOME": str(tmp_path / "own")}
    command = [sys.executable, "-m", "dockyard", "run", "echo", *(f"word{n}" for n in range(300))]
    asking = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert asking.stdout is not None
        assert asking.stdout.read(5) == "word0"
        own.end(signal.SIGKILL)
        _, said = asking.communicate(timeout=20)
    finally:
        own.end(signal.SIGKILL)
        asking.kill()
        asking.communicate()
    assert asking.returncode == 4
    assert said.startswith("error: ")
    # The note that the killed server left behind misleads nobody.
    assert dockyard("run", "echo", "hi", home=tmp_path / "own").stdout == "hi\n"


def test_stop_ends_the_server_and_its_workers(
    dockyard: Run, tmp_path: Path, processes: Callable[[Path], list[Any]]
) -> None:
    own = Server(tmp_path / "own")
    try:
        assert dockyard("run", "echo-worker", "hi", home=tmp_path / "own").stdout == "hi\n"
        assert dockyard("stop", home=tmp_path / "own").stdout == "stopped\n"
        FileLock(tmp_path / "own" / "server.lock").acquire(timeout=0).lock.release()  # the next one may start at once
        assert own.end(None) == 0
    finally:
        own.end(signal.SIGKILL)
    assert processes(tmp_path / "own") == []
    assert not (tmp_path / "own" / "server.json").exists()
    assert dockyard("stop", home=tmp_path / "own").returncode == 4


def test_on_a_terminal_a_server_writes_for_people(dockyard: Run, terminal: Callable[..., Any], tmp_path: Path) -> None:
    shell = terminal("serve", "--port", "0", home=tmp_path)
    shell.wait_for(" INFO listening on http://")
    shell.wait_for("Ctrl-C stops it.")
    assert dockyard("run", "echo", "one two", home=tmp_path).stdout == "one two\n"
    told = shell.wait_for(" tokens in ")
    assert re.search(r"\d\d:\d\d:\d\d INFO openai-chat echo ok: \d+\+2$", told)
    assert "{" not in told
    shell.type("\x03")
    assert "INFO stopping" in shell.wait_for(" requests are under way")
    assert shell.ended() == 0


def test_an_open_network_bind_is_refused(dockyard: Run) -> None:
    refused = dockyard("serve", "--host", "0.0.0.0", "--port", "0")
    assert refused.returncode == 2
    assert "keys" in refused.stderr
    assert "hint: set a key" in refused.stderr


def test_the_hub_serves_a_store_and_no_models(dockyard: Run, home: Path, tmp_path: Path) -> None:
    environ = {**os.environ, "DOCKYARD_HOME": str(tmp_path / "hub")}
    command = [sys.executable, "-m", "dockyard", "hub", "--port", "0", "--log-level", "error"]
    hub = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
    try:
        assert hub.stderr is not None
        found = re.search(r"Hub on http://(\S+)/v2/", hub.stderr.readline())
        assert found
        pushed = dockyard("push", "smollm2", "--to", f"{found[1]}/ai/smollm2:latest", home=home)
        assert pushed.returncode == 0, pushed.stderr
        pulled = dockyard("pull", f"{found[1]}/ai/smollm2", home=tmp_path / "third")
        assert pulled.returncode == 0, pulled.stderr
        assert dockyard("run", "echo", "hi", "--host", f"http://{found[1]}").returncode == 3
    finally:
        hub.terminate()
        hub.communicate(timeout=20)
    assert hub.returncode == 0
