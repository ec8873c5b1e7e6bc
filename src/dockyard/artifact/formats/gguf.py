"""GGUF, llama.cpp's format: models in one file or in shards, projectors ("mmproj") and LoRA adapters."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from dockyard.artifact.formats import _beside
from dockyard.artifact.formats._gguf_header import MAGIC, Header, read_header
from dockyard.artifact.formats._gguf_types import FILE_TYPES, GUESSED
from dockyard.artifact.formats._shape import attention_kind, integer, real, string
from dockyard.artifact.formats._tensors import Tensor, add_up
from dockyard.artifact.media import role_of_path
from dockyard.errors import ArtifactError, UnsupportedFormat
from dockyard.types import Format, Json, ModelFacts

SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")

_NO_ROPE = {
    "gpt2": "learned",
    "starcoder": "learned",
    "bert": "learned",
    "bloom": "alibi",
    "mpt": "alibi",
    "refact": "alibi",
    "jais": "alibi",
    "jina-bert-v2": "alibi",
    "t5": "relative",
    "t5encoder": "relative",
    "mamba": "none",
    "mamba2": "none",
    "jamba": "none",
    "rwkv6": "none",
    "rwkv7": "none",
}
_TOKENIZERS = {"gpt2": "BPE", "llama": "SentencePiece", "bert": "WordPiece", "t5": "Unigram", "rwkv": "RWKV"}
_POOLING_RANK = 4
MAX_LISTED = 50


class Gguf:
    """Reader of GGUF headers."""

    name: Format = "gguf"

    def weights(self, files: Sequence[Path]) -> list[Path]:
        """The model's file or shards, not what goes with it; a projector or an adapter only where it is alone."""
        found = [path for path in files if _is_gguf(path)]
        return sorted(path for path in found if role_of_path(path.name) not in ("projector", "adapter")) or found

    def read(self, weights: Sequence[Path], files: Sequence[Path]) -> ModelFacts:
        headers = [read_header(path) for path in complete(weights)]
        if len(headers) > 1 and not all("split.count" in header.values for header in headers):
            raise ArtifactError(
                f"{', '.join(header.path.name for header in headers)}: several models, not the shards of one",
                hint="name one GGUF file, or the shards of one model",
            )
        facts = _facts(headers)
        changes: dict[str, Json] = {}
        if facts.chat_template is None and facts.adapter_rank is None and facts.architecture != "clip":
            changes["chat_template"] = _beside.chat_template(weights, files)
        if facts.licence is None:
            changes["licence"] = _beside.licence(weights, files)
        capabilities = list(facts.capabilities)
        if changes.get("chat_template") and "complete" in capabilities and "chat" not in capabilities:
            capabilities.insert(0, "chat")
        if (
            any(_is_gguf(path) and role_of_path(path.name) == "projector" for path in files)
            and "vision" not in capabilities
        ):
            capabilities.append("vision")
        return _replace(facts, capabilities=tuple(capabilities), **changes)


PLUGIN = Gguf()


def metadata(path: Path) -> dict[str, str]:
    """The header's pairs as text, without long arrays: what Docker's model config lists."""
    found = {}
    for key, value in sorted(read_header(path).values.items()):
        items = value if isinstance(value, list) else [value]
        if len(items) <= MAX_LISTED and None not in items:
            found[key] = ", ".join(str(item).lower() if isinstance(item, bool) else str(item) for item in items)
    return found


def matrices(path: Path) -> dict[str, tuple[Tensor, int]]:
    """A file's matrices (vectors, which stay F32, are left out), each with the byte at which its data begins."""
    header = read_header(path)
    return {each.name: (each, header.offsets[each.name]) for each in header.tensors if len(each.shape) > 1}


def complete(weights: Sequence[Path]) -> list[Path]:
    """All shards, in order, of a model of which at least one is given. Raises ArtifactError for a missing one."""
    match = SHARD.fullmatch(weights[0].name)
    if match is None:
        return list(weights)
    given = {path.name: path for path in weights}
    found = []
    for number in range(1, int(match["count"]) + 1):
        name = f"{match['stem']}-{number:05}-of-{match['count']}.gguf"
        found.append(_beside.require(given.pop(name, weights[0].parent / name), weights[0]))
    return found + list(given.values())


def _is_gguf(path: Path) -> bool:
    if path.suffix.lower() == ".gguf":
        return True
    if path.suffix.lower() not in ("", ".bin", ".model") or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def _replace(facts: ModelFacts, **changes: Json) -> ModelFacts:
    return ModelFacts(**{name: getattr(facts, name) for name in facts.__struct_fields__} | changes)


