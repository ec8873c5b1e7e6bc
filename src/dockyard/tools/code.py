"""Code that a model wrote, run in the sandbox of tool servers: no network, no files, bounded; tools are its functions.

The code runs in a process of its own, which ends with the run. It can do nothing to the outside but ask for calls of
tools over its pipe, and each of these is the caller's to decide.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from dockyard.errors import DockyardError, InvalidRequest
from dockyard.settings import Settings
from dockyard.tools.model import Outcome, Sandbox, Server, ToolFailed
from dockyard.types import Json

MOST_CODE = 64 << 10
SANDBOX = Sandbox(memory=512 << 20, processes=16, cpus=1.0, seconds=60)
"""``seconds`` are of the processor; the time on the clock is the caller's to bound."""

Call = Callable[[str, dict[str, Json]], Awaitable[Outcome]]
_PLAIN = re.compile(r"\W")


def identifier(name: str) -> str:
    """A tool's name as Python can have it."""
    found = _PLAIN.sub("_", name)
    return f"_{found}" if found[:1].isdigit() or keyword.iskeyword(found) else found


def stub(name: str, schema: dict[str, Json], description: str) -> str:
    """A line that tells a model of a function."""
    kinds = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "array": "list", "object": "dict"}
    properties, required = schema.get("properties") or {}, schema.get("required") or []
    parts = []
    for one, about in properties.items():
        kind = about.get("type") if isinstance(about, dict) else None
        parts.append(f"{one}: {kinds.get(str(kind), 'object')}" + ("" if one in required else " = ..."))
    return f"{identifier(name)}({', '.join(parts)})  # {description.splitlines()[0][:200] if description else ''}"


async def run(settings: Settings, code: str, tools: Iterable[tuple[str, dict[str, Json]]], call: Call) -> Outcome:
    """What the code printed; ``is_error`` where it raised. ``tools`` are names and input schemas.

    Raises InvalidRequest for code that is too long, EngineUnavailable where there is no sandbox, ToolFailed.
    """
    if len(code) > MOST_CODE:
        raise InvalidRequest(f"the code is longer than {MOST_CODE} characters", param="code")
    from dockyard.sandbox import jail
    from dockyard.tools.runners.process import Process

    script = Path(__file__).with_name("_code_child.py")
    command = (jail.python(), "-I", "-S", str(script))
    server = Server(name="code", kind="process", command=command, sandbox=SANDBOX)
    offered: list[dict[str, Any]] = [
        {"name": name, "python": identifier(name), "parameters": list(schema.get("properties") or {})}
        for name, schema in tools
    ]
    asked = {"jsonrpc": "2.0", "id": 0, "method": "run", "params": {"code": code, "tools": offered}}
    async with Process(settings).launch(server, {}, command, [script]) as transport:
        await _send(transport, asked)
        known = {one["name"] for one in offered}
        async for message in transport.read:
            if isinstance(message, Exception):
                raise ToolFailed(f"the code broke the pipe to its tools: {message}")
            told = message.message.model_dump(by_alias=True, exclude_none=True)
            if told.get("method") == "call":
                await _send(transport, await _answer(told, known, call))
            elif told.get("id") == 0 and isinstance(told.get("result"), dict):
                result = told["result"]
                text = str(result.get("output") or "")
                return Outcome(content=[{"type": "text", "text": text}], is_error=bool(result.get("failed")))
    raise ToolFailed("the code ended its process, or took too much memory or processor time")


async def _answer(told: dict[str, Any], known: set[str], call: Call) -> Json:
    """One use of a tool."""
    params = told.get("params") or {}
    name, arguments = params.get("name"), params.get("arguments")
    head: dict[str, Json] = {"jsonrpc": "2.0", "id": told.get("id")}
    try:
        if name not in known or not isinstance(arguments, dict):
            raise InvalidRequest(f"there is no tool {name!r:.80}")
        outcome = await call(name, arguments)
    except DockyardError as error:
        return {**head, "error": {"code": -32000, "message": error.message}}
    if outcome.is_error:
        return {**head, "error": {"code": -32000, "message": outcome.text or "the tool failed"}}
    value = outcome.structured if outcome.structured is not None else outcome.text
    if isinstance(value, dict) and list(value) == ["result"]:
        value = value["result"]  # how the official SDK wraps a number, a list or a text
    return {**head, "result": {"value": value}}


async def _send(transport: Any, message: Json) -> None:
    from mcp.shared.message import SessionMessage
    from mcp_types import jsonrpc_message_adapter

    await transport.write.send(SessionMessage(jsonrpc_message_adapter.validate_python(message)))
