"""How the echo engine plays a model that reasons, calls tools and answers in JSON, so that protocols can be tested.

- Tools: a required or named tool is called; otherwise those that the user's text mentions by name, or the one that has
  the most words of its name in the text. Tools that the word "then" divides are called one step after the other, each
  filled from its own part. After the last tool's result the answer is the results.
- JSON: the least that the schema allows, filled from the text (``_echo_fill``). Without a schema: the object that is in
  the text, else one with the keys that the text quotes where it speaks of keys, else with the key "answer".
- ``reasoning_effort`` (not "none") or the template's ``enable_thinking``: a short thought comes first.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

import msgspec

from dockyard.engines import _echo
from dockyard.engines._echo import text_of
from dockyard.engines._echo_fill import Source, fill
from dockyard.errors import InvalidRequest
from dockyard.types import Chunk, Json, Message, Request, TokenLogprob, Usage

PIECE = 12
"""Characters of a call's arguments in one delta."""
_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


def play(request: Request, said: str, prompt_tokens: int) -> list[Chunk] | None:
    """The answer that ``request.extra`` asks for; None where it asks for nothing but the plain one."""
    extra, messages = request.extra, request.messages or ()
    thought = _thought(extra, said)
    last = messages[-1] if messages else None
    if last is not None and last.role == "tool":
        part = _next_part(extra, messages)
        if part is None:
            return _echo.say(request, _results(messages), prompt_tokens, thought=thought)
        said = part
    elif extra.get("tool_choice") in (None, "auto"):
        said = next((part for part in _parts(said) if _named(_functions(extra), part)), said)
    if calls := _calls(extra, said, len(messages)):
        return _calling(request, calls, prompt_tokens, thought)
    told = _formatted(extra.get("response_format"), said)
    if told is None and not thought:
        return None
    return _echo.say(request, said if told is None else told, prompt_tokens, thought=thought)


def _thought(extra: dict[str, Json], said: str) -> tuple[str, ...]:
    effort = extra.get("reasoning_effort")
    kwargs = extra.get("chat_template_kwargs") or {}
    if effort in (None, "none") and not kwargs.get("enable_thinking"):
        return ()
    return tuple(_echo.words_of(f"The user sent {len(said.split())} words."))


def _results(messages: tuple[Message, ...]) -> str:
    """What the tools answered since the user spoke."""
    return "\n".join(text_of(message) for message in _since(messages) if message.role == "tool")


