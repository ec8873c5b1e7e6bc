"""Requests and answers as OpenAI's HTTP API has them: what a server that speaks it is sent, and its streamed events.

Pure: shared by whoever carries the bytes.
"""

from __future__ import annotations

import base64
import math
import struct

import msgspec

from dockyard.engines._upstream_errors import Refusal
from dockyard.errors import InvalidRequest, UnsupportedParameter, UpstreamError
from dockyard.types import Chunk, Json, Request, Result, TokenLogprob, Usage

PATHS = {"chat": "/chat/completions", "complete": "/completions", "embed": "/embeddings", "rerank": "/rerank"}

OPENAI = ("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty", "logit_bias")
BEYOND = ("top_k", "min_p", "repetition_penalty")
"""Sampling that OpenAI's own API does not have; open servers take it under these names."""

KIND = "is it an API of the kind that `provider` says?"
_FINISH = {"stop", "length", "tool_calls", "content_filter"}


class Top(msgspec.Struct):
    token: str = ""
    logprob: float = 0.0
    bytes: list[int] | None = None
    top_logprobs: list[Top] = []


class Logprobs(msgspec.Struct):
    """Of a chat in ``content``; of a completion in the three lists."""

    content: list[Top] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


class Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Json] | None = None


class Choice(msgspec.Struct):
    index: int = 0
    delta: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None
    stop_reason: Json = None


class Details(msgspec.Struct):
    cached_tokens: int | None = None


