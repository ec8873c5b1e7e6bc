"""Programs that nobody vouches for: what they may do, and that ending early is not passing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dockyard.sandbox import program
from dockyard.sandbox.program import Bounds, run

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(program.unavailable() is not None, reason=f"no sandbox: {program.unavailable()}"),
]


async def test_a_program_that_ends_has_finished_and_its_output_is_kept() -> None:
    ended = await run("print('hello')")
    assert (ended.finished, ended.output, ended.reason) == (True, "hello\n", "")
    noisy = await run("print('x' * 10**6)", Bounds(output=1000))
    assert noisy.finished
    assert len(noisy.output) <= 1000


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("assert 1 == 2, 'wrong'", "AssertionError: wrong"),
        ("import os; os._exit(0)", "ended itself"),
        ("raise SystemExit(0)", "ended itself"),
        ("while True: pass", "more than 1 seconds"),
        ("x = [1] * 10**9", "more memory"),
        ("def f(:", "SyntaxError"),
        ("import socket; socket.create_connection(('192.0.2.1', 53), 2)", "unreachable"),
        ("open('/etc/passwd', 'a')", "Read-only"),
        ("import os\nwhile True: os.fork()", "processes"),
    ],
)
async def test_what_a_program_may_not_do(code: str, reason: str) -> None:
    ended = await run(code, Bounds(seconds=1 if "while True: pass" in code else 5))
    assert not ended.finished
    assert reason in ended.reason


async def test_nothing_of_the_machine_is_seen_or_left(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("canary")
    code = f"import os\nprint(os.path.exists({str(tmp_path)!r}), os.environ.get('DOCKYARD_HOME'))\nopen('/tmp/x','w')"
    assert (await run(code)).output == "False None\n"
    assert "x" not in os.listdir("/tmp")


def test_what_others_take_of_the_machine_is_not_held_against_a_program() -> None:
    assert program.allowed(10, used=0.1, waited=0.0) == 10  # it sleeps
    assert program.allowed(10, used=2, waited=5) == 15
    assert program.allowed(10, used=2, waited=500) == 20  # not for ever
    assert program.allowed(10, used=10, waited=90) == 10  # many processes that wait for each other
