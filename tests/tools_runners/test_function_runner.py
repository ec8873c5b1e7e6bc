"""Python functions as tools: what they take is what their hints say, and only listed modules are run."""

from __future__ import annotations

import sys

import pytest

from dockyard.errors import InvalidRequest
from dockyard.tools.model import Server
from dockyard.tools.runners import runner

from .talk import configured, talking

pytest.importorskip("mcp", reason="needs the extra mcp")
pytestmark = pytest.mark.anyio

HERE = f"{__package__}.sample_functions"


def served(*names: str) -> Server:
    return Server(name="mine", kind="function", command=tuple(f"{HERE}:{name}" for name in names))


async def test_hints_and_docstrings_become_the_definition() -> None:
    async with talking(served("add", "weather"), tools_functions=[HERE]) as talk:
        add, weather = await talk.tools()
    assert add["description"] == "Add two numbers."
    assert add["inputSchema"]["properties"] == {
        "left": {"type": "integer", "description": "the first of them"},
        "right": {"type": "integer", "default": 1, "description": "the second of them"},
    }
    assert add["inputSchema"]["required"] == ["left"]
    assert add["inputSchema"]["additionalProperties"] is False
    schema = weather["inputSchema"]
    assert schema["properties"]["place"] == {"$ref": "#/$defs/Place"}
    assert schema["$defs"]["Place"]["required"] == ["city"]
    assert schema["properties"]["unit"]["enum"] == ["C", "F"]
    assert schema["properties"]["days"]["maximum"] == 7


@pytest.mark.parametrize("era", ["legacy", None])
async def test_calls_in_both_eras(era: str | None) -> None:
    async with talking(served("add", "weather", "fails"), era=era, tools_functions=[HERE.partition(".")[0]]) as talk:
        assert talk.link.era == (era or "modern")
        assert await talk.good("add", left=2, right=3) == "5"
        result = await talk.link.request("tools/call", {"name": "add", "arguments": {"left": 2}}, seconds=10)
        assert result["structuredContent"] == {"result": 3}
        result = await talk.link.request(
            "tools/call", {"name": "weather", "arguments": {"place": {"city": "Oslo"}}}, seconds=10
        )
        assert result["structuredContent"] == {"city": "Oslo", "unit": "C", "days": 1}
        assert await talk.bad("fails", reason="nope") == "LookupError: nope"
        assert "Expected `int`, got `str`" in await talk.bad("add", left="two")
        assert "unknown field `more`" in await talk.bad("add", left=1, more=2)
        assert "Expected `int` <= 7" in await talk.bad("weather", place={"city": "Oslo"}, days=8)


def test_nothing_is_imported_that_is_not_listed() -> None:
    server = Server(name="evil", kind="function", command=("antigravity:fly",))
    assert "does not list the module 'antigravity'" in (runner("function", configured()).refuses(server) or "")
    # A listed name is a module or a package, never the beginning of a name.
    almost = runner("function", configured(tools_functions=["anti"]))
    assert almost.refuses(server) is not None
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (f"{HERE}:anything", "'values' can't be given by name"),
        (f"{HERE}:missing", "can't be imported: AttributeError"),
        (f"{HERE}:Place", "is not a function"),
        (f"{HERE}.nowhere:thing", "can't be imported: ModuleNotFoundError"),
    ],
)
async def test_what_can_not_be_a_tool_is_named(command: str, reason: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        async with talking(Server(name="odd", kind="function", command=(command,)), tools_functions=[HERE]):
            pass
    assert reason in caught.value.message
