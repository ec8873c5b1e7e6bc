"""``POST /v1/completions``: OpenAI's legacy dialect, a raw continuation without a chat template.

``echo`` with ``logprobs`` tells what each token of the prompt was worth, which is how evaluations score answers.
"""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from dockyard.api import _openai
from dockyard.api._decode import BodyReader
from dockyard.errors import InvalidRequest
from dockyard.types import Call, Chunk, Json, Request, TokenLogprob, Usage

DEFAULT_MAX_TOKENS = 16
MOST_PROMPTS = 128
PASSED = ("response_format",)

_encode = msgspec.json.encode


class CompletionRequest(_openai.Common, kw_only=True, forbid_unknown_fields=True):
    """The body of a legacy completion: ``prompt`` is text, token ids, or a list of either."""

    prompt: str | list[Json]
    max_tokens: Annotated[int, Meta(ge=0, le=1 << 30, description="0 goes with `echo`.")] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    best_of: Annotated[int, Meta(ge=1, le=128)] | None = None
    echo: bool | None = None
    logprob_start_len: (
        Annotated[
            int,
            Meta(ge=0, description="Goes with `echo` and `logprobs`: so many tokens of the prompt are not scored."),
        ]
        | None
    ) = None
    suffix: str | None = None
    response_format: dict[str, Json] | None = None


class Completions:
    """Reads legacy completion requests."""

    def __init__(self) -> None:
        self._reader = BodyReader(CompletionRequest, passing=True)

    def read(self, body: bytes) -> CompletionAsked:
        asked, unknown = self._reader.read(body)
        _openai.check(asked)
        found = prompts(asked.prompt)
        _check(asked, found)
        extra = _openai.passed(asked, PASSED, unknown)
        if "response_format" in extra:
            from dockyard.api._openai_tools import settle

            settle(extra)
        identity = _openai.new_id("cmpl-")
        sampling = _sampling(asked, ids=isinstance(found[0], list))
        calls = []
        for number, prompt in enumerate(found):
            request = Request(
                id=identity if len(found) == 1 else f"{identity}-{number}",
                kind="complete",
                prompt=prompt,
                sampling=sampling,
                extra=extra,
                suffix=asked.suffix or None,
                counting=_openai.counting(asked),
            )
            calls.append(
                Call(request=request, model=asked.model, dialect="openai-completions", stream=bool(asked.stream))
            )
        return CompletionAsked(identity, calls, asked)


def _sampling(asked: CompletionRequest, *, ids: bool) -> Any:
    """The sampling of each prompt; ``ids`` says that prompts are token ids, whose text must be asked for."""
    # Legacy clients rely on OpenAI's small default.
    limit = DEFAULT_MAX_TOKENS if asked.max_tokens is None else asked.max_tokens
    several = (asked.best_of or 1) > (asked.n or 1)
    logprobs = 0 if several and asked.logprobs is None else asked.logprobs
    # No engine generates nothing: one token is, and is dropped.
    sampling = _openai.sampling(asked, logprobs=logprobs, max_tokens=max(1, limit))
    if several:
        sampling = msgspec.structs.replace(sampling, n=asked.best_of)
    if asked.echo and (ids or asked.logprobs is not None):
        # A score is about the prompt: there must be one token after it, and an end of text would be none.
        sampling = msgspec.structs.replace(
            sampling,
            prompt_logprobs=asked.logprobs or 0,
            prompt_logprobs_from=asked.logprob_start_len or 0,
            ignore_eos=sampling.ignore_eos or limit <= 1,
        )
    return sampling


def _check(asked: CompletionRequest, found: list[str | list[int]]) -> None:
    if asked.max_tokens == 0 and not asked.echo:
        raise InvalidRequest("'max_tokens' must be at least 1 without 'echo'", param="max_tokens")
    if asked.best_of is not None and asked.best_of < (asked.n or 1):
        raise InvalidRequest("'best_of' is less than 'n'", param="best_of")
    if asked.stream and (asked.best_of or 1) > (asked.n or 1):
        raise InvalidRequest("the best of several can't be streamed", param="best_of")
    ids = any(isinstance(one, list) for one in found)
    if asked.stream and asked.echo and (ids or asked.logprobs is not None):
        raise InvalidRequest("'echo' of token ids or with 'logprobs' can't be streamed", param="echo")
    if asked.logprob_start_len is not None and not (asked.echo and asked.logprobs is not None):
        raise InvalidRequest("'logprob_start_len' goes with 'echo' and 'logprobs'", param="logprob_start_len")
    if asked.suffix and asked.echo:
        raise InvalidRequest("'echo' does not go with 'suffix'", param="echo")
    if asked.suffix and ids:
        raise InvalidRequest("'suffix' goes with a prompt that is text", param="suffix")


def prompts(prompt: str | list[Json]) -> list[str | list[int]]:
    """The prompts that ``prompt`` stands for. Raises InvalidRequest."""
    return [""] if prompt == "" else _openai.texts(prompt, "prompt", MOST_PROMPTS)


