"""Items of tools that the server runs: checked where a request brings them, and told as the turns of a chat."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from dockyard.errors import InvalidRequest
from dockyard.types import Json

Item = dict[str, Json]

PREFIXES = {
    "mcp_list_tools": "mcpl",
    "mcp_call": "mcp",
    "mcp_approval_request": "mcpr",
    "mcp_approval_response": "mcprr",
    "tool_search_call": "tsc",
    "tool_search_output": "tso",
    "code_interpreter_call": "ci",
    "file_search_call": "fs",
}
TEXTS = {
    "mcp_list_tools": ("server_label",),
    "mcp_call": ("server_label", "name", "arguments"),
    "mcp_approval_request": ("id", "server_label", "name", "arguments"),
    "mcp_approval_response": ("approval_request_id",),
    "code_interpreter_call": ("code",),
}
LISTS = ("mcp_list_tools", "tool_search_output")
SEARCH, CODE = "search_tools", "run_code"


def check(item: Item, at: str) -> None:
    """Raises InvalidRequest with the path of what is wrong."""
    kind = item["type"]
    for field in TEXTS.get(kind, ()):
        if not isinstance(item.get(field), str):
            raise InvalidRequest(f"{at}.{field} is required and is text", param=f"{at}.{field}")
    if kind == "mcp_approval_response" and not isinstance(item.get("approve"), bool):
        raise InvalidRequest(f"{at}.approve is required: true or false", param=f"{at}.approve")
    if kind == "mcp_call" and not isinstance(item.get("output"), str | None):
        raise InvalidRequest(f"{at}.output is text", param=f"{at}.output")
    if kind == "mcp_call" and not isinstance(item.get("error"), str | dict | None):
        raise InvalidRequest(f"{at}.error is an object", param=f"{at}.error")
    if not isinstance(item.get("taint"), list | None):
        raise InvalidRequest(f"{at}.taint is a list", param=f"{at}.taint")
    listed = item.get("tools")
    if kind in LISTS and not (isinstance(listed, list) and all(isinstance(one, dict) for one in listed)):
        raise InvalidRequest(f"{at}.tools is a list of objects", param=f"{at}.tools")
    if kind == "code_interpreter_call" and not isinstance(item.get("outputs"), list | None):
        raise InvalidRequest(f"{at}.outputs is a list", param=f"{at}.outputs")


def turns(item: Item, before: Iterable[Item]) -> list[dict[str, Any]]:
    """What the model is told of an item. ``before`` are the items that an answer to a question may belong to."""
    kind = item["type"]
    if kind == "mcp_call":
        return _pair(item["id"], function_of(item), item["arguments"], result_of(item))
    if kind == "mcp_approval_response" and not item["approve"]:
        asked = next((one for one in before if one["id"] == item["approval_request_id"]), None)
        if asked is None or asked["type"] != "mcp_approval_request":
            return []
        why = f": {item['reason']}" if isinstance(item.get("reason"), str) and item["reason"] else "."
        return _pair(asked["id"], function_of(asked), asked["arguments"], f"The person did not agree to this call{why}")
    if kind == "tool_search_output":
        names = [str(one.get("name")) for one in item["tools"]]
        call = next((one for one in before if one["type"] == "tool_search_call" and _same(one, item)), {})
        arguments = msgspec.json.encode(call.get("arguments") or {}).decode()
        return _pair(item["id"], SEARCH, arguments, "Found: " + ", ".join(names) if names else "No tool was found.")
    if kind == "code_interpreter_call":
        logs = [str(one.get("logs") or "") for one in item.get("outputs") or () if isinstance(one, dict)]
        return _pair(item["id"], CODE, msgspec.json.encode({"code": item["code"]}).decode(), "\n".join(logs))
    return []


def function_of(item: Item) -> str:
    """The name that the model knows a tool by."""
    from dockyard.tools.naming import outside

    return outside([(item["server_label"], item["name"])], prefix=True)[0]


def result_of(item: Item) -> str:
    """What the model was told."""
    error = item.get("error")
    if error is None:
        return item.get("output") or ""
    if isinstance(error, dict) and isinstance(error.get("content"), list):
        return "\n".join(str(part.get("text") or "") for part in error["content"] if isinstance(part, dict))
    return f"Error: {error.get('message') if isinstance(error, dict) else error}"


def _same(call: Item, output: Item) -> bool:
    return call.get("call_id") == output.get("call_id")


def _pair(id: str, name: str, arguments: str, result: str) -> list[dict[str, Any]]:
    call = {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": result, "tool_call_id": id},
    ]
