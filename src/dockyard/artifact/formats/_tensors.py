"""Tensors as headers describe them, and what they add up to."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable

import msgspec

from dockyard.errors import UnsupportedFormat

MAX_ELEMENTS = 1 << 50

_SCALES = re.compile(
    r"([._/](scales?|zero_points?|qzeros|g_idx|absmax|quant_map|nested_\w+|quant_state\S*|zp)$)|_scale$"
)
_PARTS = (
    ("norm", re.compile(r"(^|[._/])(\w*norm\w*|ln_\w+|ln\d*)([._/]|$)", re.IGNORECASE)),
    ("attention", re.compile(r"(^|[._/])(\w*attn\w*|\w*attention|attn_\w+|qkv\w*)([._/]|$)", re.IGNORECASE)),
    (
        "feed-forward",
        re.compile(
            r"(^|[._/])(mlp|ffn\w*|feed_forward|intermediate|fc[12]|w[123]|experts?|block_sparse_moe|(gate|up|down)_proj"
            r"|layers?\.\d+\.output)([._/]|$)",
            re.IGNORECASE,
        ),
    ),
    ("output", re.compile(r"(^|[._/])(lm_head|embed_out|output|classifier|score|cls|pooler|qa_outputs)([._/]|$)")),
    (
        "embedding",
        re.compile(r"(^|[._/])(\w*embd|embed\w*|\w*embeddings?|wte|wpe|token_types|shared)([._/]|$)", re.IGNORECASE),
    ),
)


class Tensor(msgspec.Struct, frozen=True):
    """One tensor of a header. ``size`` is its bytes on disk; ``elements`` counts weights even where they are packed."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    elements: int
    size: int


class Totals(msgspec.Struct, frozen=True):
    """Sums over tensors: all, and by part of the network. ``dtype`` is that of the most weights."""

    parameters: int
    size: int
    bytes_by_part: dict[str, int]
    weights_by_part: dict[str, int]
    dtype: str | None


def part_of(name: str) -> str:
    """Which part of a transformer a tensor belongs to, by the naming habits of GGUF and of transformers."""
    for part, pattern in _PARTS:
        if pattern.search(name):
            return part
    return "other"


def is_scale(name: str) -> bool:
    """Whether a tensor only helps to decode quantised weights: its bytes count, its elements are not weights."""
    return bool(_SCALES.search(name))


def element_count(shape: Iterable[int], where: str) -> int:
    """The product of the dimensions; a sum no file could hold is refused."""
    count = math.prod(shape)
    if not 0 <= count <= MAX_ELEMENTS:
        raise UnsupportedFormat(f"{where}: a tensor of {count} elements")
    return count


def add_up(tensors: Iterable[Tensor]) -> Totals:
    sizes: Counter[str] = Counter()
    weights: Counter[str] = Counter()
    dtypes: Counter[str] = Counter()
    for tensor in tensors:
        part = part_of(tensor.name)
        sizes[part] += tensor.size
        if not is_scale(tensor.name):
            weights[part] += tensor.elements
            dtypes[tensor.dtype] += tensor.elements
    top = max(dtypes.items(), key=lambda item: (item[1], item[0]), default=(None, 0))[0]
    order = [part for part in ("embedding", "attention", "feed-forward", "norm", "output", "other") if sizes[part]]
    return Totals(
        sum(weights.values()), sum(sizes.values()), {p: sizes[p] for p in order}, {p: weights[p] for p in order}, top
    )
