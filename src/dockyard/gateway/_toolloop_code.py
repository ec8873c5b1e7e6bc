"""Code mode: instead of its tools the model gets ``run_code``, whose Python calls them as functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dockyard.errors import Forbidden, InvalidRequest
from dockyard.gateway._toolloop_events import Offered
from dockyard.settings import Settings
from dockyard.tools import code
from dockyard.tools.model import ApprovalNeeded, Outcome, ToolDenied
from dockyard.types import Json

if TYPE_CHECKING:
    from dockyard.gateway.toolloop import Loop

ASKS = "a person would have to agree to this call, which code can't wait for"


class Code:
    """The function ``run_code``. Raises Forbidden where the setting ``tools_code`` does not allow it."""

    name = "run_code"

    def __init__(self, settings: Settings) -> None:
        if not settings.tools_code:
            raise Forbidden("code mode is off here", param="dockyard.code", hint="the setting `tools_code` allows it")
        self._settings = settings
        self._tools: dict[str, Offered] = {}

    def described(self, tools: Sequence[Offered]) -> dict[str, Any]:
        """The function, with all tools as Python functions in its description."""
        self._tools = {one.function: one for one in tools}
        lines = [code.stub(one.function, one.tool.schema, one.tool.description) for one in tools]
        text = (
            "Run Python in a sandbox without files and network, and see what it prints. These functions call tools, "
            "return their results, and raise ToolError:\n" + "\n".join(lines)
        )
        schema = {"type": "object", "properties": {"code": {"type": "string"}}, "required": ["code"]}
        function = {"name": self.name, "description": text, "parameters": schema}
        return {"type": "function", "function": function}

    async def run(self, loop: Loop, arguments: dict[str, Json]) -> Outcome:
        """What the code printed. Each of its calls counts, and goes where every call goes."""
        text = arguments.get("code")
        if not isinstance(text, str):
            raise InvalidRequest("run_code takes `code`, a text", param="code")

        async def call(name: str, given: dict[str, Json]) -> Outcome:
            loop.spend()
            try:
                return await loop.use(self._tools[name], given)
            except ApprovalNeeded:
                raise ToolDenied(ASKS) from None

        tools = [(one.function, one.tool.schema) for one in self._tools.values()]
        return await code.run(self._settings, text, tools, call)
