"""How much of a machine a GGUF model takes under llama.cpp, and how many requests share it.

The KV cache is one pool that all slots share: a request may span the whole context, but the pool is not the product
of both, for that would mostly be memory that nobody uses. Where the pool runs full the engine says so, loudly.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from dockyard.engines._llama_flags import BYTES_PER_VALUE, Flags
from dockyard.errors import InvalidRequest, UnsupportedFormat
from dockyard.hardware import Hardware
from dockyard.settings import Settings
from dockyard.types import LoadOptions, Memory, ModelFacts, ModelFiles

MAX_PARALLEL = 16
TOKENS_PER_SLOT = 512
"""Pool tokens that justify one more slot; chats rarely hold more at a time."""

POOL_TOKENS = 8192
"""Pool of a model that has memory to spare, as large as llama-server's own: each page of it is touched at load."""

POOL_SHARE = 0.25
"""Share of the memory left that the pool, and then what is kept of conversations beside it, takes unasked."""

SPIN = {"GOMP_SPINCOUNT": "1000"}
"""How long llama.cpp's OpenMP threads spin for each other before they sleep; set unless the operator did.

OpenMP's own choice is a few milliseconds. Measured on two cores with SmolLM2-135M: with other work on the machine (the
gateway is such work) 1000 gives four to seven times the tokens/s, and on an idle machine nearly the same.
"""

DEFAULT_CONTEXT = 8192
ENCODER_CONTEXT = 2048
"""Longest text that a model reads to embed or rank it, where nobody says: the working memory grows with it."""

CACHELESS = frozenset(
    {
        "bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "jina-bert-v3", "neo-bert", "modern-bert", "eurobert",
        "t5encoder",
    }
)  # fmt: skip
"""Architectures that read a text at once, both ways, and keep no KV cache."""

WHOLE = frozenset(
    {
        "baichuan", "chatglm", "command-r", "deepseek", "deepseek2", "exaone", "falcon", "glm4", "glm4moe",
        "gpt2", "gptneox", "granite", "granitemoe", "internlm2", "llama", "minicpm", "minicpm3", "mistral3", "olmo",
        "phi2", "phi3", "qwen", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "smollm3", "stablelm", "starcoder",
        "starcoder2",
    }
)  # fmt: skip
"""Architectures that keep all of a conversation as keys and values, so that a copy of these is all that there is.

Others (Mamba, RWKV, hybrids) hold a state beside; restoring it is where llama.cpp mixed conversations up
(https://github.com/ggml-org/llama.cpp/issues/27148).
"""

LEAST_CONTEXT = 2048
BATCH = 512
"""Prompt tokens of one scheduler step: others wait, and a cancellation too, no longer than this takes."""

PROCESS = 48 << 20
"""Resident bytes of the process with llama.cpp's library, before any model."""

