"""The library's prompts as an official MCP client sees them, in both protocol eras."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError

sys.path.insert(0, str(Path(__file__).parent.parent / "api"))

from serving import serving

pytestmark = pytest.mark.anyio

PROMPT = (
    "description: Greets\nsystem: Be kind.\ntemplate: '{{ input }} {{ who }}'\n"
    "variables: {who: {description: Whom}, times: {type: integer, default: 1}}\n"
)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_prompts_are_listed_and_filled_in(tmp_path: Path, mode: str) -> None:
    (tmp_path / "p.yaml").write_text(PROMPT)
    (tmp_path / "dockyard.yaml").write_text("prompts: {greet: p.yaml}")
    with serving(tmp_path / "home", stack=str(tmp_path)) as server:
        async with Client(f"{server.url}/mcp", mode=mode) as client:
            (prompt,) = (await client.list_prompts()).prompts
            assert (prompt.name, prompt.description) == ("greet", "Greets")
            told = {one.name: one.required for one in prompt.arguments or ()}
            assert told == {"who": True, "times": False, "input": False}
            got = await client.get_prompt("greet", {"who": "Ann", "input": "Hi"})
            assert [(one.role, one.content.text) for one in got.messages] == [("user", "Be kind."), ("user", "Hi Ann")]
            with pytest.raises(MCPError, match="'who' is missing"):
                await client.get_prompt("greet", {})
            with pytest.raises(MCPError):
                await client.get_prompt("nobody", {})
