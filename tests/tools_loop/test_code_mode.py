"""Models that write Python which calls tools: it runs in the sandbox, and every call is decided as any other."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import openai
import pytest

from dockyard.errors import InvalidRequest
from dockyard.settings import Settings
from dockyard.tools import code
from dockyard.tools.model import Outcome, ToolDenied, ToolFailed

pytest.importorskip("mcp")
pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="code runs in bubblewrap, which is not installed"),
]

ADD: Any = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["a"]}
CALLED: list[tuple[str, Any]] = []


async def tool(name: str, arguments: Any) -> Outcome:
    CALLED.append((name, arguments))
    if name == "no-good":
        raise ToolDenied("it may not be used")
    return Outcome(structured={"result": arguments["a"] + arguments.get("b", 0)})


async def run(tmp_path: Path, text: str) -> Outcome:
    return await code.run(Settings(home=str(tmp_path)), text, [("math__add", ADD), ("no-good", ADD)], tool)


async def test_tools_are_functions(tmp_path: Path) -> None:
    found = await run(tmp_path, "total = 0\nfor n in range(3):\n    total = math__add(total, b=n)\nprint('sum', total)")
    assert (found.text, found.is_error) == ("sum 3\n", False)


async def test_failures_can_be_caught_or_are_told(tmp_path: Path) -> None:
    text = "try:\n    no_good(1)\nexcept ToolError as error:\n    print(error)\nno_good(2)"
    found = await run(tmp_path, text)
    assert found.is_error
    assert found.text == "it may not be used\nToolError (line 5): it may not be used\n"
    assert "SyntaxError" in (await run(tmp_path, "def")).text


@pytest.mark.parametrize(
    "text",
    [
        "import socket\nsocket.create_connection(('1.1.1.1', 53), 2)",
        "open('/etc/shadow').read()",
        "open('/usr/x', 'w')",
        f"open({str(Path(__file__))!r}).read()",
    ],
)
async def test_nothing_else_is_within_reach(tmp_path: Path, text: str) -> None:
    found = await run(tmp_path, text)
    assert found.is_error, found.text


async def test_what_it_does_to_itself_is_contained(tmp_path: Path) -> None:
    with pytest.raises(ToolFailed):
        await run(tmp_path, "import os\nos._exit(3)")
    try:
        told = (await run(tmp_path, "x = bytearray(1 << 30)")).text
    except ToolFailed as error:  # a control group ends the process, a limit of its own raises
        told = str(error)
    assert "memory" in told.lower()
    with pytest.raises(InvalidRequest):
        await run(tmp_path, "#" * (code.MOST_CODE + 1))


def test_in_an_answer(tmp_path: Path) -> None:
    from loop_serving import client, tooled

    never: Any = [{"type": "mcp", "server_label": "sums", "require_approval": "never"}]
    coded: Any = {"extra_body": {"dockyard": {"code": True}}}
    asked: Any = {"model": "echo", "input": "run_code 'print(sums__add(a=2, b=int(sums__add(3, 4))))'", **coded}
    with tooled(tmp_path, tools_code=True, tools_calls=3) as server, client(server) as ann:
        answer = ann.responses.create(tools=never, **asked)
        (ran,) = [item for item in answer.output if item.type == "code_interpreter_call"]
        assert ran.outputs is not None
        assert ran.outputs[0].logs == "9\n"  # type: ignore[union-attr]
        assert server.calls() == ["add 3 4", "add 2 7"]
        many = {**asked, "input": "run_code 'for n in range(9): print(sums__add(n, n))'"}
        assert "no more than 3 calls" in ann.responses.create(tools=never, **many).output_text
        kinds = [event.type for event in ann.responses.create(tools=never, stream=True, **asked)]
        assert "response.code_interpreter_call.completed" in kinds
        careful: Any = [{"type": "mcp", "server_label": "sums"}]
        assert "agree" in ann.responses.create(tools=careful, **asked).output_text
    with tooled(tmp_path / "off") as server, client(server) as ann, pytest.raises(openai.PermissionDeniedError):
        ann.responses.create(tools=never, **asked)
