"""What of a model OpenVINO GenAI can serve, how much memory that takes, and how many requests share it.

The KV cache is one pool of blocks that all requests share; one that finds it full waits, and the newest of several that
grew too large together is computed again later, so that the pool need not be the product of context and requests.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from dockyard.artifact.formats.gguf import matrices
from dockyard.engines._openvino_sight import LANGUAGE, PARTS
from dockyard.engines._openvino_weights import GROUPS, Weights
from dockyard.errors import DockyardError, InvalidRequest
from dockyard.hardware import Hardware
from dockyard.settings import Settings
from dockyard.types import Json, LoadOptions, Memory, ModelFacts, ModelFiles

ARCHITECTURES = frozenset({"llama", "qwen2", "qwen3"})
TYPES = frozenset({"F16", "Q8_0", "Q4_0", "Q4_1", "Q4_K", "Q6_K"})
"""Tensor types of GGUF that GenAI reads; norms and biases may be F32 beside them."""

TOKENIZERS = frozenset({"BPE (qwen2)", "BPE (smollm)"})
"""Pre-tokenisers whose rules GenAI has; with any other it would split words its own way, and say nothing."""

MAX_PARALLEL = 32
TOKENS_PER_SLOT = 512
"""Pool tokens that justify one more request decoded together; chats rarely hold more at a time."""

POOL_TOKENS = 16384
POOL_SHARE = 0.25
"""Share of the memory left beside the weights that the pool takes without being asked."""

DEFAULT_CONTEXT = 8192
LEAST_CONTEXT = 2048
BLOCK = 32
"""Tokens of one block of the KV cache on a CPU: whole blocks are what the prefix cache keeps."""

STEP_TOKENS = 256
STEP_PARAMETERS = 500_000_000
"""A step of ``STEP_TOKENS`` prompt tokens takes a model of so many weights about a second on two cores; larger models
take fewer tokens a step, since nothing else of the worker runs and nobody can cancel in the middle of one."""

PROCESS = 240 << 20
"""Resident bytes of the process with OpenVINO, a tokenizer and what its kernels need, beside weights and KV cache."""

FALLBACK_KV = 64 << 10
"""Values that one token keeps where the headers do not say: a 7B model with grouped-query attention."""


class Flags(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The OpenVINO settings that a user may reach: this is the allow-list of ``LoadOptions.flags``.

    ``kv_precision`` is that of the KV cache and ``precision`` that of activations ("auto": what the CPU is fastest at
    over long prompts; "q8": float32 rounded to eight bits in groups before compressed weights, which decodes faster);
    ``weights`` is how a GGUF file's are laid out for the kernels ("int8" and "half" take more memory, and decode faster
    where a model is small); ``kv_tokens`` is the size of the pool, ``step_tokens`` how many prompt tokens one scheduler
    step may take; ``adapters`` prepares for adapters at load, not at the first request that names one;
    ``prompt_lookup`` guesses up to that many tokens ahead from the prompt (0: off); ``draft`` names a stored model that
    guesses ``draft_tokens`` ahead.
    """

    kv_precision: Literal["u8", "f16", "bf16", "f32"] = "u8"
    precision: Literal["auto", "f32", "bf16", "f16", "q8"] = "auto"
    weights: Weights = "file"
    kv_tokens: int | None = None
    step_tokens: int | None = None
    prefix_cache: bool = True
    adapters: bool = False
    prompt_lookup: int = 0
    draft: str | None = None
    draft_tokens: int = 4


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What the arithmetic comes to; ``pool`` is in blocks, ``step`` in tokens."""

    context: int
    parallel: int
    pool: int
    step: int
    memory: Memory


def read_flags(flags: dict[str, Json]) -> Flags:
    """Raises InvalidRequest naming the flag that is unknown, of the wrong type or out of range."""
    try:
        found = msgspec.convert(flags, Flags)
    except msgspec.ValidationError as error:
        names = ", ".join(Flags.__struct_fields__)
        raise InvalidRequest(f"openvino flags: {error}", param="flags", hint=f"flags: {names}") from error
    for name, least, most in (("kv_tokens", BLOCK, 1 << 24), ("step_tokens", BLOCK, 8192), ("prompt_lookup", 0, 16),
                              ("draft_tokens", 1, 16)):  # fmt: skip
        value = getattr(found, name)
        if value is not None and not least <= value <= most:
            raise InvalidRequest(f"flag {name}: {value} is not from {least} to {most}", param=f"flags.{name}")
    if found.weights == "half" and found.precision == "q8":
        raise InvalidRequest("flag precision: q8 is for weights of eight bits and fewer", param="flags.precision")
    if found.kv_precision == "bf16" and found.precision in ("f32", "q8"):
        raise InvalidRequest(
            f"flag kv_precision: bf16 does not go with activations in float32, which precision {found.precision} means",
            param="flags.kv_precision",
            hint="take u8, f16 or f32, or another precision",
        )
    guessing = [name for name in ("prompt_lookup", "draft") if getattr(found, name)]
    if guessing and (found.adapters or len(guessing) > 1):
        other = "adapters" if found.adapters else guessing[1]
        raise InvalidRequest(f"flag {guessing[0]} can't be had together with {other}", param=f"flags.{guessing[0]}")
    return found


def refusal(files: ModelFiles) -> str | None:
    """Why GenAI can't serve these files, or None."""
    if any(not Path(path).is_file() for path in files.weights):
        return "weight files are missing"
    if files.projector is not None:
        return "it has no projectors: it serves vision models in OpenVINO IR, not as GGUF"
    return _gguf_refusal(files) if files.format == "gguf" else _ir_refusal(files)


