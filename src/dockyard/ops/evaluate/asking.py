"""Items put to what is served: answers over chat or completions, likelihoods by ``echo`` with logprobs, embeddings.

Only the public API is used, so that any server is measured as its users see it. Log-likelihoods want
``/v1/completions`` with ``echo`` and ``logprobs``. Where there is ``/tokenize``, prompts are token ids, so that where a
context ends is a matter of tokens as in lm-evaluation-harness; elsewhere they are text, and a token across that border
is not context.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import msgspec

from dockyard.client import AsyncClient
from dockyard.errors import DockyardError, InvalidRequest, NotFound, UnsupportedParameter, UpstreamError
from dockyard.ops.evaluate.suite import Suite
from dockyard.scorers import Answer, Item, Likelihood
from dockyard.types import Json

_PROMPTS = 32
"""Prompts in one request for likelihoods."""
_GREEDY_SLACK = 1e-6


class Served:
    """A model behind a client; also the scorers' means, whose models are asked of ``judges`` (else the same server)."""

    def __init__(self, client: AsyncClient, model: str, suite: Suite, judges: AsyncClient | None = None) -> None:
        self._client, self._model, self._suite = client, model, suite
        self._judges = judges or client
        self._prefix: list[int] | None = None
        self._spells = True
        self._skips = True

    async def text(self, item: Item, seed: int | None) -> Answer:
        """What the model says. Raises DockyardError."""
        fields: dict[str, Json] = {"model": self._model, **self._suite.parameters}
        if seed is not None:
            fields.setdefault("seed", seed)
        began = time.monotonic()
        if isinstance(item.prompt, str):
            told = await self._client.call("POST", "/v1/completions", {**fields, "prompt": item.prompt})
        else:
            told = await self._client.call("POST", "/v1/chat/completions", {**fields, "messages": item.prompt})
        return _answer(told, time.monotonic() - began)

    async def likelihoods(self, item: Item) -> Answer:
        """How likely each of the item's choices is after its prompt, or its text by itself. Raises DockyardError."""
        began = time.monotonic()
        if self._suite.choices is not None:
            found = await self.continuations(str(item.prompt), item.choices)
        else:
            found = (await self.rolling(item.text),)
        return Answer(likelihoods=found, seconds=time.monotonic() - began)

    async def embed(self, model: str, texts: Sequence[str]) -> list[list[float]]:
        told = await self._judges.call("POST", "/v1/embeddings", {"model": model, "input": list(texts)})
        return [[float(value) for value in each["embedding"]] for each in told["data"]]

    async def ask(self, model: str, messages: Sequence[Mapping[str, Json]], **fields: Json) -> str:
        asked = {"model": model, "messages": [dict(each) for each in messages], **fields}
        return _answer(await self._judges.call("POST", "/v1/chat/completions", asked), 0.0).text

    async def continuations(self, context: str, choices: Sequence[str]) -> tuple[Likelihood, ...]:
        """How likely each choice is after the context. Without a context it is the suite's prefix.

        Space at the end of the context goes to the choices, as tokenizers have it (and lm-evaluation-harness).
        """
        context = context or self._suite.prefix
        kept = context.rstrip() if context.strip() else context
        space = context[len(kept) :] + self._suite.delimiter
        spelt = [kept + space + each for each in choices]
        before = await self._tokens(kept)
        found: list[Likelihood] = []
        for start in range(0, len(choices), _PROMPTS):
            some = spelt[start : start + _PROMPTS]
            if before is None:
                found += [_after(each, _characters(each["tokens"], len(kept))) for each in await self._echo(some)]
                continue
            ids = [await self._tokens(each) or [] for each in some]
            found += [_after(each, len(before)) for each in await self._echo(ids, len(before))]
        return tuple(found)

    async def rolling(self, text: str) -> Likelihood:
        """A text in windows that do not overlap but for one token, so that each token counts once."""
        tokens = await self._tokens(text)
        if tokens is None:
            (told,) = await self._echo([self._suite.prefix + text])
            return _after(told, max(1, _characters(told["tokens"], len(self._suite.prefix))))
        if self._prefix is None:
            self._prefix = (await self._tokens(self._suite.prefix) or []) if self._suite.prefix else []
        total, count = 0.0, 0
        for prompt in windows(tokens, self._prefix[-1] if self._prefix else None, self._suite.window):
            (told,) = await self._echo([prompt])
            if len(told["token_logprobs"]) != len(prompt):
                raise UpstreamError("the server did not say what each token of the prompt was worth")
            part = _after(told, 1)
            total, count = total + part.logprob, count + part.tokens
        return Likelihood(logprob=total, tokens=count)

    async def continued(self, prompt: str, fields: Mapping[str, Json]) -> str:
        """What the model makes of a text. Raises DockyardError."""
        asked = {"model": self._model, "prompt": prompt, **fields}
        return _answer(await self._client.call("POST", "/v1/completions", asked), 0.0).text

    async def _echo(self, prompts: Sequence[str] | Sequence[list[int]], start: int = 0) -> list[dict[str, Json]]:
        """The ``logprobs`` of each prompt's own tokens; those before place ``start`` may be missing."""
        asked: dict[str, Json] = {"model": self._model, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
        asked["prompt"] = list(prompts)
        try:
            more: dict[str, Json] = {"logprob_start_len": start} if start and self._skips else {}
            told = await self._client.call("POST", "/v1/completions", {**asked, **more})
        except InvalidRequest as error:
            if not more or "logprob_start_len" not in (error.param or error.message):
                raise
            self._skips = False
            told = await self._client.call("POST", "/v1/completions", asked)
        choices = sorted(told["choices"], key=lambda each: int(each.get("index", 0)))
        if len(choices) != len(prompts) or not all(each.get("logprobs") for each in choices):
            raise UpstreamError(
                f"{self._model}: the server gives no log-probabilities of prompts",
                hint="it must know `echo` with `logprobs` in /v1/completions",
            )
        # The one token that was generated comes last, unless it was the end of the text.
        made = int((told.get("usage") or {}).get("completion_tokens", len(prompts))) // len(prompts)
        return [
            {key: value[: len(value) - made] if value else value for key, value in each["logprobs"].items()}
            for each in choices
        ]

    async def _tokens(self, text: str) -> list[int] | None:
        """The ids of a text, without those that a tokenizer adds; None from servers that don't tell."""
        if not self._spells:
            return None
        asked: dict[str, Json] = {"model": self._model, "prompt": text}
        try:
            try:
                told = await self._client.call("POST", "/tokenize", {**asked, "add_special_tokens": False})
            except UnsupportedParameter:  # of an engine whose models begin with nothing of their own
                told = await self._client.call("POST", "/tokenize", asked)
        except (NotFound, InvalidRequest):
            self._spells = False
            return None
        return [int(each) for each in told["tokens"]] if isinstance(told, dict) and "tokens" in told else None


def windows(tokens: Sequence[int], prefix: int | None, size: int) -> list[list[int]]:
    """Prompts of at most ``size`` tokens in which each token of a text stands once after its predecessors; the first of
    all stands after ``prefix``, and without one is not scored. (lm-evaluation-harness, get_rolling_token_windows.)"""
    whole = [prefix, *tokens] if prefix is not None else list(tokens)
    found = []
    at = 1
    while at < len(whole):
        step = size - 1
        found.append([int(each) for each in whole[at - 1 : at + step]])
        at += step
    return found


def _after(told: dict[str, Json], start: int) -> Likelihood:
    """The likelihood of the tokens from place ``start`` on. Raises InvalidRequest where nothing goes before them."""
    values, tops = told["token_logprobs"][start:], (told.get("top_logprobs") or [])[start:]
    if not values:
        return Likelihood(logprob=0.0, tokens=0)
    if any(value is None for value in values):
        raise InvalidRequest("nothing goes before the first token, so its likelihood is unknown", param="prompt")
    greedy = None
    if len(tops) == len(values) and all(tops):
        best = [max(top.values()) for top in tops]
        greedy = all(value >= top - _GREEDY_SLACK for value, top in zip(values, best, strict=True))
    return Likelihood(logprob=math.fsum(values), tokens=len(values), greedy=greedy)


def _characters(tokens: Sequence[str], length: int) -> int:
    """How many tokens lie within the first ``length`` characters."""
    at = 0
    for place, token in enumerate(tokens):
        at += len(token)
        if at > length:
            return place
    return len(tokens)


def _answer(told: Json, seconds: float) -> Answer:
    """An answer of OpenAI's shape, chat or completion."""
    choices = told.get("choices") if isinstance(told, dict) else None
    if not choices:
        raise UpstreamError(f"the server's answer has no choices: {msgspec.json.encode(told)[:200]!r}")
    ordered = sorted(choices, key=lambda each: int(each.get("index") or 0))
    texts = []
    for each in ordered:
        message = each.get("message")
        content = message.get("content") if isinstance(message, dict) else each.get("text")
        texts.append(content if isinstance(content, str) else "")
    message = ordered[0].get("message") or {}
    usage = told.get("usage") or {}
    return Answer(
        text=texts[0],
        samples=tuple(texts) if len(texts) > 1 else (),
        reasoning=str(message.get("reasoning_content") or ""),
        finish=ordered[0].get("finish_reason"),
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        tokens=int(usage.get("completion_tokens") or 0),
        seconds=seconds,
    )


def may_pass(error: DockyardError) -> bool:
    """Whether asking again may help: the server is busy, or was not reached."""
    return error.status in (429, 502, 503)
