"""Anthropic's messages as the canonical request: blocks become parts, tool calls and tool results.

What has no effect on one's own machine (``metadata``, ``service_tier``, ``cache_control`` …) is accepted because
clients send it; what would need Anthropic's servers (files, URLs, server tools, containers) is refused by name.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from dockyard.api import _openai
from dockyard.errors import InvalidRequest, UnsupportedParameter
from dockyard.types import Json, Message, Sampling

IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
REFUSED = {
    "container": "no code is run for a model here",
    "mcp_servers": "no server is called for a model here; offer their tools in `tools`",
}
LOW, MEDIUM = 2048, 8192
"""Budgets of thinking in tokens, up to which the effort is low or medium; above, it is high."""

Blocks = list[dict[str, Json]]
Schema = dict[str, Json]


class Turn(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One turn. A system turn may come between others."""

    role: Literal["user", "assistant", "system"]
    content: str | Blocks


class Thinking(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How much the model may reason before it answers."""

    type: Literal["enabled", "disabled", "adaptive", "between_tools"]
    budget_tokens: Annotated[int, Meta(ge=1)] | None = None
    display: Literal["summarized", "omitted"] | None = None


class ToolChoice(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Which tools the model may or must use."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class OutputConfig(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Effort, and the schema of the answer."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: Schema | None = None


class Conversation(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a prompt is made of: the fields that counting tokens needs too."""

    model: _openai.ModelName
    messages: Annotated[list[Turn], Meta(min_length=1)]
    system: str | Blocks | None = None
    tools: list[dict[str, Json]] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    mcp_servers: Json = None
    # No effect here: accepted because clients send them.
    cache_control: Json = None
    context_management: Json = None
    speed: str | None = None
    user_profile_id: str | None = None
    workspace_id: str | None = None


class MessagesRequest(Conversation, kw_only=True, forbid_unknown_fields=True):
    """The body of ``/v1/messages``."""

    max_tokens: _openai.Count
    stream: bool | None = False
    stop_sequences: _openai.Stops | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: _openai.Unit | None = None
    top_k: Annotated[int, Meta(ge=0, le=1 << 30)] | None = None
    container: Json = None
    # No effect here: accepted because clients send them.
    metadata: dict[str, Json] | None = None
    service_tier: str | None = None
    inference_geo: str | None = None
    diagnostics: Json = None


def sampling(asked: MessagesRequest) -> Sampling:
    return Sampling(
        max_tokens=asked.max_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        stop=tuple(asked.stop_sequences or ()),
    )


def extra(asked: Conversation) -> dict[str, Json]:
    """Tools, effort and schema in OpenAI's shape. Raises InvalidRequest for what contradicts itself."""
    _openai.refuse(asked, {name: why for name, why in REFUSED.items() if hasattr(asked, name)})
    found: dict[str, Json] = {}
    if asked.tools:
        found["tools"] = [_tool(tool, f"tools[{place}]") for place, tool in enumerate(asked.tools)]
    if asked.tool_choice is not None:
        found.update(_choice(asked.tool_choice, [tool["function"]["name"] for tool in found.get("tools", ())]))
    effort = _effort(asked)
    if effort is not None:
        found["reasoning_effort"] = effort
    wanted = asked.output_config.format if asked.output_config is not None else None
    if wanted is not None:
        if wanted.get("type") != "json_schema" or not isinstance(wanted.get("schema"), dict):
            raise InvalidRequest(
                "output_config.format is {'type': 'json_schema', 'schema': …}", param="output_config.format"
            )
        schema = {"name": "answer", "schema": wanted["schema"], "strict": True}
        found["response_format"] = {"type": "json_schema", "json_schema": schema}
    return found


def messages(asked: Conversation) -> tuple[Message, ...]:
    """The conversation. Tool results come right after the turn that called the tools."""
    found: list[Message] = []
    if asked.system:
        found.append(Message(role="system", content=_text(asked.system, "system")))
    for place, turn in enumerate(asked.messages):
        at = f"messages[{place}].content"
        if turn.role == "system":
            found.append(Message(role="system", content=_text(turn.content, at)))
        elif isinstance(turn.content, str):
            found.append(Message(role=turn.role, content=turn.content))
        elif turn.role == "assistant":
            found.append(_assistant(turn.content, at))
        else:
            found.extend(_user(turn.content, at))
    return tuple(found)


def _effort(asked: Conversation) -> str | None:
    thinking = asked.thinking
    if thinking is not None and thinking.type == "enabled":
        budget = thinking.budget_tokens
        if budget is None:
            raise InvalidRequest("'budget_tokens' is required to enable thinking", param="thinking.budget_tokens")
        most = getattr(asked, "max_tokens", None)
        if most is not None and budget >= most:
            raise InvalidRequest(
                f"thinking.budget_tokens: {budget} is not below max_tokens, which is {most}",
                param="thinking.budget_tokens",
            )
        return "low" if budget <= LOW else "medium" if budget <= MEDIUM else "high"
    if thinking is not None and thinking.type == "disabled":
        return "none"
    effort = asked.output_config.effort if asked.output_config is not None else None
    if effort is None:
        return "medium" if thinking is not None else None
    return "high" if effort in ("xhigh", "max") else effort


def _tool(tool: dict[str, Json], at: str) -> dict[str, Json]:
    kind, name, schema = tool.get("type") or "custom", tool.get("name"), tool.get("input_schema")
    if kind != "custom":
        raise UnsupportedParameter(
            f"{at}: the tool {kind!r:.60} is run by Anthropic, not by a model here",
            param=f"{at}.type",
            hint="describe a tool of your own with `name`, `description` and `input_schema`",
        )
    if not isinstance(name, str) or not name:
        raise InvalidRequest(f"{at}.name is required", param=f"{at}.name")
    if not isinstance(schema, dict):
        raise InvalidRequest(f"{at}.input_schema is required, a JSON schema", param=f"{at}.input_schema")
    function: dict[str, Json] = {"name": name, "parameters": schema}
    for field, shape in (("description", str), ("strict", bool)):
        if isinstance(tool.get(field), shape):
            function[field] = tool[field]
    return {"type": "function", "function": function}


def _choice(choice: ToolChoice, names: list[str]) -> dict[str, Json]:
    if choice.type != "none" and not names:
        raise InvalidRequest("'tool_choice' goes with 'tools'", param="tool_choice")
    found: dict[str, Json] = {"tool_choice": {"auto": "auto", "any": "required", "none": "none"}.get(choice.type)}
    if choice.type == "tool":
        if choice.name not in names:
            raise InvalidRequest(
                f"tool_choice: there is no tool {choice.name!r:.80}",
                param="tool_choice.name",
                hint=f"there are {', '.join(names[:20])}",
            )
        found["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    if choice.disable_parallel_tool_use and names:
        found["parallel_tool_calls"] = False
    return found


def _text(content: str | Blocks, at: str) -> str:
    """Text, or the texts of blocks that can be nothing else."""
    if isinstance(content, str):
        return content
    return "\n".join([_field(block, "text", f"{at}[{place}]", "text") for place, block in enumerate(content)])


def _field(block: dict[str, Json], name: str, at: str, kind: str | None = None) -> str:
    if kind is not None and block.get("type") != kind:
        raise InvalidRequest(f"{at}.type must be {kind}, not {block.get('type')!r:.60}", param=f"{at}.type")
    value = block.get(name)
    if not isinstance(value, str):
        raise InvalidRequest(f"{at}.{name} is required and is text", param=f"{at}.{name}")
    return value


def _assistant(blocks: Blocks, at: str) -> Message:
    texts, thoughts, calls = [], [], []
    for place, block in enumerate(blocks):
        here = f"{at}[{place}]"
        match block.get("type"):
            case "text":
                texts.append(_field(block, "text", here))
            case "thinking":
                thoughts.append(_field(block, "thinking", here))
            case "redacted_thinking":
                pass  # nobody but Anthropic can read it
            case "tool_use":
                arguments = msgspec.json.encode(block.get("input") or {}).decode()
                function = {"name": _field(block, "name", here), "arguments": arguments}
                calls.append({"id": _field(block, "id", here), "type": "function", "function": function})
            case other:
                raise _unknown(other, here, "text, thinking, tool_use")
    return Message(
        role="assistant",
        content="".join(texts) if texts or not calls else None,
        tool_calls=calls or None,
        reasoning_content="".join(thoughts) or None,
    )


def _user(blocks: Blocks, at: str) -> list[Message]:
    results: list[Message] = []
    parts: list[dict[str, Json]] = []
    for place, block in enumerate(blocks):
        here = f"{at}[{place}]"
        if block.get("type") == "tool_result":
            message, more = _result(block, here)
            results.append(message)
            parts.extend(more)
        else:
            parts.extend(_parts(block, here))
    return [*results, Message(role="user", content=_content(parts))] if parts or not results else results


def _result(block: dict[str, Json], at: str) -> tuple[Message, list[dict[str, Json]]]:
    """A tool's result as its own turn, and its images, which only a user's turn can hold."""
    content = block.get("content")
    given: Blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    if not isinstance(given, list):
        raise InvalidRequest(f"{at}.content is text or blocks", param=f"{at}.content")
    parts = [part for place, one in enumerate(given) for part in _parts(one, f"{at}.content[{place}]")]
    text = "\n".join([part["text"] for part in parts if part["type"] == "text"])
    if block.get("is_error"):
        text = f"Error: {text}"
    message = Message(role="tool", content=text, tool_call_id=_field(block, "tool_use_id", at))
    return message, [part for part in parts if part["type"] != "text"]


def _parts(block: Any, at: str) -> list[dict[str, Json]]:
    """A user's block as OpenAI's content parts."""
    if not isinstance(block, dict):
        raise InvalidRequest(f"{at} is a block, an object with a type", param=at)
    match block.get("type"):
        case "text":
            return [_as_text(_field(block, "text", at))]
        case "image":
            return [_image(_source(block, at), f"{at}.source")]
        case "document":
            return _document(block, at)
        case "search_result":
            lines = (_field(block, "title", at), _field(block, "source", at), _text(block.get("content") or [], at))
            return [_as_text("\n".join(lines))]
        case other:
            raise _unknown(other, at, "text, image, document, search_result, tool_result")


def _document(block: dict[str, Json], at: str) -> list[dict[str, Json]]:
    source = _source(block, at)
    head = [_as_text(block[name]) for name in ("title", "context") if isinstance(block.get(name), str)]
    if source.get("type") == "text":
        return [*head, _as_text(_field(source, "data", f"{at}.source"))]
    if source.get("type") == "content":
        content = source.get("content")
        if isinstance(content, str):
            return [*head, _as_text(content)]
        given = content if isinstance(content, list) else []
        return [*head, *(p for n, one in enumerate(given) for p in _parts(one, f"{at}.source.content[{n}]"))]
    raise UnsupportedParameter(
        f"{at}.source: a document of type {source.get('type')!r:.40} can't be read here",
        param=f"{at}.source.type",
        hint="send its text: {'type': 'text', 'media_type': 'text/plain', 'data': …}",
    )


def _image(source: dict[str, Json], at: str) -> dict[str, Json]:
    if source.get("type") != "base64":
        raise UnsupportedParameter(
            f"{at}: an image of type {source.get('type')!r:.40} is not fetched",
            param=f"{at}.type",
            hint="send the image itself, with the type base64",
        )
    kind, data = _field(source, "media_type", at), _field(source, "data", at)
    if kind not in IMAGES:
        raise InvalidRequest(f"{at}.media_type must be one of {', '.join(IMAGES)}", param=f"{at}.media_type")
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{at}.data is not base64", param=f"{at}.data") from None
    return {"type": "image_url", "image_url": {"url": f"data:{kind};base64,{data}"}}


def _source(block: dict[str, Json], at: str) -> dict[str, Json]:
    source = block.get("source")
    if not isinstance(source, dict):
        raise InvalidRequest(f"{at}.source is required", param=f"{at}.source")
    return source


def _as_text(text: str) -> dict[str, Json]:
    return {"type": "text", "text": text}


def _content(parts: list[dict[str, Json]]) -> str | list[Json]:
    """Plain text where there is nothing else: every engine and template takes that."""
    if all(part["type"] == "text" for part in parts):
        return "\n".join([part["text"] for part in parts])
    return list(parts)


def _unknown(kind: Any, at: str, known: str) -> InvalidRequest:
    return InvalidRequest(f"{at}.type must be one of {known}, not {kind!r:.60}", param=f"{at}.type")
