"""The command as a user has it: a process, and a terminal for conversations."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest

COMMAND = [sys.executable, "-m", "dockyard"]
ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[=>])")
Dockyard = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def stocked_home(tmp_path_factory: pytest.TempPathFactory, starter_gguf: Path) -> Path:
    """A home whose store holds the starter model as ``smollm2``; shared, so leave it as it is."""
    from dockyard.artifact.packing import pack_files
    from dockyard.artifact.reference import parse
    from dockyard.artifact.store import Store

    home = tmp_path_factory.mktemp("stocked")
    pack_files(Store(home / "store"), {starter_gguf.name: starter_gguf}, reference=parse("smollm2"), link=True)
    return home


@pytest.fixture
def dockyard(tmp_path: Path) -> Dockyard:
    """Run a command line to its end: ``dockyard("ls", "--json", home=…)``."""

    def run(
        *arguments: str, home: Path | None = None, stdin: str = "", environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "DOCKYARD_HOME": str(home or tmp_path / "home"), **(environ or {})}
        return subprocess.run(
            [*COMMAND, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=environment,
            timeout=110,
            check=False,
        )

    return run


class Terminal:
    """A command on a terminal of its own, and a person's hands and eyes."""

    def __init__(self, arguments: list[str], environ: Mapping[str, str]) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, [*COMMAND, *arguments], {**os.environ, **environ, "TERM": "xterm"})
        # Wide, so that no line is wrapped; a terminal of no size at all confuses line editors.
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 2000, 0, 0))
        self.seen = ""
        self.code: int | None = None

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def wait_for(self, text: str, seconds: float = 25.0) -> str:
        """Read until ``text`` shows up after what was waited for before; what was read up to it."""
        end = time.monotonic() + seconds
        while text not in self.seen:
            if time.monotonic() > end:
                raise AssertionError(f"no {text!r} in {self.seen!r}")
            self._read(0.2)
        before, _, self.seen = self.seen.partition(text)
        return before

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self._fd], [], [], seconds)
        try:
            data = os.read(self._fd, 65536) if ready else b""
        except OSError:  # the other side of the terminal is closed
            data = b""
            if self.code is None:
                time.sleep(0.01)
        # The line editor asks where the cursor is; terminals answer.
        if b"\x1b[6n" in data:
            os.write(self._fd, b"\x1b[1;1R")
        self.seen += ESCAPES.sub("", data.decode("utf-8", "replace"))
        return bool(data)

    def ended(self, seconds: float = 30.0) -> int:
        """The exit code, once the command has ended by itself."""
        end = time.monotonic() + seconds
        while self.code is None:
            self._read(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                raise AssertionError(f"still running: {self.seen!r}")
        return self.code

    def close(self) -> None:
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._fd)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Start a command on a terminal: ``terminal("run", "echo", home=…)``."""
    opened: list[Terminal] = []

    def start(*arguments: str, home: Path | None = None, **environ: str) -> Terminal:
        opened.append(Terminal(list(arguments), {"DOCKYARD_HOME": str(home or tmp_path / "home"), **environ}))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


@pytest.fixture
def processes() -> Callable[[Path], list[psutil.Process]]:
    """All processes that work for a home: commands and their workers."""

    def find(home: Path) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                if process.environ().get("DOCKYARD_HOME") == str(home) and process.pid != os.getpid():
                    found.append(process)
        return found

    return find
