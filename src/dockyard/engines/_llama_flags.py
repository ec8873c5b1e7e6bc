"""The llama.cpp settings that a user may reach, in llama-server's own names: none touches files or the network."""

from __future__ import annotations

import msgspec

from dockyard.errors import InvalidRequest
from dockyard.types import Json

BYTES_PER_VALUE = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32,
                   "q4_1": 20 / 32, "q4_0": 18 / 32, "iq4_nl": 18 / 32}  # fmt: skip
"""Of the KV cache's types."""

CHOICES: dict[str, tuple[str, ...]] = {
    "cache_type_k": tuple(BYTES_PER_VALUE),
    "cache_type_v": tuple(BYTES_PER_VALUE),
    "flash_attn": ("auto", "on", "off"),
    "load_mode": ("auto", "none", "mmap", "mlock", "mmap+mlock", "dio"),
    "rope_scaling": ("none", "linear", "yarn"),
    "pooling": ("mean", "cls", "last"),
    "numa": ("distribute", "isolate", "numactl"),
    "split_mode": ("none", "layer", "row", "tensor"),
    "spec_type": (
        "none", "draft-simple", "ngram-simple", "ngram-map-k", "ngram-map-k4v", "ngram-mod", "ngram-cache",
    ),
}  # fmt: skip
"""What a flag of words may say."""

NATIVE_ONLY = ("gpu_layers", "n_cpu_moe", "main_gpu", "split_mode", "tensor_split", "kv_offload")
"""Flags about accelerators: the wheel's llama.cpp computes on the CPU alone."""


class Flags(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The allow-list of ``LoadOptions.flags``. None leaves a setting to llama.cpp.

    ``kv_tokens`` is the size of the pool, ``prompt_cache`` bytes of RAM for conversations whose turn is
    over (None: as many as the pool's where llama.cpp restores them rightly, else none; 0: they stay in the pool),
    ``native`` picks the driver; ``draft`` names a stored model that guesses ahead. ``spec_ngram_*`` count for each
    n-gram kind of ``spec_type``. The rest is named as by llama-server.
    """

    cache_type_k: str = "f16"
    cache_type_v: str = "f16"
    kv_tokens: int | None = None
    prompt_cache: int | None = None
    native: bool | None = None
    threads_batch: int | None = None
    batch_size: int | None = None
    ubatch_size: int | None = None
    flash_attn: str | None = None
    swa_full: bool | None = None
    load_mode: str | None = None
    numa: str | None = None
    warmup: bool = True
    cache_reuse: int | None = None
    slot_prompt_similarity: float | None = None
    pooling: str | None = None
    rope_freq_base: float = 0.0
    rope_freq_scale: float = 0.0
    rope_scaling: str | None = None
    yarn_orig_ctx: int | None = None
    yarn_ext_factor: float | None = None
    yarn_attn_factor: float | None = None
    yarn_beta_slow: float | None = None
    yarn_beta_fast: float | None = None
    image_min_tokens: int | None = None
    image_max_tokens: int | None = None
    spec_type: str | None = None
    draft: str | None = None
    spec_draft_n_max: int | None = None
    spec_draft_n_min: int | None = None
    spec_draft_p_min: float | None = None
    spec_ngram_size_n: int | None = None
    spec_ngram_size_m: int | None = None
    spec_ngram_min_hits: int | None = None
    gpu_layers: int | None = None
    n_cpu_moe: int | None = None
    main_gpu: int | None = None
    split_mode: str | None = None
    tensor_split: str | None = None
    kv_offload: bool | None = None


def read_flags(flags: dict[str, Json]) -> Flags:
    """Raises InvalidRequest naming the flag that is unknown, of the wrong type or out of its choices."""
    try:
        found = msgspec.convert(flags, Flags)
    except msgspec.ValidationError as error:
        names = ", ".join(Flags.__struct_fields__)
        raise InvalidRequest(f"llamacpp flags: {error}", param="flags", hint=f"flags: {names}") from error
    for name, known in CHOICES.items():
        value = getattr(found, name)
        if value is not None and value not in known:
            what = name.removesuffix("_k").removesuffix("_v").replace("_", " ")
            raise InvalidRequest(
                f"flag {name}: llama.cpp has no {what} {value!r}", param=f"flags.{name}", hint=", ".join(known)
            )
    for name in ("batch_size", "ubatch_size", "threads_batch", "kv_tokens"):
        value = getattr(found, name)
        if value is not None and value < 1:
            raise InvalidRequest(f"flag {name}: {value} is not above 0", param=f"flags.{name}")
    if found.spec_ngram_min_hits is not None and found.spec_type == "ngram-mod":
        raise InvalidRequest("flag spec_ngram_min_hits: ngram-mod has none", param="flags.spec_ngram_min_hits")
    for name in ("spec_ngram_size_n", "spec_ngram_size_m", "spec_ngram_min_hits"):
        if getattr(found, name) is not None and not (found.spec_type or "").startswith(("ngram-s", "ngram-m")):
            raise InvalidRequest(f"flag {name}: only for an n-gram spec_type", param=f"flags.{name}")
    if found.spec_type == "draft-simple" and found.draft is None:
        raise InvalidRequest("flag spec_type: draft-simple wants a draft model", param="flags.spec_type")
    if found.tensor_split is not None and set(found.tensor_split) - set("0123456789.,"):
        raise InvalidRequest("flag tensor_split: numbers between commas, such as 3,1", param="flags.tensor_split")
    return found
