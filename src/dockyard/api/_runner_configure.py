"""``/engines/_configure``: how models are to be loaded, in Model Runner's words.

Unlike there, what is set is kept over restarts, and merged into what was set before.
"""

from __future__ import annotations

import shlex
from typing import Any

import msgspec

from dockyard.api import _runner_wire as wire
from dockyard.api._site import Site
from dockyard.errors import InvalidRequest, UnsupportedParameter
from dockyard.types import Defaults, Json, LoadOptions, Sampling


class Speculative(msgspec.Struct, forbid_unknown_fields=True):
    """Guessing ahead with a small model of the store."""

    draft_model: str = ""
    num_tokens: int | None = None
    min_acceptance_rate: float | None = None


class Vllm(msgspec.Struct, forbid_unknown_fields=True):
    """Options of vLLM alone."""

    hf_overrides: dict[str, Json] | None = msgspec.field(name="hf-overrides", default=None)
    memory: float | None = msgspec.field(name="gpu-memory-utilization", default=None)


class LlamaCpp(msgspec.Struct, forbid_unknown_fields=True):
    """Options of llama.cpp alone."""

    reasoning_budget: int | None = msgspec.field(name="reasoning-budget", default=None)


class ConfigureBody(msgspec.Struct, forbid_unknown_fields=True):
    """What to keep for a model. Fields that are left out stay as they are."""

    model: str
    mode: str | None = None
    context: int | None = msgspec.field(name="context-size", default=None)
    flags: list[str] | None = msgspec.field(name="runtime-flags", default=None)
    raw: str | None = msgspec.field(name="raw-runtime-flags", default=None)
    keep_alive: str | None = None
    speculative: Speculative | None = None
    vllm: Vllm | None = None
    llamacpp: LlamaCpp | None = None


def options_of(asked: ConfigureBody, engine: str | None) -> LoadOptions:
    """The options that a body asks for; ``engine`` is the one in its path. Raises InvalidRequest."""
    words = _words(asked)
    if engine == "vllm" or asked.vllm is not None:
        if asked.llamacpp is not None:
            raise InvalidRequest("'llamacpp' and 'vllm' are options of different backends", param="llamacpp")
        found = _for_vllm(asked, words)
    else:
        found = _for_llama(asked, words)
        if engine is not None:
            found = msgspec.structs.replace(found, engine=engine)
    changes: dict[str, Any] = {}
    if asked.mode:
        changes["mode"] = wire.mode_of(asked.mode)
    if asked.context is not None and asked.context != 0:
        if asked.context < -1:
            raise InvalidRequest(f"context-size is {asked.context}", param="context-size", hint="-1: as trained")
        changes["context"] = asked.context
    if asked.keep_alive:
        changes["keep_alive"] = wire.seconds(asked.keep_alive)
    return msgspec.structs.replace(found, **changes)


def row(site: Site, digest: str, reference: str, options: LoadOptions) -> dict[str, Any]:
    """One model's configuration as ``GET /engines/_configure`` lists it."""
    loaded = next((one for one in site.fleet.models() if (one.digest, one.mode) == (digest, options.mode)), None)
    engine = options.engine or (loaded.engine if loaded is not None else "llamacpp")
    config: dict[str, Any] = {"context-size": options.context, "keep_alive": wire.told(options.keep_alive)}
    for name in ("parallel", "threads"):
        config[name] = getattr(options, name)
    config = {name: value for name, value in config.items() if value is not None}
    if options.flags:
        config["flags"] = options.flags
    if options.defaults is not None:
        config["defaults"] = msgspec.to_builtins(options.defaults)
    return {
        "Backend": wire.backend_of(engine),
        "Model": reference,
        "ModelID": digest,
        "Mode": wire.MODES[options.mode],
        "Config": config,
    }


def _words(asked: ConfigureBody) -> list[str]:
    if asked.flags is not None and asked.raw:
        raise InvalidRequest("send 'runtime-flags' or 'raw-runtime-flags', not both", param="raw-runtime-flags")
    if not asked.raw:
        return asked.flags or []
    try:
        return shlex.split(asked.raw)
    except ValueError as error:
        raise InvalidRequest(f"raw-runtime-flags: {error}", param="raw-runtime-flags") from None


def _for_llama(asked: ConfigureBody, words: list[str]) -> LoadOptions:
    from dockyard.engines._llama_arguments import read_arguments

    read = read_arguments(words)
    options, extra = read.options, dict(read.extra)
    if asked.llamacpp is not None and asked.llamacpp.reasoning_budget is not None:
        extra["thinking_budget_tokens"] = asked.llamacpp.reasoning_budget
    if asked.speculative is not None and asked.speculative.draft_model:
        raise UnsupportedParameter(
            "a draft model can't be configured here",
            param="speculative.draft_model",
            hint='n-gram speculation needs none: "runtime-flags": ["--spec-type", "ngram-simple"]',
        )
    if not read.sampling and not extra:
        return options
    sampling = dict(read.sampling)
    if "stop" in sampling:
        sampling["stop"] = tuple(sampling["stop"])
    return msgspec.structs.replace(options, defaults=Defaults(sampling=Sampling(**sampling), extra=extra))


_VLLM = {"--max-model-len": "context", "--max-num-seqs": "parallel"}


def _for_vllm(asked: ConfigureBody, words: list[str]) -> LoadOptions:
    """vLLM's flags by name: those that every engine has become options, the rest is for its own allow-list to judge."""
    counts: dict[str, Any] = {}
    flags: dict[str, Json] = {}
    rest = list(reversed(words))
    while rest:
        name, given, text = rest.pop().partition("=")
        if not name.startswith("--"):
            raise InvalidRequest(f"runtime-flags: {name!r} is no flag and belongs to none", param="runtime-flags")
        if not given and rest and not rest[-1].startswith("--"):
            given, text = "=", rest.pop()
        if "/" in text or "\\" in text:
            raise InvalidRequest(f"{name}: a value can't hold / or \\, so that it never names a file", param=name)
        if name in _VLLM:
            if not text.isascii() or not text.isdigit():
                raise InvalidRequest(f"{name}: {text!r} is no count", param=name)
            counts[_VLLM[name]] = int(text)
        else:
            flags[name.removeprefix("--").replace("-", "_")] = _value(text) if given else True
    if asked.vllm is not None and asked.vllm.hf_overrides is not None:
        flags["hf_overrides"] = asked.vllm.hf_overrides
    if asked.vllm is not None and asked.vllm.memory is not None:
        flags["gpu_memory_utilization"] = asked.vllm.memory
    return LoadOptions(engine="vllm", flags=flags, **counts)


def _value(text: str) -> Json:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text
