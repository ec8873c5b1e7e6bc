"""Ollama's requests as the canonical one: options, durations, formats, messages.

Options that only make sense for Ollama's own runner are not refused, since clients send them unasked; the answer names
them in ``dockyard.ignored``. Options that Ollama does not have either are refused by name.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from dockyard.api import _openai
from dockyard.errors import InvalidRequest, UnsupportedParameter
from dockyard.types import Json, Message, Sampling

Name = Annotated[str, Meta(min_length=1, max_length=512, description="A model, with or without `:latest`.")]
Maybe = Annotated[str, Meta(max_length=512, description="A model; Ollama's own client leaves one of two empty.")]
Window = Annotated[int, Meta(ge=1, le=1 << 30, description="Refused where the model is loaded with less.")]

PASSED = ("typical_p", "repeat_last_n", "mirostat", "mirostat_tau", "mirostat_eta")
NEUTRAL = {"typical_p": 1.0, "mirostat": 0}
IGNORED = (
    "numa", "num_batch", "num_gpu", "main_gpu", "low_vram", "f16_kv", "logits_all", "vocab_only", "use_mmap",
    "use_mlock", "embedding_only", "num_thread", "num_keep", "num_gqa", "tfs_z", "penalize_newline",
    "rope_frequency_base", "rope_frequency_scale", "draft_num_predict",
)  # fmt: skip

_DURATION = re.compile(r"([+-]?)((?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h))+")
_PIECE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_MAGIC = ((b"\x89PNG", "image/png"), (b"\xff\xd8", "image/jpeg"), (b"GIF8", "image/gif"), (b"RIFF", "image/webp"))


class Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Ollama's ``options``. The second group is reported as ignored: it is about Ollama's own runner."""

    num_ctx: Window | None = None
    num_predict: Annotated[int, Meta(ge=-2, le=1 << 30, description="-1 and -2: no limit.")] | None = None
    temperature: Annotated[float, Meta(ge=0)] | None = None
    top_k: Annotated[int, Meta(ge=-1, le=1 << 30)] | None = None
    top_p: _openai.Unit | None = None
    min_p: _openai.Unit | None = None
    typical_p: _openai.Unit | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    repeat_last_n: int | None = None
    presence_penalty: _openai.Penalty | None = None
    frequency_penalty: _openai.Penalty | None = None
    mirostat: Literal[0, 1, 2] | None = None
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    numa: Json = None
    num_batch: Json = None
    num_gpu: Json = None
    main_gpu: Json = None
    low_vram: Json = None
    f16_kv: Json = None
    logits_all: Json = None
    vocab_only: Json = None
    use_mmap: Json = None
    use_mlock: Json = None
    embedding_only: Json = None
    num_thread: Json = None
    num_keep: Json = None
    num_gqa: Json = None
    tfs_z: Json = None
    penalize_newline: Json = None
    rope_frequency_base: Json = None
    rope_frequency_scale: Json = None
    draft_num_predict: Json = None


