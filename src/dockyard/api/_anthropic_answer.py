"""An answer in Anthropic's words: a message of blocks, whole or as the events that build it."""

from __future__ import annotations

from typing import Any

import msgspec

from dockyard.api import _openai
from dockyard.api._endpoint import Unstreamed
from dockyard.types import Call, Chunk, Json, Usage

STOPPED = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}

_encode = msgspec.json.encode


def event(name: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _encode({"type": name, **fields}))


def usage_fields(usage: Usage) -> dict[str, Json]:
    """Anthropic counts what came from the cache beside ``input_tokens``, not in it."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }


class MessageAsked:
    """A request for a message and the writing of its answer.

    Reasoning is shown only to those who asked for thinking; with ``hidden`` as a block without its text.
    """

    def __init__(self, call: Call, *, thinking: bool, hidden: bool) -> None:
        self.calls = [call]
        self._thinking = thinking
        self._hidden = hidden
        self._index = -1
        self._open: str | int | None = None
        """The kind of the block that is open; for a tool call its index."""
        self._finish: str | None = None
        self._stop: str | None = None

    def begin(self) -> bytes:
        message = {**self._message([]), "usage": usage_fields(Usage())}
        return event("message_start", message=message) + event("ping")

    def events(self, batch: list[Chunk]) -> bytes:
        return b"".join([part for chunk in batch for part in self._chunk(chunk)])

    def end(self, usage: Usage, extra: dict[str, Any] | None) -> bytes:
        fields: dict[str, Any] = {"delta": self._stopped(), "usage": usage_fields(usage)}
        if extra is not None:
            fields["dockyard"] = extra
        return self._close() + event("message_delta", **fields) + event("message_stop")

    def whole(self, batches: list[list[Chunk]], usage: Usage, extra: dict[str, Any] | None) -> bytes:
        choice = _openai.gathered(batches, 1)[0]
        for batch in batches:
            for chunk in batch:
                self._note(chunk)
        content: list[dict[str, Json]] = []
        if choice.reasoning and self._thinking:
            thought = "" if self._hidden else "".join(choice.reasoning)
            content.append({"type": "thinking", "thinking": thought, "signature": ""})
        if text := "".join(choice.texts):
            content.append({"type": "text", "text": text})
        for made in choice.tool_calls:
            function = made["function"]
            found = {"type": "tool_use", "id": made["id"] or _openai.new_id("toolu_"), "name": function["name"]}
            content.append({**found, "input": arguments(function["arguments"])})
        answer = {**self._message(content), **self._stopped(), "usage": usage_fields(usage)}
        if extra is not None:
            answer["dockyard"] = extra
        return _encode(answer)

    def _message(self, content: list[dict[str, Json]]) -> dict[str, Any]:
        call = self.calls[0]
        return {
            "id": call.request.id,
            "type": "message",
            "role": "assistant",
            "model": call.model,
            "content": content,
            "stop_reason": None,
            "stop_sequence": None,
        }

    def _note(self, chunk: Chunk) -> None:
        if chunk.finish is not None:
            self._finish = chunk.finish
            self._stop = chunk.stop

    def _stopped(self) -> dict[str, Json]:
        if self._stop is not None:
            return {"stop_reason": "stop_sequence", "stop_sequence": self._stop}
        return {"stop_reason": STOPPED.get(self._finish or "stop", "end_turn"), "stop_sequence": None}

    def _chunk(self, chunk: Chunk) -> list[bytes]:
        self._note(chunk)
        found: list[bytes] = []
        if chunk.reasoning and self._thinking:
            if self._open != "thinking":
                found.append(self._start("thinking", {"type": "thinking", "thinking": "", "signature": ""}))
            if not self._hidden:
                found.append(self._delta({"type": "thinking_delta", "thinking": chunk.reasoning}))
        if chunk.text:
            if self._open != "text":
                found.append(self._start("text", {"type": "text", "text": ""}))
            found.append(self._delta({"type": "text_delta", "text": chunk.text}))
        for position, delta in enumerate(chunk.tool_calls or ()):
            function = delta.get("function") or {}
            index = delta.get("index", position)
            if self._open != index:
                block: dict[str, Json] = {
                    "type": "tool_use",
                    "id": delta.get("id") or _openai.new_id("toolu_"),
                    "input": {},
                }
                found.append(self._start(index, {**block, "name": function.get("name") or ""}))
            if function.get("arguments"):
                found.append(self._delta({"type": "input_json_delta", "partial_json": function["arguments"]}))
        return found

    def _start(self, kind: str | int, block: dict[str, Json]) -> bytes:
        before = self._close()
        self._open = kind
        self._index += 1
        return before + event("content_block_start", index=self._index, content_block=block)

    def _delta(self, delta: dict[str, Json]) -> bytes:
        return event("content_block_delta", index=self._index, delta=delta)

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return event("content_block_stop", index=self._index)


def arguments(text: str) -> Json:
    """A tool call's arguments as JSON; what is no object comes as it is, under "arguments"."""
    try:
        found = msgspec.json.decode(text or "{}")
    except msgspec.DecodeError:
        return {"arguments": text}
    return found if isinstance(found, dict) else {"arguments": found}


class CountAsked(Unstreamed):
    """A request to count the tokens of a prompt, and the writing of its answer. It is never streamed."""

    def __init__(self, call: Call) -> None:
        self.calls = [call]

    def whole(self, batches: list[list[Chunk]], usage: Usage, extra: dict[str, Any] | None) -> bytes:
        tokens = sum(len(chunk.result.tokens) for batch in batches for chunk in batch if chunk.result is not None)
        answer: dict[str, Any] = {"input_tokens": tokens or usage.prompt_tokens}
        if extra is not None:
            answer["dockyard"] = extra
        return _encode(answer)