class Counted(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: Details | None = None


class Event(msgspec.Struct):
    choices: list[Choice] = []
    usage: Counted | None = None
    error: Json = None


class _Vector(msgspec.Struct):
    embedding: str | list[float]
    index: int = 0


class _Vectors(msgspec.Struct):
    data: list[_Vector]
    usage: Counted | None = None


class _Score(msgspec.Struct):
    index: int
    relevance_score: float


class _Scores(msgspec.Struct):
    results: list[_Score]
    usage: Counted | None = None


_events = msgspec.json.Decoder(Event)


def body(request: Request, model: str, *, strict: bool) -> dict[str, Json]:
    """The JSON to send. ``strict``: to OpenAI itself, which refuses what other servers take beyond its API.

    Fields of ``extra`` go along as they are: the other server says what it does not take.
    """
    sampling = request.sampling
    if request.kind == "embed":
        return {"model": model, "input": list(request.inputs), "encoding_format": "base64", **request.extra}
    if request.kind == "rerank":
        return {"model": model, "query": request.query, "documents": list(request.inputs), **request.extra}
    if sampling.prompt_logprobs is not None:
        raise UnsupportedParameter("another server's models give no logprobs of the prompt", param="prompt_logprobs")
    fields: dict[str, Json] = {"model": model, **request.extra}
    for name in OPENAI + (() if strict else BEYOND):
        if (value := getattr(sampling, name)) is not None:
            fields[name] = value
    if strict and (refused := next((name for name in BEYOND if getattr(sampling, name) is not None), None)):
        raise UnsupportedParameter(f"OpenAI's API does not take {refused!r}", param=refused)
    if sampling.max_tokens is not None:
        fields["max_completion_tokens" if strict and request.kind == "chat" else "max_tokens"] = sampling.max_tokens
    if sampling.stop:
        fields["stop"] = list(sampling.stop)
    if sampling.ignore_eos:
        fields["ignore_eos"] = True
    if sampling.n != 1:
        fields["n"] = sampling.n
    if request.kind == "chat":
        fields["messages"] = msgspec.to_builtins(request.messages or ())
        if sampling.logprobs is not None:
            fields.update(logprobs=True, top_logprobs=sampling.logprobs)
    else:
        fields["prompt"] = request.prompt
        if request.suffix is not None:
            fields["suffix"] = request.suffix
        if sampling.logprobs is not None:
            fields["logprobs"] = sampling.logprobs
    options = {"include_usage": True}
    if request.counting:
        if strict:
            raise UnsupportedParameter(
                "OpenAI's API does not take 'continuous_usage_stats'", param="stream_options.continuous_usage_stats"
            )
        options["continuous_usage_stats"] = True
    return {**fields, "stream": True, "stream_options": options}


class Answer:
    """Takes the events of one streamed answer; the end of it is kept back, since usage comes after it."""

    def __init__(self, refusal: Refusal) -> None:
        self._refusal = refusal
        self._held: Chunk | None = None
        self._usage = Usage()
        self._drawn: dict[int, int] = {}

    def take(self, data: bytes | str) -> list[Chunk]:
        """One event's JSON; raises what the other server reports in the middle of an answer."""
        try:
            event = _events.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UpstreamError(f"{self._refusal.who} sent an event that can't be read: {error}") from error
        return self.event(event)

    def event(self, event: Event) -> list[Chunk]:
        if event.error is not None:
            raise self._refusal.of(500, event.error)
        chunks: list[Chunk] = []
        for choice in event.choices:
            chunk = _chunk(choice)
            if chunk is not None and event.usage is not None:
                chunk = msgspec.structs.replace(chunk, so_far=self._so_far(choice.index, event.usage))
            if choice.finish_reason is None:
                if chunk is not None:
                    chunks.append(chunk)
                continue
            if self._held is not None:
                chunks.append(self._held)
            self._held = chunk
        if event.usage is not None:
            self._usage = usage(event.usage)
        return chunks

    def _so_far(self, index: int, counted: Counted) -> Usage:
        """What the request took until now; each choice's events count its own tokens, as vLLM has it."""
        told = usage(counted)
        self._drawn[index] = told.completion_tokens
        return msgspec.structs.replace(told, completion_tokens=sum(self._drawn.values()))

    def finish(self) -> Chunk:
        """The last chunk, with the usage. Raises UpstreamError where the answer broke off."""
        if self._held is None:
            raise UpstreamError(f"{self._refusal.who} ended an answer in the middle")
        return msgspec.structs.replace(self._held, usage=self._usage)


def _chunk(choice: Choice) -> Chunk | None:
    delta = choice.delta
    if delta is None:
        text, reasoning, calls = choice.text or "", "", None
    else:
        text, reasoning = delta.content or "", delta.reasoning_content or delta.reasoning or ""
        calls = delta.tool_calls or None
    logprobs = _logprobs(choice.logprobs) if choice.logprobs is not None else None
    if not (text or reasoning or calls or logprobs or choice.finish_reason):
        return None
    finish = choice.finish_reason
    if finish is not None and finish not in _FINISH:
        finish = "tool_calls" if finish == "function_call" else "stop"
    stop = choice.stop_reason if isinstance(choice.stop_reason, str) else None
    return Chunk(text, choice.index, finish, None, logprobs, reasoning, calls, stop=stop)


def _logprobs(found: Logprobs) -> list[TokenLogprob] | None:
    if found.content is not None:
        return [TokenLogprob(each.token, each.logprob, each.bytes, [TokenLogprob(top.token, top.logprob, top.bytes)
                for top in each.top_logprobs]) for each in found.content]  # fmt: skip
    if found.tokens is None:
        return None
    values = found.token_logprobs or [None] * len(found.tokens)
    tops = found.top_logprobs or [None] * len(found.tokens)
    return [
        TokenLogprob(token, value or 0.0, list(token.encode()), [TokenLogprob(*pair) for pair in (top or {}).items()])
        for token, value, top in zip(found.tokens, values, tops, strict=True)
    ]


def usage(found: Counted) -> Usage:
    details = found.prompt_tokens_details
    return Usage(
        prompt_tokens=found.prompt_tokens or 0,
        completion_tokens=found.completion_tokens or 0,
        cached_tokens=(details.cached_tokens or 0) if details is not None else 0,
    )


def whole(request: Request, data: bytes, who: str) -> Chunk:
    """The one chunk that vectors or scores come in. Raises UpstreamError where they are not what was asked for."""
    try:
        if request.kind == "embed":
            vectors = msgspec.json.decode(data, type=_Vectors)
            ordered = sorted(vectors.data, key=lambda each: each.index)
            result, counted = Result(vectors=tuple(_vector(each.embedding) for each in ordered)), vectors.usage
            count = len(result.vectors)
        else:
            scores = msgspec.json.decode(data, type=_Scores)
            found = {each.index: each.relevance_score for each in scores.results}
            result = Result(scores=_logits([found[place] for place in range(len(request.inputs))]))
            counted, count = scores.usage, len(found)
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, ValueError) as error:
        raise UpstreamError(f"{who} sent an answer that can't be read: {error}", hint=KIND) from error
    if count != len(request.inputs):
        raise UpstreamError(f"{who} sent {count} results for {len(request.inputs)} inputs", hint=KIND)
    return Chunk(finish="stop", usage=usage(counted or Counted()), result=result)


def _vector(found: str | list[float]) -> bytes:
    return base64.b64decode(found, validate=True) if isinstance(found, str) else struct.pack(f"<{len(found)}f", *found)


def _logits(scores: list[float]) -> tuple[float, ...]:
    """Services give relevance between 0 and 1; our own rerankers give logits, and so do these then."""
    if not all(0 <= score <= 1 for score in scores):
        return tuple(scores)
    bounded = [min(max(score, 1e-9), 1 - 1e-9) for score in scores]
    return tuple(math.log(score / (1 - score)) for score in bounded)


def checked(request: Request) -> None:
    """Raises InvalidRequest for a request without what its kind needs."""
    empty = {"chat": not request.messages, "complete": not request.prompt, "embed": not request.inputs,
             "rerank": not request.query or not request.inputs}  # fmt: skip
    if empty.get(request.kind, True):
        raise InvalidRequest(f"there is nothing to {request.kind}", param="messages" if request.messages else None)
