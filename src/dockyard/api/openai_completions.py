"""``POST /v1/completions``: OpenAI's legacy dialect, a raw continuation without a chat template."""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from dockyard.api import _openai
from dockyard.api._decode import BodyReader
from dockyard.errors import InvalidRequest
from dockyard.types import Call, Chunk, Json, Request, Usage

DEFAULT_MAX_TOKENS = 16
MOST_PROMPTS = 128
REFUSED = {
    "best_of": "ask for `n` choices and pick one",
    "echo": "the prompt is yours already",
    "suffix": "no model here fills in the middle over this endpoint",
}
PASSED = ("response_format",)

_encode = msgspec.json.encode


class CompletionRequest(_openai.Common, kw_only=True, forbid_unknown_fields=True):
    """The body of a legacy completion: ``prompt`` is text, token ids, or a list of either."""

    prompt: str | list[Json]
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    response_format: dict[str, Json] | None = None


class Completions:
    """Reads legacy completion requests."""

    def __init__(self) -> None:
        self._reader = BodyReader(CompletionRequest, passing=True)

    def read(self, body: bytes) -> CompletionAsked:
        asked, unknown = self._reader.read(body)
        _openai.check(asked)
        refused = {name: advice for name, advice in REFUSED.items() if (name, asked.best_of) != ("best_of", 1)}
        _openai.refuse(asked, refused)
        identity = _openai.new_id("cmpl-")
        # Legacy clients rely on OpenAI's small default; 0 tokens is no answer.
        limit = DEFAULT_MAX_TOKENS if asked.max_tokens is None else asked.max_tokens
        sampling = _openai.sampling(asked, logprobs=asked.logprobs, max_tokens=limit)
        extra = _openai.passed(asked, PASSED, unknown)
        found = prompts(asked.prompt)
        calls = []
        for number, prompt in enumerate(found):
            name = identity if len(found) == 1 else f"{identity}-{number}"
            request = Request(id=name, kind="complete", prompt=prompt, sampling=sampling, extra=extra)
            calls.append(
                Call(request=request, model=asked.model, dialect="openai-completions", stream=bool(asked.stream))
            )
        return CompletionAsked(identity, calls, usage=_openai.include_usage(asked))


def prompts(prompt: str | list[Json]) -> list[str | list[int]]:
    """The prompts that ``prompt`` stands for. Raises InvalidRequest."""
    if isinstance(prompt, str):
        return [prompt]
    if not prompt:
        raise InvalidRequest("'prompt' is an empty list", param="prompt")
    if _ids(prompt):
        return [prompt]
    if len(prompt) > MOST_PROMPTS:
        raise InvalidRequest(f"'prompt' holds {len(prompt)} prompts; {MOST_PROMPTS} is the most", param="prompt")
    for number, one in enumerate(prompt):
        if not isinstance(one, str) and not (isinstance(one, list) and one and _ids(one)):
            raise InvalidRequest(f"prompt[{number}] is neither text nor a list of token ids", param=f"prompt[{number}]")
    return prompt


def _ids(value: list[Json]) -> bool:
    return all(isinstance(one, int) and not isinstance(one, bool) and 0 <= one < 1 << 31 for one in value)


class CompletionAsked:
    """A legacy request and the writing of its answer."""

    def __init__(self, identity: str, calls: list[Call], *, usage: bool) -> None:
        self.calls = calls
        self._usage = usage
        self._count = calls[0].request.sampling.n * len(calls)
        self._about = {
            "id": identity,
            "object": "text_completion",
            "created": int(time.time()),
            "model": calls[0].model,
        }
        self._head = b"data: " + _encode(self._about)[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if usage else b"]}\n\n"
        self._offsets = [0] * self._count

    def begin(self) -> bytes:
        return b""

    def events(self, batch: list[Chunk]) -> bytes:
        return b"".join([self._event(chunk) for chunk in batch])

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
        answer = {
            **self._about,
            "choices": [
                {
                    "index": index,
                    "text": "".join(choice.texts),
                    "logprobs": None if choice.logprobs is None else _openai.legacy_logprobs(choice.logprobs, 0),
                    "finish_reason": choice.finish,
                }
                for index, choice in enumerate(_openai.gathered(batches, self._count))
            ],
            "usage": _openai.usage_fields(usage),
        }
        if extra is not None:
            answer["dockyard"] = extra
        return _encode(answer)

    def _event(self, chunk: Chunk) -> bytes:
        if not chunk.text and chunk.finish is None and chunk.logprobs is None:
            return b""
        logprobs = None
        if chunk.logprobs is not None:
            logprobs = _openai.legacy_logprobs(chunk.logprobs, self._offsets[chunk.index])
            self._offsets[chunk.index] += sum(len(one.token) for one in chunk.logprobs)
        choice = {"index": chunk.index, "text": chunk.text, "logprobs": logprobs, "finish_reason": chunk.finish}
        return self._head + _encode(choice) + self._tail