def _gguf_refusal(files: ModelFiles) -> str | None:
    facts = files.facts
    if facts.architecture not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        return f"it reads GGUF of the architectures {known}, not of {facts.architecture}"
    if len(files.weights) > 1:
        return "it reads GGUF in one file, not in shards"
    if facts.tokenizer not in TOKENIZERS:
        known = ", ".join(sorted(TOKENIZERS))
        return f"it would tokenise otherwise than this model was trained: it knows {known}, not {facts.tokenizer}"
    if "complete" not in facts.capabilities:
        return "this model does not generate text"
    try:
        types = {tensor.dtype for tensor, _ in matrices(Path(files.weights[0])).values()}
    except DockyardError as error:
        return error.message
    if unknown := types - TYPES:
        return f"it reads weights of the types {', '.join(sorted(TYPES))}, not {', '.join(sorted(unknown))}"
    return None


def _ir_refusal(files: ModelFiles) -> str | None:
    names = {Path(path).name for path in files.weights}
    if "openvino_model.xml" not in names and "openvino_language_model.xml" not in names:
        return "there is no openvino_model.xml: this IR is not a language model"
    folder = Path(files.weights[0]).parent
    parts = ("openvino_tokenizer.xml", "openvino_detokenizer.xml", *(PARTS if vision(files) else ()))
    missing = [name for name in parts if not (folder / name).is_file()]
    if missing:
        return f"{' and '.join(missing)} must lie beside the model"
    if vision(files) and (files.adapters or files.offers):
        return "it can't put adapters to a model that sees"
    return None


def vision(files: ModelFiles) -> bool:
    """Whether this is a vision model in IR: a language model that takes embeddings, with what makes them."""
    return any(Path(path).name == LANGUAGE for path in files.weights)


