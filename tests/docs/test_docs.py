"""Documentation that can't lie: every console block is run, links lead somewhere, reference pages are up to date."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from console_blocks import Command, Shell, commands, differs

ROOT = Path(__file__).parent.parent.parent
WORKSHOP = sorted((ROOT / "docs" / "workshop").glob("0*.md"))
CONCEPTS = sorted((ROOT / "docs" / "concepts").glob("*.md"))
PAGES = [
    ROOT / "README.md",
    *WORKSHOP,
    *(page for page in CONCEPTS if "```console" in page.read_text(encoding="utf-8")),
]
PORT = "12434"


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


@pytest.mark.model
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_command_of_a_page_does_what_the_page_says(
    page: Path, starter_gguf: Path, encoders: Path, tmp_path: Path
) -> None:
    port, home = _free_port(), tmp_path / "home"
    (tmp_path / "work").mkdir()
    environment = {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "DOCKYARD_HOME": str(home / "dockyard"),
        "DOCKYARD_CONFIG": str(home / "settings.yaml"),
        "DOCKYARD_PORT": port,
        "DOCKYARD_STARTER": str(starter_gguf),
        "DOCKYARD_OFFLINE": "true",
        "ENCODERS": str(encoders),
        "COLUMNS": "200",
        "NO_COLOR": "1",
    }
    with Shell(tmp_path / "work", environment) as shell:
        for command in commands(page.read_text(encoding="utf-8")):
            code, output = shell.run(command.text.replace(PORT, port))
            told = f"{_name(page)}:{command.line}: $ {command.text}\n"
            wrong = differs(command.expected, output.replace(port, PORT))
            if code != command.code or wrong:
                pytest.fail(f"{told}exit code {code}, expected {command.code}\n{wrong or output}")


@pytest.mark.parametrize("page", WORKSHOP, ids=_name)
def test_each_chapter_has_commands(page: Path) -> None:
    assert len(list(commands(page.read_text(encoding="utf-8")))) >= 5


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")], ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:|#", target):
            assert (page.parent / target.split("#")[0]).exists(), f"{_name(page)} links to {target}"


def test_reference_pages_say_what_the_code_says() -> None:
    script = [sys.executable, str(ROOT / "scripts" / "reference.py"), "--check"]
    done = subprocess.run(script, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


PAGE = """
```console
$ echo one; \\
    echo two
one
two
$ true
```
```
$ not run
```
```console exit=3
$ exit 3
```
"""


def test_blocks_are_read_as_they_are_meant() -> None:
    first, second, third = commands(PAGE)
    assert first == Command(3, "echo one; echo two", ["one", "two"])
    assert (second.text, second.expected) == ("true", [])
    assert (third.text, third.code) == ("exit 3", 3)
    with pytest.raises(ValueError, match="line 3"):
        list(commands("\n```console\noutput\n```\n"))


@pytest.mark.parametrize(
    ("expected", "output", "same"),
    [
        ([], "anything", True),
        (["a  b"], "a b\n", True),
        (["a", "...", "d"], "a\nb\nc\nd\n", True),
        (["a", "...", "d"], "a\nd\n", True),
        (["a ... c"], "a b c\n", True),
        (["a.c"], "abc\n", False),
        (["a", "d"], "a\nb\nd\n", False),
        (["a"], "a\nb\n", False),
    ],
)
def test_output_is_compared_line_by_line(expected: list[str], output: str, same: bool) -> None:
    assert (differs(expected, output) is None) is same


def test_a_shell_keeps_its_variables_and_ends_what_it_started(tmp_path: Path) -> None:
    with Shell(tmp_path, {}) as shell:
        assert shell.run("x=5; sleep 100 & echo $!")[0] == 0
        assert shell.run("echo $x; false") == (1, "5\n")
        pid = int(shell.run("jobs -p")[1])
        assert psutil.pid_exists(pid)
    end = time.monotonic() + 10
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.05)
