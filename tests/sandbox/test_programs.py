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


EQUAL = "class Any:\n def __eq__(self, other): return True\n def __hash__(self): return 0\ndef f(): return Any()"
FRAMES = """
import sys
def f():
    frame, found = sys._getframe(), []
    while frame:
        found += map(repr, frame.f_locals.values())
        frame = frame.f_back
    return found
"""
STACK = """
class S:
    def __init__(self): self.x = []
    def push(self, value): self.x.append(value)
    def __len__(self): return 7
"""
MEMORY = """
import os
def f():
    seen = []
    for name in ("mem", "environ", "fd/0", "fd/1"):
        try:
            os.open(f"/proc/{os.getppid()}/{name}", os.O_RDONLY)
            seen.append(name)
        except PermissionError:
            pass
    return seen
"""


@pytest.mark.parametrize(
    ("code", "checks"),
    [
        ("def f(x): return [x, (1, 2.5), {'a': {1}}, b'x', 3j]", "assert f(4) == [4, (1, 2.5), {'a': {1}}, b'x', 3j]"),
        ("def f(x): return -x", "assert f(10**5000) == -10**5000"),
        ("def f(x): x.sort()", "x = [3, 1, 2]; f(x); assert x == [1, 2, 3]"),
        ("def f(): raise ValueError('no')", "try: f()\nexcept ValueError as e: assert str(e) == 'no'\nelse: assert 0"),
        (STACK, "s = S(); s.push(1); assert s and s.x == [1] and len(s) == 7"),
        ("class S: pass\ndef f(): return S()", "assert f() and f() != f() and f() != 4 and not f() == 4"),
        ("def f():\n yield 1\n yield 2", "assert list(f()) == [1, 2]"),
        ("import math\nx = []\nx.append(x)\ndef f(): return math.pi", "assert f() == math.pi"),
        (FRAMES, "import sys\nword = sys._getframe(1).f_locals['asked']['word']\nassert word not in ''.join(f())"),
        (MEMORY, "assert f() == []"),
    ],
)  # fmt: skip
async def test_checks_see_what_a_program_answers_and_it_sees_nothing_of_theirs(code: str, checks: str) -> None:
    ended = await run(code, checks=checks)
    assert (ended.finished, ended.reason) == (True, "")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("def f(): return 3", "AssertionError"),
        (EQUAL, "AssertionError"),
        ("def f():\n import os; os._exit(0)", "is gone"),
        ("import os, signal\ndef f(): os.kill(os.getppid(), 9)", "137"),
        ("import os, sys\nos.write(int(sys.argv[2]), b'{}\\n'); os._exit(0)", "'f' is not defined"),
        ("def f(:", "SyntaxError"),
        ("def f(): raise SystemExit(0)", "SystemExit"),
        ("f = 4", "not callable"),
    ],
)
async def test_a_program_can_not_pass_for_its_checks(code: str, reason: str) -> None:
    ended = await run(code, checks="assert f() == 4, f()")
    assert not ended.finished
    assert reason in ended.reason
