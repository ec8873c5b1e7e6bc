"""The turns of a chat request, checked: who speaks, what of, and which tool call a result answers."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from dockyard.errors import InvalidRequest, UnsupportedParameter
from dockyard.types import Json, Message

PARTS = ("text", "image_url", "input_audio", "refusal", "video_url")
SOUNDS = ("wav", "mp3")
HINTS = frozenset({"prompt_cache_breakpoint", "cache_control"})
"""Fields of a content part that change no answer."""


class WireMessage(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A turn. Fields that OpenAI puts into answers are accepted when an answer is sent back, if they are empty."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Json]] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Json]] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    annotations: list[Json] | None = None
    audio: Json = None
    function_call: Json = None


def messages_of(turns: list[WireMessage]) -> tuple[Message, ...]:
    """The conversation for an engine. Raises InvalidRequest and UnsupportedParameter by turn and field."""
    asked: set[str] = set()
    found = []
    for number, turn in enumerate(turns):
        at = f"messages[{number}]"
        if turn.role == "tool" or turn.role == "function" or turn.tool_calls or turn.audio or turn.function_call:
            _check_calls(turn, at, asked)
        found.append(_message(turn, at))
    return tuple(found)


def _message(turn: WireMessage, at: str) -> Message:
    content: str | list[Json] | None = turn.content
    if isinstance(content, list):
        content = [_part(part, f"{at}.content[{place}]") for place, part in enumerate(content)]
    elif content is None:
        content = turn.refusal
        if content is None and not turn.tool_calls and turn.role != "assistant":
            raise InvalidRequest(f"{at} has no content", param=f"{at}.content")
    return Message(
        role=turn.role,
        content=content,
        name=turn.name,
        tool_calls=turn.tool_calls or None,
        tool_call_id=turn.tool_call_id,
        reasoning_content=turn.reasoning_content,
    )


def _check_calls(turn: WireMessage, at: str, asked: set[str]) -> None:
    """Tool calls have names and identities, and results answer one of them; ``asked`` holds those so far."""
    if turn.role == "function" or turn.function_call:
        name = "function_call" if turn.function_call else "role"
        raise UnsupportedParameter(
            f"{at}.{name}: functions are not supported", param=f"{at}.{name}", hint="use tools and tool calls"
        )
    if turn.audio:
        raise UnsupportedParameter(f"{at}.audio is not supported", param=f"{at}.audio", hint="send its transcript")
    if turn.tool_calls and turn.role != "assistant":
        raise InvalidRequest(f"{at}: only the assistant calls tools", param=f"{at}.tool_calls")
    for number, call in enumerate(turn.tool_calls or ()):
        asked.add(_check_call(call, f"{at}.tool_calls[{number}]"))
    if turn.role == "tool":
        where = f"{at}.tool_call_id"
        if not turn.tool_call_id:
            raise InvalidRequest(f"{at} answers no tool call: 'tool_call_id' is required", param=where)
        if turn.tool_call_id not in asked:
            raise InvalidRequest(f"{at} answers {turn.tool_call_id!r:.80}, which nobody called before it", param=where)


def _check_call(call: dict[str, Json], at: str) -> str:
    if call.get("type", "function") != "function":
        raise UnsupportedParameter(f"{at}.type: only functions are supported", param=f"{at}.type")
    function = call.get("function")
    if not isinstance(function, dict):
        raise InvalidRequest(f"{at}.function is required", param=f"{at}.function")
    for field in ("name", "arguments"):
        if not isinstance(function.get(field), str):
            raise InvalidRequest(f"{at}.function.{field} is required and is text", param=f"{at}.function.{field}")
    identity = call.get("id")
    if not isinstance(identity, str) or not identity:
        raise InvalidRequest(f"{at}.id is required and is text", param=f"{at}.id")
    return identity


def _part(part: dict[str, Json], at: str) -> dict[str, Json]:
    kind = part.get("type")
    if kind == "file":
        raise UnsupportedParameter("files are not read here", param=f"{at}.file", hint="send their text or an image")
    if not isinstance(kind, str) or kind not in PARTS:
        raise InvalidRequest(f"{at}.type must be one of {', '.join(PARTS)}, not {kind!r:.60}", param=f"{at}.type")
    plain = kind in ("text", "refusal")
    if kind not in part or (plain and not isinstance(part[kind], str)):
        raise InvalidRequest(f"{at}.{kind} is required" + (" and is text" if plain else ""), param=f"{at}.{kind}")
    for name in part.keys() - {"type", kind} - HINTS:
        raise UnsupportedParameter(f"{at}: there is no field {name!r:.60} here", param=f"{at}.{name}")
    if kind == "input_audio":
        _check_sound(part[kind], f"{at}.{kind}")
    elif not plain:
        _check_picture(part[kind], f"{at}.{kind}")
    if kind == "refusal":
        return {"type": "text", "text": part["refusal"]}
    return {"type": kind, kind: part[kind]}


def _check_picture(picture: Json, at: str) -> None:
    """An image or a film is sent along: this server fetches nothing on behalf of a caller."""
    address: Any = picture.get("url") if isinstance(picture, dict) else None
    if not isinstance(address, str):
        raise InvalidRequest(f"{at}.url is required and is text", param=f"{at}.url")
    if not address.startswith("data:"):
        raise InvalidRequest(
            f"{at}.url must be a data: URL", param=f"{at}.url", hint="nothing is fetched: send it whole"
        )


def _check_sound(sound: Json, at: str) -> None:
    if not isinstance(sound, dict) or not isinstance(sound.get("data"), str):
        raise InvalidRequest(f"{at}.data is required and is text", param=f"{at}.data")
    if sound.get("format") not in SOUNDS:
        raise InvalidRequest(f"{at}.format must be one of {', '.join(SOUNDS)}", param=f"{at}.format")
