"""Answers as Ollama gives them: JSON objects, one a line where they are streamed, times in nanoseconds."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import msgspec

from dockyard.api import _openai
from dockyard.api._anthropic_answer import arguments
from dockyard.api._endpoint import Unstreamed
from dockyard.api.openai_embeddings import numbers, shortened
from dockyard.errors import EngineError
from dockyard.types import Call, Chunk, Json, Result, TokenLogprob, Usage

_encode = msgspec.json.encode


def now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def nanoseconds(seconds: float | None) -> int:
    return max(0, int((seconds or 0.0) * 1e9))


def load_seconds(call: Call) -> float:
    """How long the model was waited for."""
    return next((step.seconds for step in call.steps if step.name == "route"), 0.0)


def times(call: Call, usage: Usage) -> dict[str, int]:
    """Ollama's figures: the engine's own where it tells them, else what was seen from outside."""
    end = time.monotonic()
    loading, first = load_seconds(call), call.first_token or end
    prefill = usage.prefill_seconds if usage.prefill_seconds is not None else first - call.received - loading
    decode = usage.decode_seconds if usage.decode_seconds is not None else end - first
    return {
        "total_duration": nanoseconds(end - call.received),
        "load_duration": nanoseconds(loading),
        "prompt_eval_count": usage.prompt_tokens,
        "prompt_eval_duration": nanoseconds(prefill),
        "eval_count": usage.completion_tokens,
        "eval_duration": nanoseconds(decode),
    }


class TextAsked:
    """A request for text and the writing of its answer: a message of ``/api/chat``, a response of ``/api/generate``."""

    def __init__(self, call: Call, name: str, *, chat: bool, ignored: list[str]) -> None:
        self.calls = [call]
        self._name = name
        self._chat = chat
        self._ignored = ignored
        self._made: list[dict[str, Any]] = []
        self._finish: str | None = None

    def begin(self) -> bytes:
        return b""

    def events(self, batch: list[Chunk]) -> bytes:
        found = _openai.gathered([batch], 1)[0]
        for chunk in batch:
            if chunk.tool_calls:
                _openai.merge_tool_calls(self._made, chunk.tool_calls)
        self._finish = found.finish or self._finish
        calls = self._made if found.finish is not None else []
        found.tool_calls = calls
        if not (found.texts or found.reasoning or found.logprobs or calls):
            return b""
        return self._line(found, done=False)

    def end(self, usage: Usage, extra: dict[str, Any] | None) -> bytes:
        return self._line(_openai.Choice(), done=True, **self._last(self._finish, usage, extra))

    def whole(self, batches: list[list[Chunk]], usage: Usage, extra: dict[str, Any] | None) -> bytes:
        found = _openai.gathered(batches, 1)[0]
        return self._line(found, done=True, **self._last(found.finish, usage, extra)).rstrip(b"\n")

    def _last(self, finish: str | None, usage: Usage, extra: dict[str, Any] | None) -> dict[str, Any]:
        found: dict[str, Any] = {"done_reason": "length" if finish == "length" else "stop"}
        found |= times(self.calls[0], usage)
        told = {**(extra or {}), **({"ignored": self._ignored} if self._ignored else {})}
        return {**found, "dockyard": told} if told else found

    def _line(self, found: _openai.Choice, *, done: bool, **more: Any) -> bytes:
        line: dict[str, Any] = {"model": self._name, "created_at": now()}
        text, thought = "".join(found.texts), "".join(found.reasoning)
        calls = [_call(call) for call in found.tool_calls]
        if self._chat:
            message: dict[str, Any] = {"role": "assistant", "content": text}
            line["message"] = message
        else:
            message = line
            line["response"] = text
        if thought:
            message["thinking"] = thought
        if calls:
            message["tool_calls"] = calls
        if found.logprobs is not None:
            line["logprobs"] = [_logprob(one) for one in found.logprobs]
        return _encode({**line, "done": done, **more}) + b"\n"


class EmbedAsked(Unstreamed):
    """A request for vectors and the writing of its answer; ``single`` for the older endpoint. It is never streamed."""

    def __init__(
        self, call: Call, name: str, *, single: bool = False, dimensions: int | None = None, ignored: list[str]
    ) -> None:
        self.calls = [call]
        self._name = name
        self._single = single
        self._dimensions = dimensions
        self._ignored = ignored

    def whole(self, batches: list[list[Chunk]], usage: Usage, extra: dict[str, Any] | None) -> bytes:
        call = self.calls[0]
        vectors = _openai.result_of(batches, Result()).vectors
        if len(vectors) != len(call.request.inputs):
            raise EngineError(f"the engine made {len(vectors)} vectors", hint="its log may say why")
        if self._dimensions is not None:
            vectors = tuple(shortened(vector, self._dimensions) for vector in vectors)
        told = {**(extra or {}), **({"ignored": self._ignored} if self._ignored else {})}
        more = {"dockyard": told} if told else {}
        if self._single:
            return _encode({"embedding": numbers(vectors[0]), **more})
        figures = times(call, usage)
        return _encode(
            {
                "model": self._name,
                "embeddings": [numbers(vector) for vector in vectors],
                **{key: figures[key] for key in ("total_duration", "load_duration", "prompt_eval_count")},
                **more,
            }
        )


def _call(made: dict[str, Any]) -> dict[str, Json]:
    function = made["function"]
    name = {"id": made["id"]} if made["id"] else {}
    return {**name, "function": {"name": function["name"], "arguments": arguments(function["arguments"])}}


def _logprob(one: TokenLogprob) -> dict[str, Json]:
    def told(one: TokenLogprob) -> dict[str, Json]:
        known = one.bytes if one.bytes is not None else list(one.token.encode("utf-8", "replace"))
        return {"token": one.token, "logprob": one.logprob, "bytes": known}

    return {**told(one), "top_logprobs": [told(other) for other in one.top]}