def shape(files: ModelFiles, options: LoadOptions, settings: Settings, hardware: Hardware, flags: Flags) -> Shape:
    """What was asked for holds; what was left open fits the memory that is available."""
    facts = files.facts
    token = kv_bytes(facts, flags)
    weights = 2 * _weight_bytes(facts, flags)  # mapped from the file, and once more in the layout of the kernels
    free = max(0, min(hardware.memory_available, settings.memory_budget or hardware.memory_total) - weights - PROCESS)
    trained = facts.context or DEFAULT_CONTEXT
    asked = options.context or settings.context
    if asked and facts.context is not None and asked > facts.context:
        raise InvalidRequest(
            f"{files.reference} was trained on {facts.context} tokens; a context of {asked} is not possible",
            param="context",
        )
    context = asked or min(files.context or DEFAULT_CONTEXT, trained)
    affordable = int(free * POOL_SHARE / token)
    if not asked and context > affordable:
        context = min(context, max(LEAST_CONTEXT, int(free * 2 * POOL_SHARE / token)))
    parallel = options.parallel or settings.parallel
    pool = max(context, min(context * (parallel or MAX_PARALLEL), POOL_TOKENS, affordable))
    if flags.kv_tokens is not None:
        pool = flags.kv_tokens
        if pool < context:
            raise InvalidRequest(f"flag kv_tokens: {pool} is less than the context of {context}", param="flags")
    blocks = -(-pool // BLOCK) + 1
    parallel = parallel or max(1, min(MAX_PARALLEL, pool // TOKENS_PER_SLOT))
    step = flags.step_tokens or _step_tokens(facts)
    memory = Memory(weights=weights, kv_cache=int(blocks * BLOCK * token), workspace=_workspace(facts, step, parallel))
    return Shape(context=context, parallel=parallel, pool=blocks, step=max(step, parallel), memory=memory)


def draft(files: ModelFiles, flags: Flags, settings: Settings, main: Shape) -> tuple[ModelFiles, Memory]:
    """The stored model that ``flags.draft`` names, and what it takes beside the other. Raises InvalidRequest."""
    from dockyard.artifact.materialize import model_files
    from dockyard.artifact.store import Store

    small = model_files(Store(settings.store_path), flags.draft or "")
    if small.facts.vocabulary != files.facts.vocabulary:
        raise InvalidRequest(
            f"flag draft: {flags.draft} does not share its vocabulary with {files.reference}", param="flags.draft"
        )
    if small.format not in ("gguf", "openvino") or (why := refusal(small)) is not None:
        why = f"it is {small.format}" if small.format not in ("gguf", "openvino") else why
        raise InvalidRequest(f"flag draft: OpenVINO can't serve {flags.draft}: {why}", param="flags.draft")
    cache = int(main.pool * BLOCK * kv_bytes(small.facts, flags))
    return small, Memory(weights=2 * _weight_bytes(small.facts, flags), kv_cache=cache)


def kv_bytes(facts: ModelFacts, flags: Flags) -> float:
    """Bytes that one token takes: 8-bit keys share scale and zero a channel and block, values have them a token."""
    heads = facts.kv_heads or facts.heads
    size = facts.head_size or (facts.embedding // facts.heads if facts.embedding and facts.heads else None)
    width = {"u8": 1, "f16": 2, "bf16": 2, "f32": 4}[flags.kv_precision]
    if not (facts.layers and heads and size):
        return FALLBACK_KV * width
    scales = size * 8 / BLOCK + 8 if width == 1 else 0
    return facts.layers * heads * (2 * size * width + scales)


def _weight_bytes(facts: ModelFacts, flags: Flags) -> int:
    if flags.weights == "file" or facts.parameters is None:
        return facts.weight_bytes
    embedding = (facts.vocabulary or 0) * (facts.embedding or 0)  # stays as it is beside an output layer that shares it
    return int(facts.parameters * (2.0 if flags.weights == "half" else 1 + 2 / min(GROUPS))) + embedding


def _step_tokens(facts: ModelFacts) -> int:
    weights = facts.parameters or STEP_PARAMETERS
    fitting = int(STEP_TOKENS * STEP_PARAMETERS / max(weights, 1))
    return max(BLOCK, min(STEP_TOKENS, fitting // BLOCK * BLOCK))


def _workspace(facts: ModelFacts, step: int, parallel: int) -> int:
    width = 2 * (facts.feed_forward or 4 * (facts.embedding or 4096)) + 4 * (facts.embedding or 4096)
    logits = (facts.vocabulary or 128_000) * 4 * max(parallel, 1) * 2
    return PROCESS + step * width * 4 + logits
