"""A request as llama.cpp's server wants it: our sampling by its names, and only what the allow-list lets through."""

from __future__ import annotations

import re

import msgspec

from dockyard.engines._llama_chat import settle_tools
from dockyard.errors import InvalidRequest, UnsupportedParameter
from dockyard.types import Json, Request

ACCEPTS = frozenset(
    {
        "adaptive_decay", "adaptive_target", "add_generation_prompt", "cache_prompt", "chat_template_kwargs",
        "continue_final_message",
        "dry_allowed_length", "dry_base", "dry_multiplier", "dry_penalty_last_n", "dry_sequence_breakers",
        "dynatemp_exponent", "dynatemp_range", "grammar", "json_schema", "mirostat", "mirostat_eta", "mirostat_tau",
        "parallel_tool_calls", "reasoning_effort", "reasoning_format", "repeat_last_n", "response_format", "samplers",
        "thinking_budget_tokens", "tool_choice", "tools", "top_n_sigma", "typical_p", "xtc_probability",
        "xtc_threshold",
    }
)  # fmt: skip
"""Fields of ``Request.extra`` that reach llama.cpp. None of them touches files, slots or the machine."""

_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|#[^\n]*')
"""What a grammar says literally: text, character classes and comments."""

_RENAMED = (
    ("max_tokens", "max_tokens"),
    ("temperature", "temperature"),
    ("top_p", "top_p"),
    ("top_k", "top_k"),
    ("min_p", "min_p"),
    ("seed", "seed"),
    ("presence_penalty", "presence_penalty"),
    ("frequency_penalty", "frequency_penalty"),
    ("repetition_penalty", "repeat_penalty"),
)


def prompt_fields(request: Request) -> dict[str, Json]:
    """What decides over the prompt: extra fields and messages, tools settled. Raises InvalidRequest with the field."""
    for name in request.extra:
        if name not in ACCEPTS:
            raise UnsupportedParameter(f"the llamacpp engine does not take {name!r}", param=name)
    fields: dict[str, Json] = dict(request.extra)
    if isinstance(grammar := fields.get("grammar"), str) and "<" in _QUOTED.sub("", grammar):
        # One that asks for a token which ends an answer makes llama.cpp abort the process.
        raise UnsupportedParameter("grammars that name tokens are not taken", param="grammar", hint="write their text")
    settle_tools(fields)
    if request.messages is not None:
        fields["messages"] = msgspec.to_builtins(request.messages)
    return fields


def body(request: Request, fields: dict[str, Json], parallel: int) -> bytes:
    """The JSON body, out of ``prompt_fields`` and a prompt. Raises InvalidRequest naming the field."""
    sampling = request.sampling
    for ours, theirs in _RENAMED:
        value = getattr(sampling, ours)
        if value is not None:
            fields[theirs] = value
    if sampling.stop:
        fields["stop"] = list(sampling.stop)
    if sampling.ignore_eos:
        fields["ignore_eos"] = True
    if sampling.logit_bias:
        fields["logit_bias"] = [_bias(token, bias) for token, bias in sampling.logit_bias.items()]
    if sampling.logprobs is not None:
        fields["n_probs"] = max(1, sampling.logprobs)
    if sampling.n > parallel:
        raise InvalidRequest(
            f"n={sampling.n} is more than the {parallel} requests this model decodes together", param="n"
        )
    if sampling.n != 1:
        fields["n"] = sampling.n
    # Progress is only asked for so that a request can be cancelled between two batches of its prompt.
    fields.update(stream=True, stream_options={"include_usage": True}, return_progress=True)
    if request.counting:
        fields["timings_per_token"] = True
    return msgspec.json.encode(fields)


def _bias(token: str, bias: float) -> tuple[int, float]:
    if not token.isdecimal():
        raise InvalidRequest(f"logit_bias: {token!r} is not a token id", param="logit_bias")
    return int(token), bias
