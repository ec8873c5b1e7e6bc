"""Tools, the choice between them and the format of an answer: checked, and put into the one form that engines get."""

from __future__ import annotations

import re
from typing import Any

from dockyard.api._openai_schema import check
from dockyard.errors import InvalidRequest, UnsupportedParameter
from dockyard.types import Json

MOST_TOOLS = 1024
CHOICES = ("none", "auto", "required")
FORMATS = ("text", "json_object", "json_schema")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")


def settle(extra: dict[str, Json]) -> None:
    """Check ``tools``, ``tool_choice`` and ``response_format`` of a request, and drop what says nothing; in place.

    ``allowed_tools`` becomes the list of those tools. Raises InvalidRequest and UnsupportedParameter by field.
    """
    tools = extra.get("tools")
    if tools:
        names = check_tools(tools)
        if "tool_choice" in extra:
            _settle_choice(extra, names)
    else:
        _without_tools(extra)
    if "response_format" in extra:
        check_format(extra["response_format"])
        if extra["response_format"]["type"] == "text":
            del extra["response_format"]


def check_tools(tools: list[Json]) -> set[str]:
    """The names of these tools."""
    if len(tools) > MOST_TOOLS:
        raise InvalidRequest(f"there are {len(tools)} tools; {MOST_TOOLS} is the most", param="tools")
    names: set[str] = set()
    for number, tool in enumerate(tools):
        at = f"tools[{number}]"
        if tool.get("type") == "custom":
            raise UnsupportedParameter("custom tools are not supported", param=f"{at}.type", hint="describe a function")
        if tool.get("type") != "function":
            raise InvalidRequest(f'{at}.type must be "function", not {tool.get("type")!r:.40}', param=f"{at}.type")
        function = tool.get("function")
        if not isinstance(function, dict):
            raise InvalidRequest(f"{at}.function is required", param=f"{at}.function")
        name = function.get("name")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidRequest(
                f"{at}.function.name must be 1 to 128 letters, digits, dots, underscores or dashes",
                param=f"{at}.function.name",
            )
        if name in names:
            raise InvalidRequest(f"two tools are called {name!r}", param=f"{at}.function.name")
        names.add(name)
        _check_function(function, f"{at}.function")
    return names


def _check_function(function: dict[str, Any], at: str) -> None:
    if not isinstance(function.get("description"), str | None):
        raise InvalidRequest(f"{at}.description must be text", param=f"{at}.description")
    if not isinstance(function.get("strict"), bool | None):
        raise InvalidRequest(f"{at}.strict must be true or false", param=f"{at}.strict")
    parameters = function.get("parameters")
    if parameters is None:
        return
    at = f"{at}.parameters"
    if not isinstance(parameters, dict):
        raise InvalidRequest(f"{at} is no JSON schema", param=at)
    if parameters.get("type", "object") != "object":
        raise InvalidRequest(f'{at}.type must be "object", not {parameters["type"]!r:.40}', param=f"{at}.type")
    check(parameters, at)


def _settle_choice(extra: dict[str, Json], names: set[str]) -> None:
    choice = extra["tool_choice"]
    if isinstance(choice, str):
        if choice not in CHOICES:
            raise InvalidRequest(
                f"'tool_choice' must be one of {', '.join(CHOICES)} or name a function, not {choice!r:.40}",
                param="tool_choice",
            )
        return
    kind = choice.get("type")
    if kind == "allowed_tools":
        _allow(extra, choice.get("allowed_tools", choice), names)
    elif kind == "custom":
        raise UnsupportedParameter("custom tools are not supported", param="tool_choice.type")
    elif kind == "function":
        _known(choice, "tool_choice", names)
    else:
        raise InvalidRequest(f"'tool_choice.type' must be function, not {kind!r:.40}", param="tool_choice.type")


def _allow(extra: dict[str, Json], allowed: Json, names: set[str]) -> None:
    """Keep the allowed tools only."""
    at = "tool_choice.allowed_tools"
    mode = allowed.get("mode") if isinstance(allowed, dict) else None
    if mode not in ("auto", "required"):
        raise InvalidRequest(f"{at}.mode must be auto or required", param=f"{at}.mode")
    tools = allowed.get("tools")
    if not isinstance(tools, list) or not tools:
        raise InvalidRequest(f"{at}.tools must be a list of tools, not empty", param=f"{at}.tools")
    wanted = {_known(tool, f"{at}.tools[{number}]", names) for number, tool in enumerate(tools)}
    extra["tools"] = [tool for tool in extra["tools"] if tool["function"]["name"] in wanted]
    extra["tool_choice"] = mode


def _known(tool: Json, at: str, names: set[str]) -> str:
    """The name of a tool that is among the tools."""
    function = tool.get("function") if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise InvalidRequest(f"{at}.function.name is required", param=f"{at}.function.name")
    if name not in names:
        raise InvalidRequest(
            f"{at} names {name!r:.140}, which is none of the tools", param=at, hint=f"tools: {', '.join(sorted(names))}"
        )
    return name


def _without_tools(extra: dict[str, Json]) -> None:
    choice = extra.pop("tool_choice", None)
    if choice not in (None, "none", "auto"):
        raise InvalidRequest("'tool_choice' goes with 'tools'", param="tool_choice")
    extra.pop("tools", None)
    extra.pop("parallel_tool_calls", None)


def check_format(wanted: Json, at: str = "response_format") -> None:
    """Check the format that an answer is to have."""
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind not in FORMATS:
        raise InvalidRequest(f"{at}.type must be one of {', '.join(FORMATS)}, not {kind!r:.40}", param=f"{at}.type")
    if kind != "json_schema":
        return
    at = f"{at}.json_schema"
    described = wanted.get("json_schema")
    if not isinstance(described, dict):
        raise InvalidRequest(f"{at} is required", param=at)
    name = described.get("name", "schema")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidRequest(f"{at}.name must be 1 to 128 letters, digits, underscores or dashes", param=f"{at}.name")
    if not isinstance(described.get("strict"), bool | None):
        raise InvalidRequest(f"{at}.strict must be true or false", param=f"{at}.strict")
    if "schema" not in described:
        raise InvalidRequest(f"{at}.schema is required", param=f"{at}.schema")
    if not isinstance(described["schema"], dict):
        raise InvalidRequest(f"{at}.schema is no JSON schema", param=f"{at}.schema")
    check(described["schema"], f"{at}.schema")
