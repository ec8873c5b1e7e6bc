"""``config.json`` as transformers, diffusers and their exporters write it: the dimensions that tensors don't tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from dockyard.artifact.formats import _beside
from dockyard.artifact.formats._shape import attention_kind, integer, kv_elements, real, string
from dockyard.artifact.formats._tensors import Totals
from dockyard.errors import UnsupportedFormat
from dockyard.types import Format, Json, ModelFacts

_ALIBI = frozenset({"bloom", "mpt"})
_LEARNED = frozenset(
    {"gpt2", "opt", "bert", "roberta", "xlm-roberta", "distilbert", "electra", "gpt_bigcode", "whisper"}
)
_TOKENIZERS = {
    "BPE": "BPE",
    "WordPiece": "WordPiece",
    "Unigram": "Unigram",
    "LlamaTokenizer": "SentencePiece",
    "LlamaTokenizerFast": "SentencePiece",
    "T5Tokenizer": "Unigram",
    "T5TokenizerFast": "Unigram",
    "BertTokenizer": "WordPiece",
    "BertTokenizerFast": "WordPiece",
    "DistilBertTokenizer": "WordPiece",
    "GPT2Tokenizer": "BPE",
    "GPT2TokenizerFast": "BPE",
    "Qwen2Tokenizer": "BPE",
}
_CAPABILITIES = (
    ("ForCausalLM", ("complete",)),
    ("LMHeadModel", ("complete",)),
    ("ForConditionalGeneration", ("complete",)),
    ("ForSequenceClassification", ("classify",)),
    ("ForTokenClassification", ("classify",)),
    ("ForImageClassification", ("classify",)),
    ("ForMaskedLM", ("fill",)),
    ("Model", ("embed",)),
)


def context_length(config: Mapping[str, Json]) -> int | None:
    """The trained window, under whichever of its names ``config.json`` has it."""
    names = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "max_seq_len", "seq_length")
    return next((found for name in names if (found := integer(config.get(name)))), None)


def facts(kind: Format, totals: Totals, weights: Sequence[Path], files: Sequence[Path]) -> ModelFacts:
    """Everything that the files beside the weights say, joined with what the tensors add up to."""
    config = _beside.read_object(_beside.find("config.json", weights, files))
    inner = config.get("text_config")
    language = {**config, **inner} if isinstance(inner, dict) else config
    pipeline = string(_beside.read_object(_beside.find("model_index.json", weights, files)).get("_class_name"))
    architectures = config.get("architectures")
    classes = [item for item in architectures if isinstance(item, str)] if isinstance(architectures, list) else []
    template = _beside.chat_template(weights, files)
    architecture = string(config.get("model_type")) or pipeline or (classes[0] if classes else None)
    layers = _first(language, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
    width = _first(language, "hidden_size", "n_embd", "d_model", "dim")
    heads = _first(language, "num_attention_heads", "n_head", "n_heads")
    kv_heads = _first(language, "num_key_value_heads", "n_head_kv", "num_kv_heads")
    if kv_heads is None:
        kv_heads = 1 if language.get("multi_query") is True else heads
    head_size = _first(language, "head_dim") or (width // heads if width and heads else None)
    return ModelFacts(
        format=kind,
        architecture=architecture,
        name=string(config.get("_name_or_path")),
        parameters=totals.parameters,
        quantization=quantization(config) or _precision(totals.dtype),
        context=context_length(language),
        layers=layers,
        embedding=width,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head_size,
        attention=attention_kind(heads, kv_heads),
        positional=_positional(language, heads),
        rope_base=_rope_base(language),
        feed_forward=_feed_forward(language, width),
        experts=_first(language, "num_local_experts", "num_experts", "n_routed_experts"),
        vocabulary=integer(language.get("vocab_size")),
        tokenizer=_tokenizer(weights, files),
        chat_template=template,
        licence=_beside.licence(weights, files),
        weight_bytes=totals.size,
        tensors=totals.bytes_by_part,
        weights=totals.weights_by_part,
        kv_elements=kv_elements(layers, kv_heads, head_size),
        capabilities=_capabilities(config, classes, pipeline, template, weights, files),
    )


def quantization(config: Mapping[str, Json]) -> str | None:
    """The method and width of ``quantization_config``, or None for plain weights."""
    found = config.get("quantization_config")
    if not isinstance(found, dict):
        return None
    method = string(found.get("quant_method")) or "quantised"
    bits = integer(found.get("bits") or found.get("w_bit"))
    if found.get("load_in_4bit"):
        return f"{method} {string(found.get('bnb_4bit_quant_type')) or 'int4'}".upper()
    if found.get("load_in_8bit"):
        bits = 8
    return f"{method} INT{bits}".upper() if bits else method.upper()


def packed_bits(config: Mapping[str, Json]) -> int | None:
    """Bits of one weight where several share an element (GPTQ, AWQ: in int32; bitsandbytes NF4: in uint8)."""
    found = config.get("quantization_config")
    if not isinstance(found, dict):
        return None
    if found.get("load_in_4bit"):
        return 4
    bits = integer(found.get("bits") or found.get("w_bit"))
    return bits if bits in (2, 3, 4, 8) else None


def _first(config: Mapping[str, Json], *names: str) -> int | None:
    return next((found for name in names if (found := integer(config.get(name))) is not None), None)


def _precision(dtype: str | None) -> str | None:
    return {"F32": "FP32", "F16": "FP16", "F64": "FP64", "I8": "INT8", "U8": "INT8"}.get(dtype or "", dtype)


def _positional(config: Mapping[str, Json], heads: int | None) -> str | None:
    stated = string(config.get("position_embedding_type"))
    model = string(config.get("model_type"))
    scaling = config.get("rope_scaling")
    if isinstance(scaling, dict) and "mrope_section" in scaling:
        return "m-rope"
    if any(name in config for name in ("rope_theta", "rope_parameters", "rotary_dim", "rotary_pct", "rope_scaling")):
        return "rope"
    if model in _ALIBI or config.get("alibi") is True or stated == "alibi":
        return "alibi"
    if stated == "absolute" or model in _LEARNED:
        return "learned"
    if stated is not None and stated.startswith("relative"):
        return "relative"
    if model == "t5" or "relative_attention_num_buckets" in config:
        return "relative"
    return "rope" if heads and "num_key_value_heads" in config else None


def _rope_base(config: Mapping[str, Json]) -> float | None:
    nested = config.get("rope_parameters")
    inside = nested.get("rope_theta") if isinstance(nested, dict) else None
    return real(config.get("rope_theta")) or real(inside)


def _feed_forward(config: Mapping[str, Json], width: int | None) -> int | None:
    stated = _first(config, "intermediate_size", "n_inner", "ffn_dim", "d_ff", "hidden_dim", "ffn_hidden_size")
    if stated is None and width and config.get("model_type") in ("gpt2", "bloom", "falcon"):
        return 4 * width  # these leave it out where it has its usual value
    return stated


class _TokenizerModel(msgspec.Struct):
    type: str | None = None


class _TokenizerFile(msgspec.Struct):
    """The one field that is read of ``tokenizer.json``, which holds the whole vocabulary."""

    model: _TokenizerModel | None = None


def _tokenizer(weights: Sequence[Path], files: Sequence[Path]) -> str | None:
    path = _beside.find("tokenizer.json", weights, files)
    if path is not None and path.stat().st_size <= _beside.MAX_JSON:
        try:
            model = msgspec.json.decode(path.read_bytes(), type=_TokenizerFile).model
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise UnsupportedFormat(f"{path}: not a tokenizer: {error}", param=str(path)) from error
        if model is not None and model.type:
            return _TOKENIZERS.get(model.type, model.type)
    settings = _beside.read_object(_beside.find("tokenizer_config.json", weights, files))
    stated = string(settings.get("tokenizer_class"))
    return _TOKENIZERS.get(stated, stated) if stated else None


def _capabilities(
    config: Mapping[str, Json],
    classes: Sequence[str],
    pipeline: str | None,
    template: str | None,
    weights: Sequence[Path],
    files: Sequence[Path],
) -> tuple[str, ...]:
    if pipeline is not None:
        return ("image",)
    if _beside.find("modules.json", weights, files) is not None:
        return ("embed",)
    if string(config.get("model_type")) == "whisper" or any("SpeechSeq2Seq" in name for name in classes):
        return ("transcribe",)
    found = list(next((kinds for end, kinds in _CAPABILITIES for name in classes[:1] if name.endswith(end)), ()))
    labels = config.get("id2label")
    if found == ["classify"] and (config.get("num_labels") == 1 or (isinstance(labels, dict) and len(labels) == 1)):
        found = ["rerank"]
    if template and "complete" in found:
        found.insert(0, "chat")
        found += ["tools"] * ("tools" in template)
    return (*found, *(["vision"] * ("vision_config" in config)))
