"""Takes a model's text apart while it comes: what it says, what it thinks, and the tools it calls.

The form is the one that Qwen, Hermes and many others were trained on: ``<think>…</think>`` and
``<tool_call>{"name": …, "arguments": {…}}</tool_call>``. What looks like a call and is none stays text.
"""

from __future__ import annotations

import json
import secrets

from dockyard.types import Json

THINK, THOUGHT = "<think>", "</think>"
CALL, CALLED = "<tool_call>", "</tool_call>"


class Parser:
    """One choice's text. ``thinking``: the prompt has opened the thought already. ``tools``: names that may be called.

    ``finish`` is "tool_calls" once there was a call, else None.
    """

    def __init__(self, tools: frozenset[str], *, thinks: bool, thinking: bool = False) -> None:
        self.finish: str | None = None
        self._tools = tools
        self._opens = [mark for mark, wanted in ((THINK, thinks), (CALL, bool(tools))) if wanted]
        self._inside = THINK if thinking else ""
        self._held = ""
        self._count = 0
        self._fresh = True

    def add(self, text: str, *, last: bool) -> tuple[str, str, list[Json] | None]:
        """Text, reasoning and calls, in OpenAI's shape, that are certain by now; all of it when it is the ``last``."""
        said, thought = "", ""
        calls: list[Json] = []
        rest = self._held + text
        while True:
            marks = {"": self._opens, THINK: [THOUGHT], CALL: [CALLED]}[self._inside]
            found = [(at, mark) for mark in marks if (at := rest.find(mark)) >= 0]
            if not found:
                break
            at, mark = min(found)
            before, rest = rest[:at], rest[at + len(mark) :]
            if self._inside == CALL:
                said += self._call(before, calls)
            elif self._inside == THINK:
                thought += before
            else:
                said += before
            self._inside = mark if mark in (THINK, CALL) else ""
        if self._inside == CALL and not last:
            self._held = rest
        else:
            keep = 0 if last else max((_overlap(rest, mark) for mark in marks), default=0)
            certain, self._held = rest[: len(rest) - keep], rest[len(rest) - keep :]
            if self._inside == CALL:
                said += self._call(certain, calls)
            elif self._inside == THINK:
                thought += certain
            else:
                said += certain
        return self._trim(said), thought, calls or None

    def _trim(self, said: str) -> str:
        """Models put line breaks around calls and thoughts, which are no part of what they say."""
        if self._tools or THINK in self._opens:
            if self._fresh:
                said = said.lstrip("\n")
            self._fresh = self._fresh and not said
            if self._count and not said.strip():
                return ""
        return said

    def _call(self, text: str, calls: list[Json]) -> str:
        """Adds the call; returns the text where it is none."""
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        arguments = found.get("arguments", found.get("parameters", {})) if isinstance(found, dict) else None
        if not isinstance(arguments, dict) or found is None or found.get("name") not in self._tools:
            return f"{CALL}{text}{CALLED}"
        function = {"name": found["name"], "arguments": json.dumps(arguments, ensure_ascii=False)}
        calls.append(
            {"index": self._count, "id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}
        )
        self._count += 1
        self.finish = "tool_calls"
        return ""


def names(tools: Json) -> frozenset[str]:
    """The functions that OpenAI's ``tools`` declare."""
    listed = tools if isinstance(tools, list) else []
    found = [tool.get("function", {}).get("name") for tool in listed if isinstance(tool, dict)]
    return frozenset(name for name in found if isinstance(name, str))


def _overlap(text: str, mark: str) -> int:
    for length in range(min(len(text), len(mark) - 1), 0, -1):
        if mark.startswith(text[-length:]):
            return length
    return 0
