"""Chunks of an answer as the items of a response, and as the events that tell how these grow.

Every event has a ``sequence_number``, counted from 0. An item is told as it begins (``added``), in pieces (``delta``)
and whole (``done``); calls of functions, of which several may grow in turns, are done when the answer is.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

import msgspec

from dockyard.api._responses_wire import Item
from dockyard.errors import DockyardError
from dockyard.types import Chunk, Json, TokenLogprob, Usage

_encode = msgspec.json.encode
MOST_PADDING = 16
CODES = {429: "rate_limit_exceeded", 400: "invalid_prompt"}


class Writer:
    """Puts one response together. ``told`` is what it repeats of its request; ``id`` ends in 32 hex digits, which its
    items' ids share.
    """

    def __init__(
        self, id: str, told: dict[str, Any], *, logprobs: bool = False, summary: bool = False, padded: bool = False
    ) -> None:
        self.id = id
        self.output: list[Item] = []
        self._told = told
        self._logprobs = logprobs
        self._summary = summary
        self._padded = padded
        self._created = int(time.time())
        self._sequence = 0
        self._open: Item | None = None
        self._pieces: list[str] = []
        self._tokens: list[Json] = []
        self._notes: list[Json] = []
        self._calls: dict[int, tuple[int, list[str]]] = {}
        self._finish: str | None = None
        self._reasoned = 0

    def name(self, prefix: str) -> str:
        """A new id that tells which response it belongs to."""
        return f"{prefix}_{self.id.rpartition('_')[2]}{secrets.token_hex(6)}"

    # the response as a whole

    def response(self, status: str, usage: Usage | None = None, error: DockyardError | None = None) -> dict[str, Any]:
        """The response object as it is now."""
        reasons = {"length": "max_output_tokens", "content_filter": "content_filter"}
        reason = reasons.get(self._finish or "")
        return {
            "id": self.id,
            "object": "response",
            "created_at": self._created,
            "completed_at": int(time.time()) if status == "completed" else None,
            "status": status,
            "error": None if error is None else error_of(error),
            "incomplete_details": {"reason": reason} if status == "incomplete" else None,
            "output": list(self.output),
            "usage": None if usage is None else usage_of(usage, self._reasoned),
            **self._told,
        }

    def begin(self, *, queued: bool = False) -> bytes:
        """The events before the first chunk."""
        first = self.response("queued" if queued else "in_progress")
        events = self._event("response.created", response=first)
        if queued:
            events += self._event("response.queued", response=first)
        return events + self._event("response.in_progress", response=self.response("in_progress"))

    def end(self, usage: Usage) -> tuple[bytes, dict[str, Any]]:
        """The last events, and the response as it ended."""
        whole = self._finish in (None, "stop", "tool_calls")
        status = "completed" if whole else "incomplete"
        events = self._close(status) + self._close_calls(status)
        response = self.response(status, usage)
        return events + self._event(f"response.{status}", response=response), response

    def fail(self, error: DockyardError, usage: Usage) -> tuple[bytes, dict[str, Any]]:
        """The same for an answer that broke off."""
        events = self._close("incomplete") + self._close_calls("incomplete")
        response = self.response("failed", usage, error)
        return events + self._event("response.failed", response=response), response

    def cancel(self, usage: Usage) -> dict[str, Any]:
        """The response, cut off where it is."""
        self._close("incomplete")
        self._close_calls("incomplete")
        return self.response("cancelled", usage)

    def announce(self, item: Item, *states: str) -> bytes:
        """An item that is whole when it appears, with an event for each state that it went through."""
        place = len(self.output)
        self.output.append(item)
        where = {"item_id": item["id"], "output_index": place}
        begun = {**item, "status": "in_progress"}
        events = self._event("response.output_item.added", output_index=place, item=begun)
        events += b"".join(self._event(f"response.{item['type']}.{state}", **where) for state in states)
        return events + self._event("response.output_item.done", output_index=place, item=item)

    # its chunks

    def add(self, batch: list[Chunk]) -> bytes:
        """What these chunks add, as events."""
        events = []
        for chunk in batch:
            if chunk.reasoning:
                self._reasoned += 1
                events.append(self._text("reasoning", chunk.reasoning, None))
            if chunk.text or (chunk.logprobs and self._logprobs):
                events.append(self._text("message", chunk.text, chunk.logprobs))
            if chunk.annotations and self._open is not None and self._open["type"] == "message":
                events.extend(self._annotation(note) for note in chunk.annotations)
            if chunk.tool_calls:
                events.extend(self._call(delta) for delta in chunk.tool_calls if isinstance(delta, dict))
            if chunk.finish is not None:
                self._finish = chunk.finish
        return b"".join(events)

    def _text(self, kind: str, text: str, logprobs: list[TokenLogprob] | None) -> bytes:
        events = b""
        if self._open is None or self._open["type"] != kind:
            events = self._close("completed") + self._begin(kind)
        self._pieces.append(text)
        assert self._open is not None
        fields: dict[str, Any] = {"delta": text}
        if kind == "message":
            fields["logprobs"] = tokens = [_logprob(one) for one in logprobs or ()] if self._logprobs else []
            self._tokens.extend(tokens)
        if self._padded:
            fields["obfuscation"] = "x" * secrets.randbelow(MOST_PADDING + 1)
        return events + self._event(f"response.{self._word()}.delta", **self._where(), **fields)

    def _begin(self, kind: str) -> bytes:
        """Open a message or a piece of reasoning."""
        if kind == "message":
            item: Item = {"id": self.name("msg"), "type": kind, "status": "in_progress", "role": "assistant"}
            item["content"] = []
        else:
            item = {"id": self.name("rs"), "type": kind, "status": "in_progress", "summary": []}
            if not self._summary:
                item["content"] = []
        self.output.append(item)
        self._open = item
        events = self._event("response.output_item.added", output_index=len(self.output) - 1, item=item)
        return events + self._event(f"response.{self._part_word()}.added", **self._where(), part=self._part("", []))

    def _close(self, status: str) -> bytes:
        """End what is open, if anything is."""
        item = self._open
        if item is None:
            return b""
        text, tokens = "".join(self._pieces), self._tokens
        part = self._part(text, tokens)
        extra = {"logprobs": tokens} if item["type"] == "message" else {}
        events = self._event(f"response.{self._word()}.done", **self._where(), text=text, **extra)
        events += self._event(f"response.{self._part_word()}.done", **self._where(), part=part)
        item["summary" if "summary_index" in self._where() else "content"] = [part]
        item["status"] = status
        events += self._event("response.output_item.done", output_index=len(self.output) - 1, item=item)
        self._open, self._pieces, self._tokens, self._notes = None, [], [], []
        return events

    def _annotation(self, note: Json) -> bytes:
        self._notes.append(note)
        where = {**self._where(), "annotation_index": len(self._notes) - 1}
        return self._event("response.output_text.annotation.added", **where, annotation=note)

    def _word(self) -> str:
        assert self._open is not None
        if self._open["type"] == "message":
            return "output_text"
        return "reasoning_summary_text" if self._summary else "reasoning_text"

    def _part_word(self) -> str:
        return "reasoning_summary_part" if self._word() == "reasoning_summary_text" else "content_part"

    def _part(self, text: str, tokens: list[Json]) -> Item:
        word = self._word()
        if word == "output_text":
            return {"type": word, "text": text, "annotations": list(self._notes), "logprobs": tokens}
        return {"type": "summary_text" if self._summary else "reasoning_text", "text": text}

    def _where(self) -> dict[str, Any]:
        assert self._open is not None
        index = "summary_index" if self._word() == "reasoning_summary_text" else "content_index"
        return {"item_id": self._open["id"], "output_index": len(self.output) - 1, index: 0}

    # calls of functions

    def _call(self, delta: dict[str, Json]) -> bytes:
        number, function = delta.get("index", 0), delta.get("function") or {}
        events = b""
        if number not in self._calls:
            events = self._close("completed")
            item = {
                "id": self.name("fc"),
                "type": "function_call",
                "status": "in_progress",
                "name": "",
                "arguments": "",
            }
            item["call_id"] = delta.get("id") or self.name("call")
            item["name"] = function.get("name") or ""
            self.output.append(item)
            self._calls[number] = (len(self.output) - 1, [])
            events += self._event("response.output_item.added", output_index=len(self.output) - 1, item=item)
        place, pieces = self._calls[number]
        if arguments := function.get("arguments"):
            pieces.append(arguments)
            kind, item_id = "response.function_call_arguments.delta", self.output[place]["id"]
            events += self._event(kind, item_id=item_id, output_index=place, delta=arguments)
        return events

    def _close_calls(self, status: str) -> bytes:
        events = b""
        for place, pieces in self._calls.values():
            item = self.output[place]
            item["arguments"], item["status"] = "".join(pieces), status
            kind, fields = "response.function_call_arguments.done", {"item_id": item["id"], "output_index": place}
            events += self._event(kind, **fields, name=item["name"], arguments=item["arguments"])
            events += self._event("response.output_item.done", output_index=place, item=item)
        self._calls = {}
        return events

    def _event(self, kind: str, **fields: Any) -> bytes:
        number, self._sequence = self._sequence, self._sequence + 1
        body = _encode({"type": kind, "sequence_number": number, **fields})
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), body)


def replayed(response: dict[str, Any]) -> bytes:
    """The events of a response that has ended, made up again: each item in one piece."""
    writer = _Again(response["id"], response)
    return writer.events()


class _Again(Writer):
    """Tells a response that is there already."""

    def __init__(self, id: str, response: dict[str, Any]) -> None:
        super().__init__(id, {})
        self._whole = response

    def events(self) -> bytes:
        bare = {**self._whole, "status": "in_progress", "output": [], "usage": None, "error": None}
        bare |= {"completed_at": None, "incomplete_details": None}
        parts = [self._event("response.created", response=bare), self._event("response.in_progress", response=bare)]
        for place, item in enumerate(self._whole["output"]):
            parts.append(self._item(place, item))
        status = self._whole["status"]
        if status in ("completed", "incomplete", "failed"):
            parts.append(self._event(f"response.{status}", response=self._whole))
        return b"".join(parts)

    def _item(self, place: int, item: Item) -> bytes:
        where = {"item_id": item["id"], "output_index": place}
        called = item["type"] == "function_call"
        if item["type"] not in ("message", "reasoning", "function_call"):
            events = self._event("response.output_item.added", output_index=place, item=item)
            return events + self._event("response.output_item.done", output_index=place, item=item)
        field = "arguments" if called else "summary" if item.get("summary") else "content"
        empty = {**item, field: "" if called else [], "status": "in_progress"}
        events = self._event("response.output_item.added", output_index=place, item=empty)
        if called:
            kind = "response.function_call_arguments"
            events += self._event(f"{kind}.delta", **where, delta=item["arguments"])
            events += self._event(f"{kind}.done", **where, name=item["name"], arguments=item["arguments"])
        else:
            for index, part in enumerate(item.get(field) or ()):
                events += self._one(where, index, part)
        return events + self._event("response.output_item.done", output_index=place, item=item)

    def _one(self, where: dict[str, Any], index: int, part: Item) -> bytes:
        summary = part["type"] == "summary_text"
        word = {"summary_text": "reasoning_summary_text"}.get(part["type"], part["type"])
        piece = "reasoning_summary_part" if summary else "content_part"
        where = {**where, "summary_index" if summary else "content_index": index}
        tokens = {"logprobs": part.get("logprobs") or []} if word == "output_text" else {}
        events = self._event(f"response.{piece}.added", **where, part={**part, "text": ""})
        events += self._event(f"response.{word}.delta", **where, delta=part["text"], **tokens)
        events += self._event(f"response.{word}.done", **where, text=part["text"], **tokens)
        return events + self._event(f"response.{piece}.done", **where, part=part)


def usage_of(usage: Usage, reasoned: int = 0) -> dict[str, Any]:
    """``reasoned`` is how many of the answer's tokens were reasoning."""
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": min(reasoned, usage.completion_tokens)},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }


def error_of(error: DockyardError) -> dict[str, Any]:
    """A response's ``error``: OpenAI's few codes, with ours beside it."""
    code = CODES.get(error.status, "server_error")
    return {"code": code, "message": error.message, "param": error.param, "type": error.code}


def _logprob(one: TokenLogprob) -> dict[str, Any]:
    return {**_token(one), "top_logprobs": [_token(other) for other in one.top]}


def _token(one: TokenLogprob) -> dict[str, Any]:
    known = one.bytes if one.bytes is not None else list(one.token.encode("utf-8", "replace"))
    return {"token": one.token, "logprob": one.logprob, "bytes": known}