class Turn(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[dict[str, Json]] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class Asking(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Fields of all requests that use a model."""

    model: Name
    options: Options | None = None
    keep_alive: float | str | None = None


class Generating(Asking, kw_only=True, forbid_unknown_fields=True):
    """Fields of both requests that generate text."""

    stream: bool | None = True
    format: str | dict[str, Json] | None = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    truncate: bool | None = None
    shift: bool | None = None


class ChatRequest(Generating, kw_only=True, forbid_unknown_fields=True):
    """The body of ``/api/chat``; without messages the model is only loaded, or with ``keep_alive`` 0 unloaded."""

    messages: list[Turn] | None = None
    tools: list[dict[str, Json]] | None = None


class GenerateRequest(Generating, kw_only=True, forbid_unknown_fields=True):
    """The body of ``/api/generate``; without a prompt the model is only loaded, or with ``keep_alive`` 0 unloaded."""

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: list[int] | None = None
    raw: bool | None = None
    images: list[str] | None = None
    width: int | None = None
    height: int | None = None
    steps: int | None = None


class EmbedRequest(Asking, kw_only=True, forbid_unknown_fields=True):
    """The body of ``/api/embed``."""

    input: str | list[str] | None = None
    truncate: bool | None = None
    dimensions: Annotated[int, Meta(ge=1, le=1 << 20)] | None = None


class EmbeddingsRequest(Asking, kw_only=True, forbid_unknown_fields=True):
    """The body of ``/api/embeddings``, the older one."""

    prompt: str | None = None


def plain(name: str) -> str:
    """A model's name as the rest of Dockyard has it: the built-in models have no tag."""
    return name.removesuffix(":latest") if name in ("echo:latest",) else name


def seconds(value: float | str | None) -> float | None:
    """A ``keep_alive`` in seconds, negative for good. Text is a Go duration ("5m", "1h30m") or a number."""
    if value is None or isinstance(value, (int, float)):
        return value
    text = value.strip()
    try:
        number = float(text)
        if math.isfinite(number):
            return number
    except ValueError:
        pass
    found = _DURATION.fullmatch(text)
    if found is None:
        raise InvalidRequest(
            f"keep_alive: {value!r:.60} is no duration", param="keep_alive", hint='write "5m", "1h30m" or seconds'
        )
    total = sum(float(number) * _SECONDS[unit] for number, unit in _PIECE.findall(text))
    return -total if found[1] == "-" else total


def sampling(options: Options | None, asked: Generating | None = None) -> Sampling:
    found = options or Options()
    stop = found.stop
    logprobs = (asked.top_logprobs or 0) if asked is not None and asked.logprobs else None
    return Sampling(
        max_tokens=found.num_predict if found.num_predict is not None and found.num_predict > 0 else None,
        temperature=found.temperature,
        top_p=found.top_p,
        top_k=0 if found.top_k == -1 else found.top_k,
        min_p=found.min_p,
        seed=found.seed if found.seed is None or found.seed >= 0 else None,
        stop=() if stop is None else tuple(one for one in ([stop] if isinstance(stop, str) else stop) if one),
        presence_penalty=found.presence_penalty,
        frequency_penalty=found.frequency_penalty,
        repetition_penalty=found.repeat_penalty,
        logprobs=logprobs,
    )


def passed(options: Options | None) -> dict[str, Json]:
    """Options that only some engines have; the engine takes them or refuses them by name."""
    found = {name: getattr(options, name, None) for name in PASSED}
    return {name: value for name, value in found.items() if value is not None and value != NEUTRAL.get(name)}


def ignored(options: Options | None, asked: Generating | None = None) -> list[str]:
    """What was given and has no effect here."""
    names = [f"options.{name}" for name in IGNORED if getattr(options, name, None) is not None]
    others = ("truncate", "shift", "context")
    return names + [name for name in others if getattr(asked, name, None) not in (None, [])]


def extra(asked: Generating) -> dict[str, Json]:
    """The fields that engines take in OpenAI's shape."""
    found = passed(asked.options)
    form = asked.format
    if form == "json":
        found["response_format"] = {"type": "json_object"}
    elif isinstance(form, dict):
        found["response_format"] = {"type": "json_schema", "json_schema": {"name": "format", "schema": form}}
    elif form:
        raise InvalidRequest(f'format: {form!r:.60} is neither "json" nor a JSON schema', param="format")
    if asked.think is not None:
        found["reasoning_effort"] = _effort(asked.think)
    return found


def _effort(think: bool | str) -> str:
    if isinstance(think, bool):
        return "medium" if think else "none"
    if think not in ("low", "medium", "high"):
        raise InvalidRequest(f"think: {think!r:.40} is not true, false, low, medium or high", param="think")
    return think


def messages(turns: list[Turn]) -> tuple[Message, ...]:
    """The conversation. Ollama's calls have no ids: results answer the calls before them by name, else in order."""
    found: list[Message] = []
    waiting: list[tuple[str, str]] = []
    for place, turn in enumerate(turns):
        at = f"messages[{place}]"
        content = _content(turn.content or "", turn.images, f"{at}.images")
        if turn.role == "tool":
            answered = turn.tool_call_id or _answered(turn.tool_name, waiting)
            found.append(Message(role="tool", content=content, tool_call_id=answered, name=turn.tool_name))
            continue
        calls = [_call(call, f"{at}.tool_calls[{number}]", place, number) for number, call in
                 enumerate(turn.tool_calls or ())]  # fmt: skip
        if calls:
            waiting = [(call["id"], call["function"]["name"]) for call in calls]
        found.append(
            Message(
                role=turn.role,
                content=None if calls and not content else content,
                tool_calls=calls or None,
                reasoning_content=turn.thinking or None,
            )
        )
    return tuple(found)


def prompted(asked: GenerateRequest) -> tuple[Message, ...]:
    """A prompt, its images and its system prompt as a conversation."""
    user = Message(role="user", content=_content(asked.prompt or "", asked.images, "images"))
    return (Message(role="system", content=asked.system), user) if asked.system else (user,)


def tools(given: list[dict[str, Json]]) -> list[Json]:
    """Tools as OpenAI has them, which is nearly as Ollama has them."""
    for place, tool in enumerate(given):
        function = tool.get("function")
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            raise InvalidRequest(f"tools[{place}].function.name is required", param=f"tools[{place}].function.name")
    return [{**tool, "type": "function"} for tool in given]


def refuse_images(asked: GenerateRequest) -> None:
    for name in ("width", "height", "steps"):
        if getattr(asked, name) is not None:
            raise UnsupportedParameter(f"{name!r}: images are not generated by this dialect", param=name)


def _answered(name: str | None, waiting: list[tuple[str, str]]) -> str:
    place = next((place for place, (_, called) in enumerate(waiting) if called == name), 0)
    return waiting.pop(place)[0] if waiting else _openai.new_id("call_")


def _call(call: dict[str, Json], at: str, turn: int, number: int) -> dict[str, Any]:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise InvalidRequest(f"{at}.function.name is required", param=f"{at}.function.name")
    arguments = function.get("arguments")
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments or {}).decode()
    given = call.get("id")
    name = given if isinstance(given, str) and given else f"call_{turn}_{number}"
    return {"id": name, "type": "function", "function": {"name": function["name"], "arguments": text}}


def _content(text: str, images: list[str] | None, at: str) -> str | list[Json]:
    if not images:
        return text
    parts: list[Json] = [{"type": "text", "text": text}] if text else []
    for place, data in enumerate(images):
        url = f"data:{_kind(data, f'{at}[{place}]')};base64,{data}"
        parts.append({"type": "image_url", "image_url": {"url": url}})
    return parts


def _kind(data: str, at: str) -> str:
    try:
        head = base64.b64decode(data, validate=True)[:8]
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{at} is not base64", param=at) from None
    kind = next((kind for magic, kind in _MAGIC if head.startswith(magic)), None)
    if kind is None:
        raise InvalidRequest(f"{at} is no PNG, JPEG, GIF or WebP image", param=at)
    return kind
