"""Input items of the Responses dialect: checked and named, then told as the turns of a chat."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from dockyard.api import _responses_mcp_items as tools
from dockyard.api._responses_compact import unpacked
from dockyard.api._responses_wire import Item
from dockyard.errors import InvalidRequest, UnsupportedParameter
from dockyard.types import Json, Message

ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
    "compaction": "cmp",
    **tools.PREFIXES,
}
STATUSES = ("in_progress", "completed", "incomplete", "calling", "failed", "interpreting")


def named(given: str | list[Item] | None, name: Callable[[str], str]) -> list[Item]:
    """A request's input as items of which each has an id, a type and a status; references stay what they are.

    ``name`` makes an id of a prefix. Raises InvalidRequest and UnsupportedParameter with the path of what is wrong.
    """
    if given is None:
        return []
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    return [_named(item, f"input[{number}]", name) for number, item in enumerate(given)]


def _named(item: Item, at: str, name: Callable[[str], str]) -> Item:
    kind = item.get("type", "message" if "role" in item else None)
    if not isinstance(kind, str):
        raise InvalidRequest(f"{at}.type is required and is text", param=f"{at}.type")
    identity = item.get("id")
    if identity is not None and (not isinstance(identity, str) or not 0 < len(identity) <= 64):
        raise InvalidRequest(f"{at}.id is a text of at most 64 characters", param=f"{at}.id")
    if item.get("status") not in (None, *STATUSES):
        raise InvalidRequest(f"{at}.status is one of {', '.join(STATUSES)}", param=f"{at}.status")
    if kind == "item_reference":
        _texts(item, at, "id")
        return {"type": kind, "id": identity}
    if kind not in PREFIXES:
        raise UnsupportedParameter(
            f"{at}: items of type {kind!r:.60} are not served",
            param=f"{at}.type",
            hint=f"send {', '.join(PREFIXES)} or item_reference",
        )
    found = {**item, "type": kind, "id": identity or name(PREFIXES[kind])}
    if kind == "message":
        found["content"] = _content(item, at)
        found["status"] = item.get("status") or "completed"
    elif kind == "function_call":
        _texts(item, at, "call_id", "name", "arguments")
        found["status"] = item.get("status") or "completed"
    elif kind == "function_call_output":
        _texts(item, at, "call_id")
        output = item.get("output")
        if not isinstance(output, str | list):
            raise InvalidRequest(f"{at}.output is required: text, or a list of parts", param=f"{at}.output")
        if isinstance(output, list):
            found["output"] = [_part(part, f"{at}.output[{place}]", "user") for place, part in enumerate(output)]
        found["status"] = item.get("status") or "completed"
    elif kind in tools.PREFIXES:
        tools.check(found, at)
    elif kind == "compaction":
        _texts(item, at, "encrypted_content")
        unpacked(item["encrypted_content"], f"{at}.encrypted_content")
    else:
        for field in ("summary", "content"):
            parts = item.get(field) or []
            if not isinstance(parts, list) or not all(isinstance(_text(part), str) for part in parts):
                raise InvalidRequest(f"{at}.{field} is a list of texts", param=f"{at}.{field}")
    return found


def _texts(item: Item, at: str, *fields: str) -> None:
    for field in fields:
        if not isinstance(item.get(field), str):
            raise InvalidRequest(f"{at}.{field} is required and is text", param=f"{at}.{field}")


def _content(item: Item, at: str) -> list[Item]:
    role, content = item.get("role"), item.get("content")
    if not isinstance(role, str) or role not in ROLES:
        raise InvalidRequest(f"{at}.role is one of {', '.join(ROLES)}", param=f"{at}.role")
    if isinstance(content, str):
        if role == "assistant":
            return [{"type": "output_text", "text": content, "annotations": []}]
        return [{"type": "input_text", "text": content}]
    if not isinstance(content, list):
        raise InvalidRequest(f"{at}.content is required: text, or a list of parts", param=f"{at}.content")
    return [_part(part, f"{at}.content[{place}]", role) for place, part in enumerate(content)]


def _part(part: Json, at: str, role: str) -> Item:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("input_text", "output_text", "text", "summary_text", "reasoning_text"):
        if not isinstance(part.get("text"), str):
            raise InvalidRequest(f"{at}.text is required and is text", param=f"{at}.text")
        if role == "assistant":
            return {"annotations": [], **part, "type": "output_text"}
        return {**part, "type": "input_text"}
    if kind == "refusal" and role == "assistant" and isinstance(part.get("refusal"), str):
        return dict(part)
    if role != "assistant":
        if kind == "input_image" and (isinstance(part.get("image_url"), str) or isinstance(part.get("file_id"), str)):
            return {"detail": "auto", **part}
        if kind == "input_file":
            if part.get("file_url"):
                raise UnsupportedParameter(
                    f"{at}.file_url: nothing is fetched from elsewhere", param=f"{at}.file_url", hint="send `file_data`"
                )
            if isinstance(part.get("file_data"), str) or isinstance(part.get("file_id"), str):
                return dict(part)
        if kind == "input_audio" and isinstance(part.get("input_audio"), dict):
            return dict(part)
    told = {"input_image": "`image_url` or `file_id`", "input_file": "`file_data` or `file_id`"}.get(str(kind))
    if told is not None and role != "assistant":
        raise InvalidRequest(f"{at}: {kind} needs {told}", param=at)
    raise InvalidRequest(f"{at}.type: an item of role {role} has no part {kind!r:.60}", param=f"{at}.type")


def messages(items: Iterable[Item], instructions: str | None) -> tuple[Message, ...]:
    """The items as turns of a chat. Those that one answer consists of (reasoning, text, calls) become one turn, and
    leading system turns too, since many templates take just one.
    """
    turns: list[dict[str, Any]] = []
    if instructions:
        turns.append({"role": "system", "content": instructions})
    reasoning = ""
    items = list(items)
    for item in items:
        kind = item["type"]
        if kind == "reasoning":
            texts = [_text(part) for part in item.get("content") or item.get("summary") or ()]
            reasoning += "\n".join(text for text in texts if text)
            continue
        if kind in tools.PREFIXES:
            told_of = tools.turns(item, items)
            turn = _answering(turns) if not reasoning and told_of else None
            if turn is not None:
                turn.setdefault("tool_calls", []).extend(told_of.pop(0)["tool_calls"])
            elif told_of and reasoning:
                told_of[0]["reasoning_content"], reasoning = reasoning, ""
            turns += told_of
            continue
        if kind == "function_call":
            call = {"name": item["name"], "arguments": item["arguments"]}
            turn = _answering(turns) if not reasoning else None
            if turn is None:
                turns.append(turn := {"role": "assistant", "content": None})
            turn.setdefault("tool_calls", []).append({"id": item["call_id"], "type": "function", "function": call})
        elif kind == "function_call_output":
            output = item["output"]
            told = output if isinstance(output, str) else _told(output)
            turns.append({"role": "tool", "content": told, "tool_call_id": item["call_id"]})
        elif kind == "compaction":
            summary = unpacked(item["encrypted_content"], "encrypted_content")
            turns.append({"role": "user", "content": f"What was said before, in short:\n{summary}"})
        else:
            turns.append({"role": ROLES[item["role"]], "content": _told(item["content"])})
        if reasoning and turns[-1]["role"] == "assistant":
            turns[-1]["reasoning_content"] = reasoning
        reasoning = ""
    return tuple(Message(**turn) for turn in _one_system(turns))


def _answering(turns: list[dict[str, Any]]) -> dict[str, Any] | None:
    return turns[-1] if turns and turns[-1]["role"] == "assistant" else None


def _one_system(turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    count = 0
    while count < len(turns) and turns[count]["role"] == "system" and isinstance(turns[count]["content"], str):
        count += 1
    if count < 2:
        return turns
    return [{"role": "system", "content": "\n\n".join(turn["content"] for turn in turns[:count])}, *turns[count:]]


def _told(parts: list[Item]) -> str | list[Json]:
    told = [_chat_part(part) for part in parts]
    if all(part["type"] == "text" for part in told):
        return "".join(part["text"] for part in told)
    return told


def _chat_part(part: Item) -> Item:
    kind = part["type"]
    if kind == "input_image":
        return {"type": "image_url", "image_url": {"url": part["image_url"], "detail": part["detail"]}}
    if kind == "input_audio":
        return {"type": "input_audio", "input_audio": part["input_audio"]}
    if kind == "input_file":
        fields = {field: part[field] for field in ("file_data", "filename") if part.get(field) is not None}
        return {"type": "file", "file": fields}
    return {"type": "text", "text": part["refusal"] if kind == "refusal" else part["text"]}


def _text(part: Json) -> Any:
    return part.get("text") if isinstance(part, dict) else None