def _facts(headers: Sequence[Header]) -> ModelFacts:
    """Metadata of the first shard, tensors of all."""
    first = min(headers, key=lambda header: integer(header.values.get("split.no")) or 0)
    values = first.values
    architecture = string(values.get("general.architecture"))
    if architecture is None:
        raise UnsupportedFormat(f"{first.path}: no general.architecture: not a model", param=str(first.path))
    _check_shards(first, headers)
    tensors = [tensor for header in headers for tensor in header.tensors]
    totals = add_up(tensors)
    names = {tensor.name for tensor in tensors}
    own = {key.removeprefix(f"{architecture}."): value for key, value in values.items()}
    layers, width = integer(own.get("block_count")), integer(own.get("embedding_length"))
    heads, kv_heads = _most(own.get("attention.head_count")), _most(own.get("attention.head_count_kv"))
    kv_heads = heads if kv_heads is None else kv_heads
    head_size = integer(own.get("attention.key_length")) or (width // heads if width and heads else None)
    template = string(values.get("tokenizer.chat_template"))
    adapter = values.get("general.type") == "adapter"
    rows = [t.shape[1] for t in tensors if t.name == "token_embd.weight" and len(t.shape) == 2]
    return ModelFacts(
        format="gguf",
        architecture=architecture,
        name=string(values.get("general.name")),
        parameters=totals.parameters,
        quantization=_quantization(values, totals.dtype),
        context=integer(own.get("context_length")),
        layers=layers,
        embedding=width,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        attention=attention_kind(heads, kv_heads),
        positional=_positional(architecture, own, names, heads),
        rope_base=real(own.get("rope.freq_base")),
        feed_forward=_most(own.get("feed_forward_length")),
        experts=integer(own.get("expert_count")) or None,
        vocabulary=first.lengths.get("tokenizer.ggml.tokens") or (rows[0] if rows else integer(own.get("vocab_size"))),
        tokenizer=_tokenizer(values),
        chat_template=template,
        licence=_beside.spdx(text) if (text := string(values.get("general.license"))) else None,
        weight_bytes=totals.size,
        tensors=totals.bytes_by_part,
        weights=totals.weights_by_part,
        kv_elements=_kv_elements(own, layers, head_size),
        capabilities=() if adapter else _capabilities(architecture, own, values, template),
        base=string(values.get("general.base_model.0.name")),
        adapter_rank=max((t.shape[-1] for t in tensors if t.name.endswith(".lora_a") and t.shape), default=None),
        adapter_alpha=real(values.get("adapter.lora.alpha")),
        adapter_targets=tuple(sorted({t.name.split(".")[-3] for t in tensors if t.name.endswith(".weight.lora_a")})),
    )


def _check_shards(first: Header, headers: Sequence[Header]) -> None:
    count = integer(first.values.get("split.count")) or 1
    if count > 1 and count != len(headers):
        raise ArtifactError(
            f"{first.path}: shard 1 of {count}, and {len(headers)} are here", hint="put all shards in one folder"
        )
    numbers = sorted(integer(header.values.get("split.no")) or 0 for header in headers)
    if numbers != list(range(len(headers))):
        raise ArtifactError(f"{first.path}: shards are numbered {numbers}, expected 0 to {len(headers) - 1}")
    announced = integer(first.values.get("split.tensors.count"))
    present = sum(len(header.tensors) for header in headers)
    if count > 1 and announced is not None and announced != present:
        raise ArtifactError(f"{first.path}: announces {announced} tensors, the shards hold {present}")


def _most(value: Json) -> int | None:
    """A count, or the largest where a header states one a layer."""
    if isinstance(value, list):
        return max((found for item in value if (found := integer(item)) is not None), default=None)
    return integer(value)


def _quantization(values: Mapping[str, Json], dtype: str | None) -> str | None:
    stated = integer(values.get("general.file_type"))
    return FILE_TYPES.get(stated & ~GUESSED, dtype) if stated is not None else dtype


def _positional(architecture: str, own: Mapping[str, Json], names: set[str], heads: int | None) -> str | None:
    if real(own.get("attention.max_alibi_bias")):
        return "alibi"
    if "position_embd.weight" in names and "rope.freq_base" not in own:
        return "learned"
    if "rope.dimension_sections" in own:
        return "m-rope"
    if "rope.dimension_count" in own or "rope.freq_base" in own:
        return "rope"
    return _NO_ROPE.get(architecture, "rope" if heads and architecture != "clip" else None)


def _kv_elements(own: Mapping[str, Json], layers: int | None, head_size: int | None) -> int | None:
    """Sum over layers of KV heads times the width of a key and a value; heads may be stated a layer."""
    if layers is None or head_size is None or layers > 1 << 16:
        return None
    stated = own.get("attention.head_count_kv", own.get("attention.head_count"))
    heads = [integer(item) or 0 for item in stated] if isinstance(stated, list) else [integer(stated) or 0] * layers
    value_size = integer(own.get("attention.value_length")) or head_size
    return sum(heads[:layers]) * (head_size + value_size)


def _tokenizer(values: Mapping[str, Json]) -> str | None:
    model = string(values.get("tokenizer.ggml.model"))
    if model is None:
        return None
    kind = _TOKENIZERS.get(model, model)
    variant = string(values.get("tokenizer.ggml.pre"))
    return f"{kind} ({variant})" if variant and variant != "default" else kind


def _capabilities(
    architecture: str, own: Mapping[str, Json], values: Mapping[str, Json], template: str | None
) -> tuple[str, ...]:
    pooling = integer(own.get("pooling_type"))
    if pooling == _POOLING_RANK:
        return ("rerank",)
    if pooling or "bert" in architecture or own.get("attention.causal") is False or architecture == "t5encoder":
        return ("embed",)
    if architecture == "clip":
        return ("vision",)
    found = ["chat"] * bool(template) + ["complete"]
    if template and "tools" in template:
        found.append("tools")
    if "tokenizer.ggml.fim_pre_token_id" in values or "tokenizer.ggml.prefix_token_id" in values:
        found.append("infill")
    return tuple(found)
