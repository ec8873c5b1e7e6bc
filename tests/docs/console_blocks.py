"""Runs the console blocks of a Markdown page and holds their output against what the page says.

A block opens with ```` ```console ````. A line with ``$ `` is a command (a trailing back slash goes on in the next
line); what follows up to the next command is its output, which must come in just these lines. ``...`` in a line stands
for any text, on a line of its own for any lines. Runs of spaces count as one. A command must succeed, unless it is the
last of a block that opens with ```` ```console exit=N ````. All blocks of a page run in one shell, top to bottom.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_BLOCK = re.compile(r"^```console(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass
class Command:
    """One command of a page: where it stands, what it prints and how it exits."""

    line: int
    text: str
    expected: list[str] = field(default_factory=list)
    code: int = 0


def commands(page: str) -> Iterator[Command]:
    """All commands of a page, in order. Raises ValueError for a block that begins with output."""
    for match in _BLOCK.finditer(page):
        first = page.count("\n", 0, match.start()) + 2
        code = re.search(r"exit=(\d+)", match["info"])
        found: list[Command] = []
        for number, line in enumerate(match["body"].splitlines(), first):
            if found and found[-1].text.endswith("\\"):
                found[-1].text = found[-1].text[:-1].rstrip() + " " + line.strip()
            elif line.startswith("$ "):
                found.append(Command(number, line[2:]))
            elif found:
                found[-1].expected.append(line)
            else:
                raise ValueError(f"line {number}: a console block begins with a command, `$ …`")
        if code and found:
            found[-1].code = int(code[1])
        yield from found


def differs(expected: list[str], output: str) -> str | None:
    """None if the output is as expected, else a sentence. A page that shows no output expects none in particular."""
    if not expected:
        return None
    lines = [_plain(line) for line in output.splitlines()]
    pattern = "".join(
        r"(?:[^\n]*\n)*?" if line.strip() == "..." else re.escape(_plain(line)).replace(r"\.\.\.", "[^\n]*") + r"\n"
        for line in expected
    )
    if re.fullmatch(pattern + r"\n*", "".join(f"{line}\n" for line in lines)):
        return None
    return "expected:\n" + "\n".join(expected) + "\n\ngot:\n" + output


def _plain(line: str) -> str:
    return re.sub(r"\s+", " ", line).strip()


class Shell:
    """A bash that runs one command at a time; use as a context manager. What it started dies with it."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            ["bash", "--norc"],
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            bufsize=0,
        )

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        for name in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self.process.pid, name)
                self.process.wait(10)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self.process.wait(10)

    def run(self, command: str, timeout: float = 300.0) -> tuple[int, str]:
        """Exit code and output of a command; what it prints goes out even if it fails. Raises TimeoutError."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        mark = f"--done-{time.monotonic_ns()}--"
        self.process.stdin.write(f"{command}\nprintf '\\n{mark}%s\\n' \"$?\"\n".encode())
        end, seen = time.monotonic() + timeout, b""
        while not (done := re.search(rf"\n?{mark}(\d+)\n".encode(), seen)):
            if not select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError(
                    f"{command!r} did not end within {timeout} s; so far: {seen.decode(errors='replace')}"
                )
            block = self.process.stdout.read(65536)
            if not block:
                raise RuntimeError(f"{command!r} ended the shell: {seen.decode(errors='replace')}")
            seen += block
        return int(done[1]), seen[: done.start()].decode(errors="replace")
