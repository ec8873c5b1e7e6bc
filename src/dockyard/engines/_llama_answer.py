"""llama.cpp's streamed JSON, turned into chunks. This runs once a token: it reads what is needed and nothing else."""

from __future__ import annotations

import msgspec

from dockyard.engines import Emit
from dockyard.engines._llama_pool import Share
from dockyard.errors import ContextOverflow, DockyardError, EngineError, InvalidRequest, Overloaded
from dockyard.types import Chunk, Json, TokenLogprob, Usage


class _Top(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None


class _Probability(msgspec.Struct):
    token: str
    logprob: float
    bytes: list[int] | None = None
    top_logprobs: list[_Top] = []


class _Logprobs(msgspec.Struct):
    content: list[_Probability] | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Json] | None = None


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Delta | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Details(msgspec.Struct):
    cached_tokens: int = 0


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _Timings(msgspec.Struct):
    cache_n: int = 0
    prompt_n: int = 0
    prompt_ms: float = 0.0
    predicted_n: int = 0
    predicted_ms: float = 0.0


class _Error(msgspec.Struct):
    message: str = ""
    type: str = ""
    code: int = 500
    n_prompt_tokens: int | None = None
    n_ctx: int | None = None


class _Progress(msgspec.Struct):
    total: int = 0


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    timings: _Timings | None = None
    error: _Error | None = None
    prompt_progress: _Progress | None = None


_decoder = msgspec.json.Decoder(_Event)


class Answer:
    """Takes the events of one request; call it with each, then ``finish``.

    ``yielded`` is True where it was cut off to leave room in the pool, and ``silent`` while nothing was emitted.
    """

    def __init__(self, emit: Emit, logprobs: int | None, share: Share, *, counting: bool = False) -> None:
        self._emit = emit
        self._logprobs = logprobs
        self._counting = counting
        self._drawn: dict[int, int] = {}
        self._share = share
        self.yielded = False
        self.silent = True
        self._held: Chunk | None = None
        self._usage = Usage()
        self._error: DockyardError | None = None
        self._cancelled = False

    def __call__(self, data: str | bytes) -> bool:
        """One event. True: cancel the rest."""
        event = _decoder.decode(data)
        if event.error is not None:
            self._error = error(event.error)
            self.yielded = _is_full(event.error)
            return True
        if event.prompt_progress is not None:
            self._share.prompt(event.prompt_progress.total)
        for choice in event.choices:
            chunk = self._chunk(choice, self._so_far(choice.index, event.timings) if self._counting else None)
            if choice.finish_reason is None:
                if chunk is not None:
                    self.silent = False
                    self._share.grow()
                cancelled = self._emit(chunk)
            else:
                cancelled = self._hold(chunk or Chunk(index=choice.index, finish=choice.finish_reason))
            if cancelled:
                self._cancelled = True
                return True
        if event.usage is not None:
            self._count(event.usage, event.timings or _Timings())
        elif self._share.yields and self._held is None:
            self.yielded = True
        return self.yielded

    def finish(self) -> None:
        """Emit what was held back: the last chunk, with the usage. Raises what went wrong."""
        if self.yielded:
            raise _full()
        if self._error is not None:
            raise self._error
        if self._cancelled:
            return
        if self._held is None:
            raise EngineError("llama.cpp ended an answer without saying why", hint="the worker's log may tell")
        held = self._held
        self._emit(Chunk(held.text, held.index, held.finish, self._usage, held.logprobs, held.reasoning,
                         held.tool_calls))  # fmt: skip

    def _so_far(self, index: int, timings: _Timings | None) -> Usage | None:
        """What the request took until now, of what llama.cpp says of one choice."""
        if timings is None:
            return None
        self._drawn[index] = timings.predicted_n
        return Usage(
            prompt_tokens=timings.cache_n + timings.prompt_n,
            completion_tokens=sum(self._drawn.values()),
            cached_tokens=timings.cache_n,
        )

    def _chunk(self, choice: _Choice, so_far: Usage | None) -> Chunk | None:
        delta = choice.delta
        if delta is None:
            text, reasoning, calls = choice.text or "", "", None
        else:
            text, reasoning, calls = delta.content or "", delta.reasoning_content or "", delta.tool_calls
        logprobs = None
        if choice.logprobs is not None and self._logprobs is not None:
            logprobs = [_logprob(each, self._logprobs) for each in choice.logprobs.content or ()]
        if not (text or reasoning or calls or logprobs or choice.finish_reason):
            return None
        return Chunk(text, choice.index, choice.finish_reason, None, logprobs, reasoning, calls, so_far=so_far)

    def _hold(self, chunk: Chunk) -> bool:
        """Usage comes after the end of a choice but belongs on the last chunk: keep that one."""
        before, self._held = self._held, chunk
        return self._emit(before)

    def _count(self, usage: _Usage, timings: _Timings) -> None:
        """Choices share their prompt, so only what they said adds up; they decode together, so time does not."""
        so_far = self._usage
        cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details is not None else 0
        first = not so_far.prompt_tokens
        self._usage = Usage(
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=so_far.completion_tokens + usage.completion_tokens,
            cached_tokens=cached if first else min(cached, so_far.cached_tokens),
            prefill_seconds=max(so_far.prefill_seconds or 0.0, timings.prompt_ms / 1000),
            decode_seconds=max(so_far.decode_seconds or 0.0, timings.predicted_ms / 1000),
        )


def _logprob(found: _Probability, wanted: int) -> TokenLogprob:
    top = [TokenLogprob(each.token, each.logprob, each.bytes) for each in found.top_logprobs[:wanted]]
    return TokenLogprob(found.token, found.logprob, found.bytes, top)


def _is_full(found: _Error) -> bool:
    return "Context size has been exceeded" in found.message


def _full() -> Overloaded:
    return Overloaded(
        "the KV cache that all requests of this model share is full, and this one had to go",
        hint="try again, or load the model with fewer parallel requests or a larger flag kv_tokens",
        retry_after=1.0,
    )


def error(found: _Error) -> DockyardError:
    """What llama.cpp complains of, as one of ours."""
    if found.type == "exceed_context_size_error":
        return ContextOverflow(
            f"the prompt has {found.n_prompt_tokens} tokens; this model is loaded with a context of {found.n_ctx}",
            hint="shorten the prompt, or load the model with a larger context",
        )
    if _is_full(found):
        return _full()
    if found.type == "invalid_request_error" or 400 <= found.code < 500:
        return InvalidRequest(f"llama.cpp: {found.message}")
    if found.type == "unavailable_error":
        return Overloaded(f"llama.cpp: {found.message}", retry_after=1.0)
    return EngineError(f"llama.cpp: {found.message}", hint="the worker's log may tell more")


def error_of(data: bytes) -> DockyardError | None:
    """The error in a reply's body, if it is one."""
    try:
        found = _decoder.decode(data).error
    except msgspec.DecodeError:
        return None
    return error(found) if found is not None else None
