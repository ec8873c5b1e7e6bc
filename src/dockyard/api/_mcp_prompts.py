"""The library's prompts for MCP clients, beside those of tool servers: ``prompts/list`` and ``prompts/get``.

MCP knows no system messages: a prompt's comes first, as the user's. A tool server's prompt of that name goes before.
"""

from __future__ import annotations

import asyncio
from typing import Any

from dockyard.errors import DockyardError
from dockyard.prompt.library import Library
from dockyard.tools.sdk_failures import failure
from dockyard.tools.sdk_front import Front, _page
from dockyard.types import Json


class PromptFront(Front):
    """A profile's server that also has the prompts of a library."""

    def __init__(self, library: Library, *others: Any) -> None:
        self._library = library
        super().__init__(*others)

    async def _list_prompts(self, context: Any, params: Any) -> dict[str, Json]:
        theirs = {name: entry.raw for name, entry in (await self._list(context, "prompts")).items()}
        own = {one["name"]: one for one in await asyncio.to_thread(listed, self._library)}
        return _page("prompts", list({**own, **theirs}.values()), "name", params)

    async def _relay(self, context: Any, params: Any) -> dict[str, Json]:
        asked = dict(context.params or {})
        if context.method != "prompts/get" or asked.get("name") not in await asyncio.to_thread(self._library.names):
            return await super()._relay(context, params)
        if asked["name"] in await self._list(context, "prompts"):
            return await super()._relay(context, params)
        try:
            return await asyncio.to_thread(given, self._library, str(asked["name"]), asked.get("arguments") or {})
        except DockyardError as error:
            raise failure(error, params=context.params) from None


def listed(library: Library) -> list[dict[str, Json]]:
    """The prompts as MCP has them; those that can't be read are left out."""
    import msgspec

    found: list[dict[str, Json]] = []
    for name in library.names():
        try:
            prompt = library.find(name).prompt
        except DockyardError:
            continue
        arguments = [
            {
                "name": each,
                "description": variable.description or f"A {variable.type}",
                "required": variable.default is msgspec.UNSET and each != "input",
            }
            for each, variable in prompt.variables.items()
        ]
        if "input" not in prompt.variables:
            arguments.append({"name": "input", "description": "What the user says", "required": False})
        found.append({"name": name, "description": prompt.description, "arguments": arguments})
    return found


def given(library: Library, name: str, arguments: dict[str, Json]) -> dict[str, Json]:
    """A prompt filled in, as messages of MCP."""
    from dockyard.prompt.render import composed
    from dockyard.types import Message

    found = library.find(name)
    select = found.prompt.select
    examples = found.prompt.examples if select is None else found.prompt.examples[: select.count]
    variables = {each: value for each, value in arguments.items() if each != "input"}
    said = (Message(role="user", content=str(arguments.get("input", ""))),)
    messages = [
        {
            "role": "assistant" if one.role == "assistant" else "user",
            "content": {"type": "text", "text": str(one.content or "")},
        }
        for one in composed(found.prompt, variables, said, examples)
    ]
    return {"description": found.prompt.description, "messages": messages, "resultType": "complete"}
