"""llama-server's command line, as Model Runner's ``runtime-flags`` and Compose hand it on, read as our own options.

Only what can't reach files, the network or other users' data is taken; everything else is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec

from dockyard.engines._llama_flags import read_flags
from dockyard.errors import InvalidRequest, UnsupportedParameter
from dockyard.types import Json, LoadOptions, Mode


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """What requests get that don't say otherwise: ``sampling`` in the names of Sampling, ``extra`` in Request.extra's.

    ``options`` is how to load the model.
    """

    options: LoadOptions
    sampling: dict[str, Json]
    extra: dict[str, Json]


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _positive(text: str) -> int | None:
    """A count; 0 and -1 leave it to llama.cpp."""
    value = int(text)
    if value < -1:
        raise ValueError(text)
    return value if value > 0 else None


def _mebibytes(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value << 20


def _json(text: str) -> Json:
    return msgspec.json.decode(text)


def _object(text: str) -> Json:
    value = msgspec.json.decode(text)
    if not isinstance(value, dict):
        raise TypeError(text)
    return value


def _words(text: str) -> list[str]:
    return [word for word in text.split(";") if word]


def _bias(text: str) -> dict[str, float]:
    """``15043+1`` or ``15043-1``."""
    at = max(text.rfind("+"), text.rfind("-"))
    token, value = text[:at], text[at:]
    if at < 1 or not token.isdecimal():
        raise ValueError(text)
    return {token: _number(value)}


def _thinking(text: str) -> dict[str, Json]:
    return {"on": {"enable_thinking": True}, "off": {"enable_thinking": False}, "auto": {}}[text]


def _switch(text: str) -> str:
    return {"1": "on", "true": "on", "0": "off", "false": "off"}.get(text, text)


def _layers(text: str) -> int | None:
    return {"auto": None, "all": 999}[text] if text in ("auto", "all") else int(text)


_Read = Callable[[str], Any]

_VALUES: dict[str, tuple[str, _Read]] = {
    "-c --ctx-size": ("context", _positive),
    "-np --parallel": ("parallel", _positive),
    "-t --threads": ("threads", _positive),
    "-tb --threads-batch": ("flags.threads_batch", _positive),
    "-b --batch-size": ("flags.batch_size", _positive),
    "-ub --ubatch-size": ("flags.ubatch_size", _positive),
    "-fa --flash-attn": ("flags.flash_attn", _switch),
    "-ctk --cache-type-k": ("flags.cache_type_k", str),
    "-ctv --cache-type-v": ("flags.cache_type_v", str),
    "-cram --cache-ram": ("flags.prompt_cache", _mebibytes),
    "--cache-reuse": ("flags.cache_reuse", int),
    "-sps --slot-prompt-similarity": ("flags.slot_prompt_similarity", _number),
    "-lm --load-mode": ("flags.load_mode", str),
    "--numa": ("flags.numa", str),
    "--pooling": ("flags.pooling", str),
    "--rope-scaling": ("flags.rope_scaling", str),
    "--rope-freq-base": ("flags.rope_freq_base", _number),
    "--rope-freq-scale": ("flags.rope_freq_scale", _number),
    "--yarn-orig-ctx": ("flags.yarn_orig_ctx", int),
    "--yarn-ext-factor": ("flags.yarn_ext_factor", _number),
    "--yarn-attn-factor": ("flags.yarn_attn_factor", _number),
    "--yarn-beta-slow": ("flags.yarn_beta_slow", _number),
    "--yarn-beta-fast": ("flags.yarn_beta_fast", _number),
    "--image-min-tokens": ("flags.image_min_tokens", _positive),
    "--image-max-tokens": ("flags.image_max_tokens", _positive),
    "--spec-type": ("flags.spec_type", str),
    "--spec-draft-n-max": ("flags.spec_draft_n_max", int),
    "--spec-draft-n-min": ("flags.spec_draft_n_min", int),
    "--spec-draft-p-min --draft-p-min": ("flags.spec_draft_p_min", _number),
    "--spec-ngram-simple-size-n --spec-ngram-map-k-size-n --spec-ngram-map-k4v-size-n --spec-ngram-mod-n-match": (
        "flags.spec_ngram_size_n", int),
    "--spec-ngram-simple-size-m --spec-ngram-map-k-size-m --spec-ngram-map-k4v-size-m --spec-ngram-mod-n-max": (
        "flags.spec_ngram_size_m", int),
    "--spec-ngram-simple-min-hits --spec-ngram-map-k-min-hits --spec-ngram-map-k4v-min-hits": (
        "flags.spec_ngram_min_hits", int),
    "-ngl --gpu-layers --n-gpu-layers": ("flags.gpu_layers", _layers),
    "-ncmoe --n-cpu-moe": ("flags.n_cpu_moe", int),
    "-mg --main-gpu": ("flags.main_gpu", int),
    "-sm --split-mode": ("flags.split_mode", str),
    "-ts --tensor-split": ("flags.tensor_split", str),
    "-n --predict --n-predict": ("sampling.max_tokens", _positive),
    "--temp --temperature": ("sampling.temperature", _number),
    "--top-k": ("sampling.top_k", int),
    "--top-p": ("sampling.top_p", _number),
    "--min-p": ("sampling.min_p", _number),
    "-s --seed": ("sampling.seed", _positive),
    "--repeat-penalty": ("sampling.repetition_penalty", _number),
    "--presence-penalty": ("sampling.presence_penalty", _number),
    "--frequency-penalty": ("sampling.frequency_penalty", _number),
    "-l --logit-bias": ("sampling.logit_bias", _bias),
    "-r --reverse-prompt": ("sampling.stop", lambda text: [text]),
    "--repeat-last-n": ("extra.repeat_last_n", int),
    "--samplers": ("extra.samplers", _words),
    "--top-nsigma --top-n-sigma": ("extra.top_n_sigma", _number),
    "--xtc-probability": ("extra.xtc_probability", _number),
    "--xtc-threshold": ("extra.xtc_threshold", _number),
    "--typical --typical-p": ("extra.typical_p", _number),
    "--dry-multiplier": ("extra.dry_multiplier", _number),
    "--dry-base": ("extra.dry_base", _number),
    "--dry-allowed-length": ("extra.dry_allowed_length", int),
    "--dry-penalty-last-n": ("extra.dry_penalty_last_n", int),
    "--dry-sequence-breaker": ("extra.dry_sequence_breakers", lambda text: [text]),
    "--adaptive-target": ("extra.adaptive_target", _number),
    "--adaptive-decay": ("extra.adaptive_decay", _number),
    "--dynatemp-range": ("extra.dynatemp_range", _number),
    "--dynatemp-exp": ("extra.dynatemp_exponent", _number),
    "--mirostat": ("extra.mirostat", int),
    "--mirostat-lr": ("extra.mirostat_eta", _number),
    "--mirostat-ent": ("extra.mirostat_tau", _number),
    "--grammar": ("extra.grammar", str),
    "-j --json-schema": ("extra.json_schema", _json),
    "--reasoning-format": ("extra.reasoning_format", str),
    "--reasoning-effort": ("extra.reasoning_effort", str),
    "--reasoning-budget": ("extra.thinking_budget_tokens", int),
    "-rea --reasoning": ("extra.chat_template_kwargs", _thinking),
    "--chat-template-kwargs": ("extra.chat_template_kwargs", _object),
}  # fmt: skip
"""Arguments with a value: where it goes, and how it is read."""

_SWITCHES: dict[str, tuple[str, Json]] = {
    "--swa-full": ("flags.swa_full", True),
    "--mlock": ("flags.load_mode", "mlock"),
    "--mmap": ("flags.load_mode", "mmap"),
    "--no-mmap": ("flags.load_mode", "none"),
    "--warmup": ("flags.warmup", True),
    "--no-warmup": ("flags.warmup", False),
    "-kvo --kv-offload": ("flags.kv_offload", True),
    "-nkvo --no-kv-offload": ("flags.kv_offload", False),
    "-cmoe --cpu-moe": ("flags.n_cpu_moe", 999),
    "--ignore-eos": ("sampling.ignore_eos", True),
    "--no-cache-prompt": ("extra.cache_prompt", False),
    "--cache-prompt": ("extra.cache_prompt", True),
    "--embedding --embeddings": ("mode", "embed"),
    "--rerank --reranking": ("mode", "rerank"),
}
"""Arguments that stand alone."""

_ALWAYS = frozenset(
    {
        "--jinja", "-cb", "--cont-batching", "-kvu", "--kv-unified", "--offline", "--no-context-shift", "--no-slots",
        "--no-webui", "--no-ui", "--no-perf", "--log-disable", "--no-agent",
    }
)  # fmt: skip
"""Arguments that ask for what is so anyway."""


def read_arguments(arguments: list[str]) -> Defaults:
    """Options and defaults out of ``["--ctx-size", "4096", "--temp=0.7"]``; the last word on a thing counts.

    Raises UnsupportedParameter naming an argument that is not taken, InvalidRequest naming one with a bad value.
    """
    found: dict[str, Json] = {}
    rest = list(reversed(arguments))
    while rest:
        name, given, text = rest.pop().partition("=")
        if not name.startswith("-"):
            raise InvalidRequest(f"runtime flags: {name!r} is no flag and belongs to none", param="runtime-flags")
        if name.startswith("--"):
            name = name.replace("_", "-")
        if name in _TAKES_VALUE:
            if not given and not rest:
                raise InvalidRequest(f"{name} wants a value", param=name)
            field, read = _TAKES_VALUE[name]
            _put(found, field, _read(name, text if given else rest.pop(), read))
        elif name in _STANDS_ALONE and not given:
            _put(found, *_STANDS_ALONE[name])
        elif name not in _ALWAYS or given:
            raise UnsupportedParameter(
                f"{name} is not among the llama-server flags that can be set here",
                param=name,
                hint="flags that name files, ports or logs are Dockyard's own business",
            )
    return _sorted_out(found)


def flags_from_arguments(arguments: list[str]) -> tuple[LoadOptions, dict[str, Json]]:
    """How to load, and what requests get by default: names of Sampling, and of Request.extra for what that lacks."""
    found = read_arguments(arguments)
    return found.options, {**found.sampling, **found.extra}


def _read(name: str, text: str, read: _Read) -> Json:
    if "/" in text or "\\" in text:
        raise InvalidRequest(f"{name}: a value can't hold / or \\, so that it never names a file", param=name)
    try:
        return read(text)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise InvalidRequest(f"{name}: {text!r} is no value for it", param=name) from error


def _put(found: dict[str, Json], field: str, value: Json) -> None:
    """What may be said several times adds up, as in llama-server."""
    before = found.get(field)
    if isinstance(before, dict) and isinstance(value, dict) and field != "extra.json_schema":
        value = {**before, **value}
    elif isinstance(before, list) and isinstance(value, list) and field != "extra.samplers":
        value = before + value
    found[field] = value


def _sorted_out(found: dict[str, Json]) -> Defaults:
    parts: dict[str, dict[str, Json]] = {"": {}, "flags": {}, "sampling": {}, "extra": {}}
    for field, value in found.items():
        part, _, name = field.rpartition(".")
        if value is not None and value != {}:
            parts[part][name] = value
    read_flags(parts["flags"])
    mode: Mode = parts[""].pop("mode", "generate")
    if parts["flags"].get("pooling") is not None and mode == "generate":
        mode = "embed"
    return Defaults(
        options=LoadOptions(mode=mode, flags=parts["flags"], **parts[""]),
        sampling=parts["sampling"],
        extra=parts["extra"],
    )


_TAKES_VALUE = {name: found for names, found in _VALUES.items() for name in names.split()}
_STANDS_ALONE = {name: found for names, found in _SWITCHES.items() for name in names.split()}