FALLBACK_KV = 128 << 10
"""Bytes of KV cache a token where the headers do not say: a 7B model with grouped-query attention."""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What the arithmetic comes to; ``pool`` is in tokens, ``prompt_cache`` in bytes."""

    context: int
    parallel: int
    pool: int
    batch: int
    ubatch: int
    prompt_cache: int
    memory: Memory


def shape(files: ModelFiles, options: LoadOptions, settings: Settings, hardware: Hardware, flags: Flags) -> Shape:
    """What was asked for holds; what was left open fits the memory that is available."""
    facts = files.facts
    token = kv_bytes(facts, flags)
    weights = facts.weight_bytes
    free = max(0, min(hardware.memory_available, settings.memory_budget or hardware.memory_total) - weights - PROCESS)
    asked = options.context or settings.context
    if asked and facts.context is not None and asked > facts.context:
        raise InvalidRequest(
            f"{files.reference} was trained on {facts.context} tokens; a context of {asked} is not possible",
            param="context",
        )
    if options.mode != "generate":
        return _shape_of_encoder(files, asked or None, options.parallel or settings.parallel, token, flags)
    if facts.architecture in CACHELESS:
        raise UnsupportedFormat(
            f"{files.reference} is an encoder ({facts.architecture}): it writes no text",
            hint="ask it for embeddings, or for a rerank if it was taught that",
        )
    context = asked or min(files.context or DEFAULT_CONTEXT, facts.context or DEFAULT_CONTEXT)
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
    ubatch = flags.ubatch_size or min(BATCH, flags.batch_size or BATCH)
    batch = max(flags.batch_size or BATCH, ubatch)
    cache = _prompt_cache(files, flags, int(pool * token), free)
    memory = Memory(
        weights=weights, kv_cache=int(pool * token) + cache, workspace=_workspace(facts, pool, parallel, ubatch)
    )
    return Shape(
        context=context, parallel=parallel, pool=pool, batch=batch, ubatch=ubatch, prompt_cache=cache, memory=memory
    )


def _prompt_cache(files: ModelFiles, flags: Flags, pool: int, free: int) -> int:
    """Bytes of RAM for the keys and values of conversations whose turn is over; ``pool`` and ``free`` are bytes too.

    Left in the pool, they would be looked at with each token of all others: SmolLM2-135M takes 5.5 ms a token in a
    fresh pool, 6.7 ms beside eight short conversations. As large as the pool, so that none that fitted there is lost,
    where that leaves memory to spare.
    """
    if flags.prompt_cache is not None:
        return flags.prompt_cache
    plain = files.facts.architecture in WHOLE and not (files.offers or files.projector or flags.draft)
    return min(pool, max(0, int((free - pool) * POOL_SHARE))) >> 20 << 20 if plain else 0


def _shape_of_encoder(
    files: ModelFiles, context: int | None, parallel: int | None, token: float, flags: Flags
) -> Shape:
    """A text is read in one step, so the batch is as long as the longest; nothing of it stays for the next."""
    for name in ("kv_tokens", "batch_size", "ubatch_size", "prompt_cache"):
        if getattr(flags, name):
            raise InvalidRequest(f"flag {name}: only for a model that generates", param=f"flags.{name}")
    facts = files.facts
    context = context or min(files.context or ENCODER_CONTEXT, facts.context or ENCODER_CONTEXT, ENCODER_CONTEXT)
    parallel = parallel or max(1, min(MAX_PARALLEL, POOL_TOKENS // context))
    pool = -(-context * parallel // 256) * 256
    memory = Memory(
        weights=facts.weight_bytes, kv_cache=int(pool * token), workspace=_workspace(facts, pool, 0, context)
    )
    return Shape(
        context=context, parallel=parallel, pool=pool, batch=context, ubatch=context, prompt_cache=0, memory=memory
    )


def pooling(files: ModelFiles, options: LoadOptions, flags: Flags) -> str:
    """How the states of a text's tokens become one vector: as flags say, else the headers, else their mean.

    Empty: llama.cpp reads it in the headers. Raises UnsupportedFormat where the model was not made for the mode.
    """
    ranks = "rerank" in files.facts.capabilities
    if options.mode == "rerank":
        if not ranks:
            raise UnsupportedFormat(
                f"{files.reference} has no head that ranks: llama.cpp can't rerank with it",
                hint="use a reranker, such as bge-reranker",
            )
        return "rank"
    if flags.pooling is not None and options.mode == "generate":
        raise InvalidRequest("flag pooling: only for a model that embeds", param="flags.pooling")
    if options.mode == "generate":
        return ""
    if ranks and flags.pooling is None:
        raise UnsupportedFormat(
            f"{files.reference} is a reranker: it gives scores, not vectors", hint="ask for a rerank, or set pooling"
        )
    return flags.pooling or ("" if _stated(files) else "mean")


def caveat(files: ModelFiles, options: LoadOptions) -> str:
    """What is known to be other than it should: llama.cpp gives every token the first token type, and a reranker that
    was taught with two scores some texts the wrong way round."""
    if options.mode != "rerank" or _header(files, "tokenizer.ggml.model", "") != "bert":
        return ""
    if int(_header(files, "tokenizer.ggml.token_type_count", "1")) < 2:
        return ""
    return (
        "llama.cpp reads question and text as one kind of sentence, so this reranker's scores differ from its own and "
        "can change their order: its ONNX file on the engine `encoder` is exact"
    )


def _stated(files: ModelFiles) -> bool:
    return _header(files, f"{files.facts.architecture}.pooling_type", "0") != "0"


def _header(files: ModelFiles, key: str, default: str) -> str:
    from dockyard.artifact.formats.gguf import metadata

    return str(metadata(Path(files.weights[0])).get(key, default))


def draft(files: ModelFiles, name: str, settings: Settings, main: Shape) -> tuple[str, Memory]:
    """The file of a stored model that is to guess ahead, and what it takes beside. Raises InvalidRequest."""
    from dockyard.artifact.materialize import model_files
    from dockyard.artifact.store import Store

    small = model_files(Store.open(settings), name)
    if small.format != "gguf" or small.facts.vocabulary != files.facts.vocabulary:
        raise InvalidRequest(
            f"flag draft: {name} does not share its vocabulary with {files.reference}", param="flags.draft"
        )
    return small.weights[0], Memory(
        weights=small.facts.weight_bytes, kv_cache=int(main.pool * kv_bytes(small.facts, Flags()))
    )


def kv_bytes(facts: ModelFacts, flags: Flags) -> float:
    """Bytes that one token takes in the KV cache: keys and values of each layer and KV head; none in an encoder."""
    if facts.architecture in CACHELESS:
        return 0.0
    heads = facts.kv_heads or facts.heads
    size = facts.head_size or (facts.embedding // facts.heads if facts.embedding and facts.heads else None)
    if not (facts.layers and heads and size):
        return FALLBACK_KV
    values = facts.layers * heads * size
    return values * (BYTES_PER_VALUE[flags.cache_type_k] + BYTES_PER_VALUE[flags.cache_type_v])


def _workspace(facts: ModelFacts, pool: int, parallel: int, ubatch: int) -> int:
    """The compute buffer, fitted to what llama.cpp reports: mask, activations of one batch, logits of each slot."""
    mask = pool * ubatch * 2
    width = 2 * (facts.feed_forward or 4 * (facts.embedding or 4096)) + 4 * (facts.embedding or 4096)
    logits = (facts.vocabulary or 128_000) * 4 * parallel * 2
    return PROCESS + mask + ubatch * width * 4 + logits
