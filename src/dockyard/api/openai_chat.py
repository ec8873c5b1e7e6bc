"""``POST /v1/chat/completions``: OpenAI's chat dialect."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from dockyard.api import _openai
from dockyard.api._decode import BodyReader
from dockyard.api._openai_messages import WireMessage, messages_of
from dockyard.api._prompt_wire import PromptCall
from dockyard.errors import InvalidRequest, UnsupportedParameter
from dockyard.types import Call, Chunk, Json, Request, Usage

PASSED = (
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "reasoning_effort",
    "verbosity",
    "chat_template_kwargs",
)
REFUSED = {
    "functions": "use `tools`",
    "function_call": "use `tool_choice`",
    "audio": "ask for text",
    "web_search_options": "no model here searches the web",
    "moderation": "ask /v1/moderations, or set `deny_patterns`",
}
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

_encode = msgspec.json.encode


class Prediction(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What much of the answer will be, according to the caller."""

    content: str | list[dict[str, Json]]
    type: Literal["content"] = "content"


class Own(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What only Dockyard has: ``profile`` names tools that the server runs for the model, "" that there are none;
    with ``code`` the model uses them by writing Python. ``prompt`` is one of the library, put around the chat."""

    profile: Annotated[str, Meta(max_length=200)] | None = None
    code: bool = False
    prompt: PromptCall | None = None


class ChatRequest(_openai.Common, kw_only=True, forbid_unknown_fields=True):
    """The body of a chat request."""

    messages: Annotated[list[WireMessage], Meta(min_length=1)]
    max_completion_tokens: _openai.Count | None = None
    logprobs: bool | None = False
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: list[dict[str, Json]] | None = None
    tool_choice: str | dict[str, Json] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Json] | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    chat_template_kwargs: dict[str, Json] | None = None
    modalities: list[str] | None = None
    # No effect here: how fast a known answer comes does not depend on being told it.
    prediction: Prediction | None = None
    functions: Json = None
    function_call: Json = None
    audio: Json = None
    web_search_options: Json = None
    moderation: Json = None
    dockyard: Own | None = None


class Chat:
    """Reads chat requests."""

    def __init__(self) -> None:
        self._reader = BodyReader(ChatRequest, passing=True)

    def read(self, body: bytes) -> ChatAsked:
        asked, unknown = self._reader.read(body)
        _openai.check(asked)
        _check(asked)
        limit = asked.max_completion_tokens
        extra = _openai.passed(asked, PASSED, unknown)
        if extra:
            from dockyard.api._openai_tools import settle

            settle(extra)
        request = Request(
            id=_openai.new_id("chatcmpl-"),
            kind="chat",
            messages=messages_of(asked.messages),
            sampling=_openai.sampling(
                asked,
                logprobs=(asked.top_logprobs or 0) if asked.logprobs else None,
                max_tokens=asked.max_tokens if limit is None else limit,
            ),
            extra=extra,
            counting=_openai.counting(asked),
        )
        call = Call(request=request, model=asked.model, dialect="openai-chat", stream=bool(asked.stream))
        if asked.dockyard is not None and asked.dockyard.prompt is not None:
            call.prompt = asked.dockyard.prompt.use()
        return ChatAsked(call, usage=_openai.include_usage(asked), own=asked.dockyard)


class ChatAsked:
    """A chat request and the writing of its answer."""

    def __init__(self, call: Call, *, usage: bool, own: Own | None = None) -> None:
        self.calls = [call]
        self.own = own
        self._request = call.request
        self._usage = usage
        kind = "chat.completion.chunk" if call.stream else "chat.completion"
        self._about = {"id": call.request.id, "object": kind, "created": int(time.time()), "model": call.model}
        if call.stream:
            self._head = b"data: " + _encode(self._about)[:-1] + b',"choices":['
            self._tail = b'],"usage":null}\n\n' if usage else b"]}\n\n"
            self._text_head = self._head + b'{"index":0,"delta":{"content":'
            self._text_tail = b'},"logprobs":null,"finish_reason":null}' + self._tail

    def begin(self) -> bytes:
        delta = {"role": "assistant", "content": "", "refusal": None}
        return b"".join(
            self._event({"index": index, "delta": delta, "logprobs": None, "finish_reason": None})
            for index in range(self._request.sampling.n)
        )

    def events(self, batch: list[Chunk]) -> bytes:
        if self._request.counting:
            return b"".join([self._rich(chunk) for chunk in batch])
        head, tail = self._text_head, self._text_tail
        if len(batch) == 1:
            return self._rich(batch[0]) if _is_rich(batch[0]) else b"%b%b%b" % (head, _encode(batch[0].text), tail)
        return b"".join(
            [self._rich(chunk) if _is_rich(chunk) else head + _encode(chunk.text) + tail for chunk in batch]
        )

    def end(self, usage: Usage, extra: dict[str, Any] | None) -> bytes:
        if not self._usage and extra is None:
            return b"data: [DONE]\n\n"
        last: dict[str, Any] = {**self._about, "choices": []}
        if self._usage:
            last["usage"] = _openai.usage_fields(usage)
        if extra is not None:
            last["dockyard"] = extra
        return b"data: " + _encode(last) + b"\n\ndata: [DONE]\n\n"

    def whole(self, batches: list[list[Chunk]], usage: Usage, extra: dict[str, Any] | None) -> bytes:
        choices = _openai.gathered(batches, self._request.sampling.n)
        answer = {
            **self._about,
            "choices": [_choice(index, choice) for index, choice in enumerate(choices)],
            "usage": _openai.usage_fields(usage),
        }
        if extra is not None:
            answer["dockyard"] = extra
        return _encode(answer)

    def _rich(self, chunk: Chunk) -> bytes:
        delta: dict[str, Any] = {}
        if chunk.text:
            delta["content"] = chunk.text
        if chunk.reasoning:
            delta["reasoning_content"] = chunk.reasoning
        if chunk.tool_calls:
            delta["tool_calls"] = chunk.tool_calls
        if chunk.annotations:
            delta["annotations"] = chunk.annotations
        if not delta and chunk.finish is None and chunk.logprobs is None:
            return b""
        logprobs = None if chunk.logprobs is None else _openai.chat_logprobs(chunk.logprobs)
        choice = {"index": chunk.index, "delta": delta, "logprobs": logprobs, "finish_reason": chunk.finish}
        return self._event(choice, (chunk.usage or chunk.so_far) if self._request.counting else None)

    def _event(self, choice: dict[str, Any], usage: Usage | None = None) -> bytes:
        return self._head + _encode(choice) + (self._tail if usage is None else _openai.tail_with(usage))


def _is_rich(chunk: Chunk) -> bool:
    """Whether a chunk is more than text of the first choice."""
    return bool(
        chunk.index
        or not chunk.text
        or chunk.finish is not None
        or chunk.logprobs is not None
        or chunk.reasoning
        or chunk.tool_calls
    )


def _choice(index: int, choice: _openai.Choice) -> dict[str, Any]:
    text = "".join(choice.texts)
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if choice.reasoning:
        message["reasoning_content"] = "".join(choice.reasoning)
    if choice.annotations:
        message["annotations"] = choice.annotations
    if choice.tool_calls:
        message["content"] = text or None
        message["tool_calls"] = choice.tool_calls
    logprobs = None if choice.logprobs is None else _openai.chat_logprobs(choice.logprobs)
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": choice.finish}


def _check(asked: ChatRequest) -> None:
    if asked.top_logprobs is not None and not asked.logprobs:
        raise InvalidRequest("'top_logprobs' goes with 'logprobs': true", param="top_logprobs")
    both = asked.max_tokens is not None and asked.max_completion_tokens is not None
    if both and asked.max_tokens != asked.max_completion_tokens:
        raise InvalidRequest("'max_tokens' and 'max_completion_tokens' contradict each other", param="max_tokens")
    if asked.modalities not in (None, ["text"]):
        raise UnsupportedParameter("answers are text", param="modalities", hint='leave it out, or send ["text"]')
    if asked.reasoning_effort is not None and asked.reasoning_effort not in EFFORTS:
        raise InvalidRequest(f"'reasoning_effort' must be one of {', '.join(EFFORTS)}", param="reasoning_effort")
    _openai.refuse(asked, REFUSED)
