"""What OpenAI's chat and legacy completion dialects share: fields, sampling, usage, logprobs.

Fields with an effect are read here; ``tools``, ``response_format`` and their like travel in ``Request.extra`` to the
engine, which refuses what it can't do by name, as it does fields that nobody here knows. The last group of ``Common``
is accepted for the sake of clients and documented as having no effect on one's own machine.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from dockyard.errors import InvalidRequest, UnsupportedParameter
from dockyard.types import Chunk, Json, Result, Sampling, TokenLogprob, Usage

_PROCESS = os.urandom(8).hex()
_COUNT = itertools.count(1)

Unit = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Count = Annotated[int, Meta(ge=1, le=1 << 30)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
StopText = Annotated[str, Meta(min_length=1, max_length=1024)]
Stops = Annotated[list[StopText], Meta(max_length=16)]


ModelName = Annotated[str, Meta(min_length=1, max_length=512, description="Name of a model in the store, or `echo`.")]


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    """``include_usage`` asks for an event with the usage before the end, ``continuous_usage_stats`` (vLLM's) with it
    for the usage so far in every event."""

    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False
    include_obfuscation: bool | None = None


class Common(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Fields of both dialects."""

    model: ModelName
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = 1
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Unit | None = None
    top_k: Annotated[int, Meta(ge=-1, le=1 << 30, description="0 or -1: no limit.")] | None = None
    min_p: Unit | None = None
    seed: Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)] | None = None
    stop: StopText | Stops | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    logit_bias: dict[str, Bias] | None = None
    ignore_eos: bool | None = None
    # No effect here: accepted because clients send them.
    user: str | None = None
    metadata: dict[str, Json] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Json] | None = None
    prompt_cache_retention: str | None = None


def sampling(asked: Common, *, logprobs: int | None, max_tokens: int | None) -> Sampling:
    """The sampling that a request asks for."""
    stop = asked.stop
    return Sampling(
        max_tokens=max_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=0 if asked.top_k == -1 else asked.top_k,
        min_p=asked.min_p,
        seed=asked.seed,
        stop=() if stop is None else (stop,) if isinstance(stop, str) else tuple(stop),
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
        repetition_penalty=asked.repetition_penalty,
        logit_bias=asked.logit_bias,
        logprobs=logprobs,
        n=asked.n or 1,
        ignore_eos=bool(asked.ignore_eos),
    )


def check(asked: Common) -> None:
    """What holds between fields."""
    if asked.stream_options is not None and not asked.stream:
        raise InvalidRequest("'stream_options' goes with 'stream': true", param="stream_options")
    if counting(asked) and not include_usage(asked):
        param = "stream_options.continuous_usage_stats"
        raise InvalidRequest("'continuous_usage_stats' goes with 'include_usage': true", param=param)
    check_model(asked.model)
    for token in asked.logit_bias or ():
        if not token.isascii() or not token.removeprefix("-").isdigit():
            raise InvalidRequest(f"logit_bias: {token!r} is not a token id", param=f"logit_bias.{token}")


def check_model(name: str) -> None:
    if "\x00" in name:
        raise InvalidRequest("a model's name has no zero bytes", param="model")


def texts(value: str | list[Json], param: str, most: int) -> list[str | list[int]]:
    """The texts that a field stands for: one text, one list of token ids, or a list of either.

    Raises InvalidRequest naming what is empty, mixed up, or beyond ``most``.
    """
    if isinstance(value, str):
        if not value:
            raise InvalidRequest(f"{param!r} is empty", param=param)
        return [value]
    if not value:
        raise InvalidRequest(f"{param!r} is an empty list", param=param)
    if token_ids(value):
        return [value]
    if len(value) > most:
        raise InvalidRequest(f"{param!r} holds {len(value)} texts; {most} is the most", param=param)
    for number, one in enumerate(value):
        at = f"{param}[{number}]"
        if not isinstance(one, str) and not (isinstance(one, list) and one and token_ids(one)):
            raise InvalidRequest(f"{at} is neither text nor a list of token ids", param=at)
        if not one:
            raise InvalidRequest(f"{at} is empty", param=at)
    return value


def token_ids(value: list[Json]) -> bool:
    return all(isinstance(one, int) and not isinstance(one, bool) and 0 <= one < 1 << 31 for one in value)