class CompletionAsked:
    """A legacy request and the writing of its answer."""

    def __init__(self, identity: str, calls: list[Call], asked: CompletionRequest) -> None:
        self.calls = calls
        self._usage = _openai.include_usage(asked)
        self._asked = asked
        self._drawn = calls[0].request.sampling.n
        self._n = asked.n or 1
        self._silent = asked.max_tokens == 0
        self._about = {
            "id": identity,
            "object": "text_completion",
            "created": int(time.time()),
            "model": calls[0].model,
        }
        self._head = b"data: " + _encode(self._about)[:-1] + b',"choices":['
        self._tail = b'],"usage":null}\n\n' if self._usage else b"]}\n\n"
        self._offsets = [0] * (self._drawn * len(calls))
        self._taken = [Usage()] * len(calls)

    def begin(self) -> bytes:
        if not self._asked.echo:
            return b""
        events = []
        for number, call in enumerate(self.calls):
            for index in range(number * self._n, (number + 1) * self._n):
                choice = {"index": index, "text": call.request.prompt, "logprobs": None, "finish_reason": None}
                events.append(self._head + _encode(choice) + self._tail)
        return b"".join(events)

    def events(self, batch: list[Chunk]) -> bytes:
        return b"".join([self._event(chunk) for chunk in batch])

    def end(self, usage: Usage, extra: dict[str, Any] | None) -> bytes:
        if not self._usage and extra is None:
            return b"data: [DONE]\n\n"
        last: dict[str, Any] = {**self._about, "choices": []}
        if self._usage:
            last["usage"] = self._counted(usage)
        if extra is not None:
            last["dockyard"] = extra
        return b"data: " + _encode(last) + b"\n\ndata: [DONE]\n\n"

    def whole(self, batches: list[list[Chunk]], usage: Usage, extra: dict[str, Any] | None) -> bytes:
        drawn = _openai.gathered(batches, len(self._offsets))
        scored = _scores(batches, self._drawn)
        choices = []
        for number, call in enumerate(self.calls):
            own = drawn[number * self._drawn : (number + 1) * self._drawn]
            if self._drawn > self._n:
                own = sorted(own, key=_likelihood, reverse=True)[: self._n]
            start = self._asked.logprob_start_len or 0
            before = _Before(call.request.prompt, scored.get(number), start) if self._asked.echo else None
            choices += [self._choice(number * self._n + place, one, before) for place, one in enumerate(own)]
        answer = {**self._about, "choices": choices, "usage": self._counted(usage)}
        if extra is not None:
            answer["dockyard"] = extra
        return _encode(answer)

    def _choice(self, index: int, choice: _openai.Choice, before: _Before | None) -> dict[str, Any]:
        text = "" if self._silent else "".join(choice.texts)
        logprobs = None
        if self._asked.logprobs is not None:
            tokens = [] if self._silent else choice.logprobs or []
            shown = before.tokens if before is not None else []
            logprobs = _openai.legacy_logprobs([*shown, *tokens], 0)
        finish = "length" if self._silent else choice.finish
        text = (before.text if before is not None else "") + text
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}

    def _counted(self, usage: Usage) -> dict[str, Any]:
        return _openai.usage_fields(msgspec.structs.replace(usage, completion_tokens=0) if self._silent else usage)

    def _event(self, chunk: Chunk) -> bytes:
        if self._silent:
            chunk = Chunk("", chunk.index, chunk.finish and "length")
        if not chunk.text and chunk.finish is None and chunk.logprobs is None:
            return b""
        logprobs = None
        if chunk.logprobs is not None:
            logprobs = _openai.legacy_logprobs(chunk.logprobs, self._offsets[chunk.index])
            self._offsets[chunk.index] += sum(len(one.token) for one in chunk.logprobs)
        choice = {"index": chunk.index, "text": chunk.text, "logprobs": logprobs, "finish_reason": chunk.finish}
        return self._head + _encode(choice) + self._closing(chunk)

    def _closing(self, chunk: Chunk) -> bytes:
        """The end of a chunk's event: the usage so far of all prompts, where that was asked for and is told."""
        told = (chunk.usage or chunk.so_far) if self.calls[0].request.counting else None
        if told is None:
            return self._tail
        self._taken[chunk.index // self._drawn] = told
        taken = Usage(
            prompt_tokens=sum(each.prompt_tokens for each in self._taken),
            completion_tokens=0 if self._silent else sum(each.completion_tokens for each in self._taken),
            cached_tokens=sum(each.cached_tokens for each in self._taken),
        )
        return _openai.tail_with(taken)


class _Before:
    """The prompt as an answer repeats it: its text, and its tokens with what those from ``start`` on are worth."""

    def __init__(
        self, prompt: str | list[int] | None, scored: tuple[TokenLogprob | None, ...] | None, start: int
    ) -> None:
        rest = [one for one in scored or () if one is not None]
        joined = "".join(one.token for one in rest)
        self.text = prompt if isinstance(prompt, str) else joined
        shift = len(scored or ()) - len(rest)
        self.tokens: list[TokenLogprob | str] = [
            one.token if place < start else one for place, one in enumerate(rest, shift)
        ]
        if scored and scored[0] is None:
            # Nothing comes before the first token, so nothing says what it was worth, nor what it was but its text.
            self.tokens.insert(0, self.text.removesuffix(joined) if self.text.endswith(joined) else "")


def _scores(batches: list[list[Chunk]], drawn: int) -> dict[int, tuple[TokenLogprob | None, ...]]:
    """What the tokens of each prompt were worth, by the prompt's number."""
    return {
        chunk.index // drawn: chunk.result.prompt_logprobs
        for batch in batches
        for chunk in batch
        if chunk.result is not None
    }


def _likelihood(choice: _openai.Choice) -> float:
    """The mean log-probability of a choice's tokens."""
    values = [one.logprob for one in choice.logprobs or ()]
    return sum(values) / len(values) if values else float("-inf")
