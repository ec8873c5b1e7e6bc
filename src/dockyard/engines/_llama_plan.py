"""How much of a machine a GGUF model takes under llama.cpp, and how many requests share it.

The KV cache is one pool that all slots share: a request may span the whole context, but the pool is not the product
of both, for that would mostly be memory that nobody uses. Where the pool runs full the engine says so, loudly.
"""

from __future__ import annotations

import msgspec

from dockyard.errors import InvalidRequest
from dockyard.hardware import Hardware
from dockyard.settings import Settings
from dockyard.types import Json, LoadOptions, Memory, ModelFacts, ModelFiles

MAX_PARALLEL = 16
TOKENS_PER_SLOT = 512
"""Pool tokens that justify one more slot; chats rarely hold more at a time."""

POOL_TOKENS = 8192
"""Pool of a model that has memory to spare, as large as llama-server's own: each page of it is touched at load."""

POOL_SHARE = 0.25
"""Share of the memory left beside the weights that the pool takes without being asked."""

SPIN = {"GOMP_SPINCOUNT": "1000"}
"""How long llama.cpp's OpenMP threads spin for each other before they sleep; set unless the operator did.

OpenMP's own choice is a few milliseconds. Measured on two cores with SmolLM2-135M: with other work on the machine (the
gateway is such work) 1000 gives four to seven times the tokens/s, and on an idle machine nearly the same.
"""

DEFAULT_CONTEXT = 8192
LEAST_CONTEXT = 2048
BATCH = 512
"""Prompt tokens of one scheduler step: others wait, and a cancellation too, no longer than this takes."""

PROCESS = 48 << 20
"""Resident bytes of the process with llama.cpp's library, before any model."""

FALLBACK_KV = 128 << 10
"""Bytes of KV cache a token where the headers do not say: a 7B model with grouped-query attention."""

BYTES_PER_VALUE = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32,
                   "q4_1": 20 / 32, "q4_0": 18 / 32, "iq4_nl": 18 / 32}  # fmt: skip


class Flags(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The llama.cpp settings that a user may reach: this is the allow-list of ``LoadOptions.flags``.

    ``kv_tokens`` is the size of the pool, ``prompt_cache`` bytes of RAM for prompts of other conversations,
    ``gpu_layers`` counts layers on an accelerator (native server only), ``native`` picks the driver.
    """

    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    kv_tokens: int | None = None
    prompt_cache: int = 0
    rope_freq_base: float = 0.0
    rope_freq_scale: float = 0.0
    gpu_layers: int | None = None
    native: bool | None = None


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What the arithmetic comes to; ``pool`` is in tokens."""

    context: int
    parallel: int
    pool: int
    memory: Memory


def read_flags(flags: dict[str, Json]) -> Flags:
    """Raises InvalidRequest naming the flag that is unknown or of the wrong type."""
    try:
        found = msgspec.convert(flags, Flags)
    except msgspec.ValidationError as error:
        names = ", ".join(Flags.__struct_fields__)
        raise InvalidRequest(f"llamacpp flags: {error}", param="flags", hint=f"flags: {names}") from error
    for name in ("cache_type_k", "cache_type_v"):
        if getattr(found, name) not in BYTES_PER_VALUE:
            known = ", ".join(BYTES_PER_VALUE)
            raise InvalidRequest(
                f"flag {name}: llama.cpp has no cache type {getattr(found, name)!r}", param=f"flags.{name}", hint=known
            )
    return found


def shape(files: ModelFiles, options: LoadOptions, settings: Settings, hardware: Hardware, flags: Flags) -> Shape:
    """What was asked for holds; what was left open fits the memory that is available."""
    facts = files.facts
    token = kv_bytes(facts, flags)
    weights = facts.weight_bytes
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
        whole = int(free * 2 * POOL_SHARE / token) // 256 * 256
        context = min(context, max(LEAST_CONTEXT, whole))
    parallel = options.parallel or settings.parallel
    pool = max(context, min(context * (parallel or MAX_PARALLEL), POOL_TOKENS, affordable))
    if flags.kv_tokens is not None:
        pool = flags.kv_tokens
        if pool < context:
            raise InvalidRequest(f"flag kv_tokens: {pool} is less than the context of {context}", param="flags")
    pool = -(-pool // 256) * 256
    parallel = parallel or max(1, min(MAX_PARALLEL, pool // TOKENS_PER_SLOT))
    memory = Memory(
        weights=weights, kv_cache=int(pool * token), workspace=_workspace(facts, pool, parallel) + flags.prompt_cache
    )
    return Shape(context=context, parallel=parallel, pool=pool, memory=memory)


def kv_bytes(facts: ModelFacts, flags: Flags) -> float:
    """Bytes that one token takes in the KV cache: keys and values of each layer and KV head."""
    heads = facts.kv_heads or facts.heads
    size = facts.head_size or (facts.embedding // facts.heads if facts.embedding and facts.heads else None)
    if not (facts.layers and heads and size):
        return FALLBACK_KV
    values = facts.layers * heads * size
    return values * (BYTES_PER_VALUE[flags.cache_type_k] + BYTES_PER_VALUE[flags.cache_type_v])


def _workspace(facts: ModelFacts, pool: int, parallel: int) -> int:
    """The compute buffer, fitted to what llama.cpp reports: mask, activations of one batch, logits of each slot."""
    mask = pool * BATCH * 2
    width = 2 * (facts.feed_forward or 4 * (facts.embedding or 4096)) + 4 * (facts.embedding or 4096)
    logits = (facts.vocabulary or 128_000) * 4 * max(parallel, 1) * 2
    return PROCESS + mask + BATCH * width * 4 + logits
