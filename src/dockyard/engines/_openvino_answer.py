"""What comes out of one request: choices that grow a few tokens a step, chunks to the caller, usage at the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any, Protocol

from dockyard.engines import Emit
from dockyard.engines._openvino_sight import Sight
from dockyard.engines._openvino_text import Stops, Vocabulary
from dockyard.errors import DockyardError
from dockyard.types import Chunk, Json, Result, Sampling, TokenLogprob, Usage


class Parsed(Protocol):
    """Takes text apart into what is said, thought and called."""

    finish: str | None

    def add(self, text: str, *, last: bool) -> tuple[str, str, list[Json] | None]: ...


class Choice:
    """One sequence that GenAI computes: its tokens so far, and how they are told."""

    def __init__(self, job: Job, index: int, config: Any, vocabulary: Vocabulary, sampling: Sampling) -> None:
        self.job = job
        self.index = index
        self.config = config
        self.structured = config.structured_output_config is not None
        self.handle: Any = None
        self.produced: list[int] = []
        self.finished = False
        self.parsed: Parsed | None = None
        self._vocabulary = vocabulary
        self._spelling = vocabulary.spelling()
        self._stops = Stops(sampling.stop)
        self._ignore_eos = sampling.ignore_eos
        self._logprobs = sampling.logprobs is not None

    def said(self) -> str:
        """What was drawn so far, as text."""
        return self._vocabulary.text(self.produced)

    def take(self, ids: list[int], logprobs: list[float], finish: str | None) -> bool:
        """Tokens that were drawn. True: enough, compute no more of this choice."""
        self.produced += ids
        ends = self._vocabulary.ends
        shown = ids[:-1] if finish == "stop" and ids and ids[-1] in ends else ids
        text = self._stops.add(self._spelling.add(shown)) if shown else ""
        if self._stops.hit is not None:
            finish = "stop"
        elif finish is not None:
            text += self._stops.add(self._spelling.end())
            text += self._stops.end()
        told = None
        if self._logprobs and shown:
            told = [self._logprob(token, value) for token, value in zip(shown, logprobs, strict=False)]
        return self._tell(text, told or None, finish)

    def _tell(self, text: str, logprobs: list[TokenLogprob] | None, finish: str | None) -> bool:
        reasoning, calls = "", None
        if self.parsed is not None:
            text, reasoning, calls = self.parsed.add(text, last=finish is not None)
            if finish is not None:
                finish = self.parsed.finish or finish
        usage = None
        if finish is not None:
            self.finished = True
            usage = self.job.usage_if_last()
        elif not (text or reasoning or calls or logprobs):
            return self.job.emit(None)
        return self.job.emit(
            Chunk(
                text, self.index, finish, usage, logprobs, reasoning, calls, stop=self._stops.hit,
                so_far=self.job.taken() if self.job.counting else None,
            )
        ) or (finish is not None)  # fmt: skip

    def _logprob(self, token: int, value: float) -> TokenLogprob:
        piece = self._vocabulary.piece(token)
        return TokenLogprob(piece.decode("utf-8", "replace"), value, list(piece))


class Job:
    """One request. ``key`` names its adapter ("" for none); ``counting``: each chunk says what was taken so far.
    ``sight``: what a model that sees is given in place of ``ids``.
    ``wait`` blocks until it is over and raises what failed."""

    def __init__(
        self, ids: Sequence[int], emit: Emit, key: str = "", *, counting: bool = False, sight: Sight | None = None
    ) -> None:
        self.ids = list(ids)
        self.sight = sight
        self.key = key
        self.counting = counting
        self.emit = emit
        self.choices: list[Choice] = []
        self.cached = 0
        self.begun = time.monotonic()
        self.first: float | None = None
        self.result: Result | None = None
        self._error: DockyardError | None = None
        self._over = threading.Event()

    def usage_if_last(self) -> Usage | None:
        """What it took, if no choice is left to wait for."""
        if any(not choice.finished for choice in self.choices):
            return None
        return self.taken()

    def taken(self) -> Usage:
        """What it took until now."""
        now = time.monotonic()
        first = self.first or now
        return Usage(
            prompt_tokens=len(self.ids) + (self.sight.tokens if self.sight is not None else 0),
            completion_tokens=sum(len(choice.produced) for choice in self.choices),
            cached_tokens=self.cached,
            prefill_seconds=first - self.begun,
            decode_seconds=now - first,
        )

    def end(self, error: DockyardError | None = None) -> None:
        self._error = self._error or error
        self._over.set()

    def wait(self) -> None:
        self._over.wait()
        if self._error is not None:
            raise self._error
