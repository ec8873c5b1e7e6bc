"""A tool call that must come, from a model that might rather talk.

llama.cpp's own grammar lets a model talk before it calls, and a small one talks until it is cut off. Here the call
is begun for it: a grammar lets it choose the tool, and the tool's schema its arguments.
"""

from __future__ import annotations

import secrets
from typing import Any

import msgspec

from dockyard.engines import Emit
from dockyard.engines._llama_tasks import Ask
from dockyard.types import Chunk, Json, Request

_BEGIN = '<tool_call>\n{"name": "'
_MIDDLE = '", "arguments": '


class _Said(msgspec.Struct):
    content: str = ""
    prompt: str = ""


def fits(template: str | None) -> bool:
    """Whether a model of this template calls in the form that is begun here, and does not think before it does."""
    return template is not None and "<tool_call>" in template and '"name"' in template and "<think>" not in template


def wanted(fields: dict[str, Json]) -> bool:
    """Whether a call is required. ``settle_tools`` has made a choice by name one of these."""
    return bool(fields.get("tools")) and fields.get("tool_choice") == "required"


def begin(ask: Ask, request: Request, fields: dict[str, Json]) -> tuple[str, dict[str, Json]]:
    """The name of the tool that is called, and the fields of a completion that are its arguments."""
    tools = [tool["function"] for tool in fields["tools"]]
    prompt = msgspec.json.decode(ask("/apply-template", msgspec.json.encode(fields)), type=_Said).prompt + _BEGIN
    rest = {name: value for name, value in fields.items() if name not in _CHAT}
    name = tools[0]["name"]
    if len(tools) > 1:
        names = " | ".join(msgspec.json.encode(tool["name"] + '"').decode() for tool in tools)
        choice = {"prompt": prompt, "grammar": f"root ::= {names}", "n_predict": 256, **_drawn(request), **rest}
        said = msgspec.json.decode(ask("/completion", msgspec.json.encode(choice)), type=_Said).content.rstrip('"')
        name = said if any(tool["name"] == said for tool in tools) else name
    schema = next(tool.get("parameters") for tool in tools if tool["name"] == name)
    return name, {**rest, "prompt": prompt + name + _MIDDLE, "json_schema": schema or {"type": "object"}}


def as_call(name: str, emit: Emit) -> Emit:
    """Turns the text of a completion into the arguments of a call."""
    begun: set[int] = set()

    def passed(chunk: Chunk | None) -> bool:
        if chunk is None:
            return emit(None)
        delta: dict[str, Any] = {"index": 0, "function": {"arguments": chunk.text}}
        if chunk.index not in begun:
            begun.add(chunk.index)
            delta |= {"id": f"call_{secrets.token_hex(12)}", "type": "function"}
            delta["function"] = {"name": name, **delta["function"]}
        changes: dict[str, Any] = {"text": "", "tool_calls": [delta] if chunk.text or "id" in delta else None}
        if chunk.finish == "stop":
            changes["finish"] = "tool_calls"
        return emit(msgspec.structs.replace(chunk, **changes))

    return passed


_CHAT = frozenset(
    {
        "messages",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "response_format",
        "json_schema",
        "chat_template_kwargs",
    }
)


def _drawn(request: Request) -> dict[str, Json]:
    sampling = request.sampling
    given = {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": sampling.seed}
    return {name: value for name, value in given.items() if value is not None}
