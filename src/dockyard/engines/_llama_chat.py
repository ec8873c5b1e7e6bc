"""What llama.cpp leaves unsaid or does silently wrong with a conversation's tools and media, said and refused here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dockyard.errors import InvalidRequest, UnsupportedParameter
from dockyard.types import Json, Message

_MEDIA = {"image_url": ("vision", "url"), "input_audio": ("audio", "data")}
"""Parts that are not text: what a model must be able to, and where the content is."""

_PARSER = "Unable to generate parser for this template. Automatic parser generation failed: "


def settle_tools(fields: dict[str, Json]) -> None:
    """Check ``tools`` and ``tool_choice``; a choice by name becomes the one tool there is, required.

    llama.cpp takes a choice that is no word for "auto". Raises InvalidRequest naming the field.
    """
    tools, choice = fields.get("tools"), fields.get("tool_choice")
    if tools is not None and not isinstance(tools, list):
        raise InvalidRequest("tools is a list", param="tools")
    names = [_name(tool, number) for number, tool in enumerate(tools or [])]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise InvalidRequest(f"there are two tools called {name!r}", param=f"tools[{number}].function.name")
    if choice is None or choice in ("auto", "none"):
        return
    if not names:
        raise InvalidRequest("tool_choice wants a tool, and there are none", param="tool_choice")
    if choice == "required":
        return
    wanted, mode = _wanted(choice)
    for name in wanted:
        if name not in names:
            raise InvalidRequest(
                f"tool_choice names {name!r}, which is not among the tools",
                param="tool_choice",
                hint=f"tools: {', '.join(names)}",
            )
    fields["tools"] = [tool for tool, name in zip(tools or [], names, strict=True) if name in wanted]
    fields["tool_choice"] = mode
    if choice.get("type") == "function":
        fields["parallel_tool_calls"] = False


def named(error: InvalidRequest, extra: dict[str, Json]) -> InvalidRequest:
    """A complaint about a schema or a grammar, with the field that it came in."""
    if error.param is not None or type(error) is not InvalidRequest:
        return error
    reason = error.message.replace(_PARSER, "")
    if "schema" in reason.lower():
        fields = ("response_format", "json_schema", "tools")
        return InvalidRequest(reason, param=next((name for name in fields if extra.get(name)), None))
    return InvalidRequest(reason, param="grammar" if "grammar" in extra and "grammar" in reason.lower() else None)


def check_media(messages: Sequence[Message], able: frozenset[str]) -> None:
    """Refuse media that the model can't take, and all that would have to be fetched: llama.cpp would fetch it.

    ``able`` holds "vision" and "audio" as the loaded projector has them.
    """
    for where, part in _parts(messages):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("text", "refusal"):
            continue
        if kind not in _MEDIA:
            raise InvalidRequest(f"llamacpp takes no content part of type {kind!r}", param=where)
        ability, field = _MEDIA[kind]
        if ability not in able:
            what = "images" if ability == "vision" else "audio"
            raise UnsupportedParameter(
                f"this model takes no {what}: it has no projector for them", param=where, hint="use a multimodal model"
            )
        content = part.get(kind)
        data = content.get(field) if isinstance(content, dict) else None
        if not isinstance(data, str) or not data:
            raise InvalidRequest(f"{kind} wants its {field}", param=f"{where}.{kind}")
        if field == "url" and not data.startswith("data:"):
            scheme = data.partition(":")[0][:16]
            raise InvalidRequest(
                f"{kind}: only data: URLs are read, not {scheme}:", param=f"{where}.{kind}.url", hint="send the bytes"
            )


def _parts(messages: Sequence[Message]) -> Iterator[tuple[str, Json]]:
    for number, message in enumerate(messages):
        if isinstance(message.content, list):
            for position, part in enumerate(message.content):
                yield f"messages[{number}].content[{position}]", part


def _name(tool: Json, number: int) -> str:
    function = tool.get("function") if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
        raise InvalidRequest("a tool is a function with a name", param=f"tools[{number}]")
    return name


def _wanted(choice: Json) -> tuple[list[str], str]:
    """Names that may be called, and whether one must be."""
    if isinstance(choice, dict) and choice.get("type") == "function":
        return [_name(choice, 0)], "required"
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed = choice.get("allowed_tools", choice)
        mode = allowed.get("mode", "auto") if isinstance(allowed, dict) else None
        if mode in ("auto", "required") and isinstance(allowed.get("tools"), list):
            return [_name(tool, number) for number, tool in enumerate(allowed["tools"])], mode
    raise InvalidRequest("tool_choice is auto, none, required or a function's name", param="tool_choice")