def result_of(batches: list[list[Chunk]], default: Result) -> Result:
    """What an answer holds beside text."""
    return next((chunk.result for batch in batches for chunk in batch if chunk.result is not None), default)


def include_usage(asked: Common) -> bool:
    return asked.stream_options is not None and bool(asked.stream_options.include_usage)


def counting(asked: Common) -> bool:
    """Whether each event is to say the usage so far."""
    return asked.stream_options is not None and bool(asked.stream_options.continuous_usage_stats)


def tail_with(usage: Usage) -> bytes:
    """The end of an event that says the usage."""
    return b'],"usage":' + msgspec.json.encode(usage_fields(usage)) + b"}\n\n"


def refuse(asked: msgspec.Struct, fields: dict[str, str]) -> None:
    """Refuse fields that OpenAI has and Dockyard can't honour; ``fields`` maps each to what to do instead."""
    for name, advice in fields.items():
        if getattr(asked, name):
            raise UnsupportedParameter(f"{name!r} is not supported", param=name, hint=advice)


def passed(asked: msgspec.Struct, names: tuple[str, ...], unknown: dict[str, Json]) -> dict[str, Json]:
    """The fields for the engine to honour or refuse: the named ones that were given, and those nobody knows."""
    extra = unknown
    for name in names:
        value = getattr(asked, name)
        if value is not None:
            extra[name] = value
    return extra


def new_id(prefix: str) -> str:
    """Unique in the world: random for each process, counted within it."""
    return f"{prefix}{_PROCESS}{next(_COUNT):010x}"


def usage_fields(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }


def chat_logprobs(tokens: list[TokenLogprob]) -> dict[str, Any]:
    """The ``logprobs`` of a chat choice."""
    return {
        "content": [{**_token(one), "top_logprobs": [_token(other) for other in one.top]} for one in tokens],
        "refusal": None,
    }


def _token(one: TokenLogprob) -> dict[str, Any]:
    known = one.bytes if one.bytes is not None else list(one.token.encode("utf-8", "replace"))
    return {"token": one.token, "logprob": one.logprob, "bytes": known}


def legacy_logprobs(tokens: Sequence[TokenLogprob | str], offset: int) -> dict[str, Any]:
    """The ``logprobs`` of a legacy completion; ``offset`` is where the first token's text begins.

    A token that is only text has no log-probability: the first of a prompt.
    """
    offsets, names, values, tops = [], [], [], []
    for one in tokens:
        name = one if isinstance(one, str) else one.token
        offsets.append(offset)
        offset += len(name)
        names.append(name)
        values.append(None if isinstance(one, str) else one.logprob)
        tops.append(
            None
            if isinstance(one, str)
            else {**{other.token: other.logprob for other in one.top}, one.token: one.logprob}
        )
    return {"tokens": names, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}


def merge_tool_calls(held: list[dict[str, Any]], deltas: list[Any]) -> None:
    """Put streamed pieces of tool calls together, in place."""
    for position, delta in enumerate(deltas):
        if not isinstance(delta, dict):
            continue
        index = delta.get("index", position)
        while len(held) <= index:
            held.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
        call, function = held[index], delta.get("function") or {}
        call["id"] = call["id"] or delta.get("id") or ""
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""


class Choice:
    """One choice of an answer that is put together before it is sent."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.reasoning: list[str] = []
        self.tool_calls: list[dict[str, Any]] = []
        self.logprobs: list[TokenLogprob] | None = None
        self.finish: str | None = None
        self.annotations: list[Any] = []

    def add(self, chunk: Chunk) -> None:
        if chunk.text:
            self.texts.append(chunk.text)
        if chunk.reasoning:
            self.reasoning.append(chunk.reasoning)
        if chunk.tool_calls:
            merge_tool_calls(self.tool_calls, chunk.tool_calls)
        if chunk.logprobs is not None:
            self.logprobs = [*(self.logprobs or ()), *chunk.logprobs]
        if chunk.annotations:
            self.annotations += chunk.annotations
        if chunk.finish is not None:
            self.finish = chunk.finish


def gathered(batches: list[list[Chunk]], count: int) -> list[Choice]:
    """The choices that these chunks make up, by index."""
    choices = [Choice() for _ in range(count)]
    for batch in batches:
        for chunk in batch:
            choices[chunk.index].add(chunk)
    return choices