def _since(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The turns after the user's last."""
    last = max((place for place, one in enumerate(messages) if one.role == "user"), default=-1)
    return messages[last + 1 :]


def _parts(said: str) -> list[str]:
    return re.split(r"\bthen\b", said)


def _next_part(extra: dict[str, Json], messages: tuple[Message, ...]) -> str | None:
    """The first part of the user's text whose tools were not called yet; None where nothing is left to call."""
    if extra.get("tool_choice") not in (None, "auto"):
        return None
    done = sum(len(message.tool_calls or ()) for message in _since(messages))
    said = next((text_of(message) for message in reversed(messages) if message.role == "user"), "")
    count = 0
    for part in _parts(said):
        if named := _named(_functions(extra), part):
            if count >= done:
                return part
            count += len(named)
    return None


def _functions(extra: dict[str, Json]) -> list[dict[str, Any]]:
    return [tool["function"] for tool in extra.get("tools") or () if tool.get("type") == "function"]


def _calls(extra: dict[str, Json], said: str, turns: int) -> list[dict[str, Any]]:
    """The tool calls to make, in OpenAI's shape."""
    functions = _functions(extra)
    choice = extra.get("tool_choice") or "auto"
    if not functions or choice == "none":
        return []
    if isinstance(choice, dict):
        wanted = choice["function"]["name"]
        chosen = [one for one in functions if one["name"] == wanted]
        if not chosen:
            raise InvalidRequest(f"there is no tool {wanted!r}", param="tool_choice")
    else:
        chosen = _mentioned(functions, said) or (functions[:1] if choice == "required" else [])
    if extra.get("parallel_tool_calls") is False:
        chosen = chosen[:1]
    source = Source(said)
    calls = []
    for number, function in enumerate(chosen):
        schema = function.get("parameters") or {"type": "object"}
        arguments = msgspec.json.encode(fill(schema, source, at="tools")).decode()
        name = function["name"]
        mark = hashlib.sha256(f"{turns} {number} {name} {arguments}".encode()).hexdigest()[:24]
        calls.append({"id": f"call_{mark}", "name": name, "arguments": arguments})
    return calls


def _named(functions: list[dict[str, Any]], said: str) -> list[dict[str, Any]]:
    """The functions named in the text, in its order."""
    text = said.lower()
    named: list[tuple[int, int, dict[str, Any]]] = []
    for function in functions:
        found = re.search(rf"(?<![\w-]){re.escape(function['name'].lower())}(?![\w-])", text)
        if found:
            named.append((found.start(), len(named), function))
    return [function for _, _, function in sorted(named, key=lambda one: one[:2])]


def _mentioned(functions: list[dict[str, Any]], said: str) -> list[dict[str, Any]]:
    """Those named in the text; else the one with the most words of its name there."""
    if named := _named(functions, said):
        return named
    text = said.lower()
    words = set(re.findall(r"[^\W_]+", text))
    best, most = None, 0
    for function in functions:
        parts = {part.lower() for part in _PART.findall(function["name"]) if len(part) > 2}
        if (shared := len(parts & words)) > most:
            best, most = function, shared
    return [best] if best is not None else []


def _calling(
    request: Request, calls: list[dict[str, Any]], prompt_tokens: int, thought: tuple[str, ...]
) -> list[Chunk]:
    """Tool calls as a model streams them: its name, then its arguments in pieces."""
    deltas: list[dict[str, Any]] = []
    for index, call in enumerate(calls):
        function = {"name": call["name"], "arguments": ""}
        deltas.append({"index": index, "id": call["id"], "type": "function", "function": function})
        arguments = call["arguments"]
        deltas += [
            {"index": index, "function": {"arguments": arguments[at : at + PIECE]}}
            for at in range(0, len(arguments), PIECE)
        ]
    n, limit = request.sampling.n, request.sampling.max_tokens
    steps = [Chunk(reasoning=word) for word in thought] + [Chunk(tool_calls=[delta]) for delta in deltas]
    finish = "tool_calls"
    if limit is not None and limit < len(steps):
        steps, finish = steps[:limit], "length"
    certain: list[TokenLogprob] | None = None if request.sampling.logprobs is None else []
    chunks = [
        Chunk("", index, None, None, certain, step.reasoning, step.tool_calls) for step in steps for index in range(n)
    ]
    usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=len(chunks))
    return _echo.ended(chunks, n, finish, usage)


def _formatted(wanted: Json, said: str) -> str | None:
    """The answer in the format that was asked for; None: as it comes."""
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "json_object":
        keys = re.findall(r"(?<!\w)[`'\"](\w+)[`'\"]", said) if "key" in said.lower() else []
        value = _object_in(said)
        return _spaced(dict.fromkeys(keys or ["answer"], said) if value is None else value)
    if kind == "json_schema":
        schema = wanted["json_schema"].get("schema") or {}
        return _spaced(fill(schema, Source(said), at="response_format"))
    return None


def _object_in(said: str) -> dict[str, Json] | None:
    """The JSON object that the text contains."""
    begin, end = said.find("{"), said.rfind("}")
    try:
        return msgspec.json.decode(said[begin : end + 1], type=dict[str, Any]) if 0 <= begin < end else None
    except (msgspec.DecodeError, RecursionError):
        return None


def _spaced(value: Json) -> str:
    """JSON with a space after each comma and colon, so that it has several words."""
    return msgspec.json.format(msgspec.json.encode(value), indent=0).decode()
