"""A transformers model as a GGUF file, in any of llama.cpp's common precisions.

Metadata, tensor names and the order of query and key rows follow llama.cpp's convert_hf_to_gguf.py; which tensors of
Q4_K_M are of six bits follows its llama_tensor_get_type (src/llama-quant.cpp), as do the types that stand in where a
row is no multiple of 256.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dockyard.errors import UnsupportedFormat
from dockyard.ops._checkpoint import FAMILIES, Checkpoint, gguf_names, rotated_heads, to_rotated
from dockyard.ops._gguf_read import read_gguf
from dockyard.ops._gguf_tokenizer import PATTERNS
from dockyard.ops._libraries import library

FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q4_K_M": 15, "Q6_K": 18}
"""The precisions that are written, and what ``general.file_type`` says of them."""

BLOCK = {"Q4_K": 256, "Q6_K": 256, "Q5_0": 32, "Q8_0": 32, "Q4_0": 32, "Q4_1": 32}
STAND_IN = {"Q4_K": "Q5_0", "Q6_K": "Q8_0"}
CONTROL, USER_DEFINED, NORMAL, UNUSED = 3, 4, 1, 5

OnTensor = Callable[[int, int], None]


def write_gguf(
    checkpoint: Checkpoint, target: Path, precision: str, *, seen: OnTensor | None = None, copy_tokenizer: bool = True
) -> None:
    """Write model and tokenizer to ``target``. ``seen`` hears the tensors done and their number.

    A tokenizer that came out of a GGUF file goes in as it was there, unless ``copy_tokenizer`` is False. Raises
    UnsupportedFormat for families and tokenizers that have no counterpart.
    """
    import gguf

    library("libgguf")
    config = checkpoint.model.config
    if config.model_type not in FAMILIES:
        raise UnsupportedFormat(
            f"models of the family {config.model_type} can't be written as GGUF here",
            hint=f"these can: {', '.join(sorted(FAMILIES))}; llama.cpp's convert_hf_to_gguf.py knows more",
        )
    names = gguf_names(checkpoint.model)
    part = target.with_suffix(".part")
    writer = gguf.GGUFWriter(part, config.model_type)
    _write_shape(writer, checkpoint, precision)
    source = checkpoint.files.weights[0] if checkpoint.files.format == "gguf" and copy_tokenizer else None
    if source is not None and read_gguf(Path(source)).values.get("tokenizer.ggml.model"):
        _copy_tokenizer(writer, Path(source), checkpoint.tokenizer)
    else:
        _write_tokenizer(writer, checkpoint.tokenizer, config)
    state = dict(checkpoint.model.named_parameters())
    tied = "lm_head.weight" not in names
    for done, (name, stored) in enumerate(names.items()):
        _add(writer, stored, _values(name, state[name], config), precision, config.num_hidden_layers, tied=tied)
        if seen is not None:
            seen(done + 1, len(names))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(target)


def type_of(stored: str, row: int, precision: str, layers: int, *, tied: bool) -> str:
    """The type of a matrix of a file of this precision; ``row`` is its width, ``tied`` that embeddings also put out."""
    wanted = "Q4_K" if precision == "Q4_K_M" else precision
    if precision == "Q4_K_M":
        if stored == "output.weight" or (stored == "token_embd.weight" and tied):
            wanted = "Q6_K"
        elif ".attn_v." in stored or ".ffn_down." in stored:
            layer = int(stored.split(".")[1])
            often = layer < layers // 8 or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
            wanted = "Q6_K" if often else "Q4_K"
    elif precision in ("Q4_0", "Q4_1") and (stored == "output.weight" or (stored == "token_embd.weight" and tied)):
        wanted = "Q6_K"
    if wanted in STAND_IN and row % BLOCK[wanted]:
        wanted = STAND_IN[wanted]
    return "F16" if wanted in BLOCK and row % BLOCK[wanted] else wanted


def _values(name: str, parameter: Any, config: Any) -> Any:
    torch = library("torch")
    values = parameter.detach().to(torch.float32).contiguous().numpy()
    if config.model_type == "llama" and (heads := rotated_heads(name, config)):
        values = to_rotated(values, heads)
    return values


def _add(writer: Any, stored: str, values: Any, precision: str, layers: int, *, tied: bool) -> None:
    import gguf
    import libgguf
    import numpy as np

    if values.ndim == 1 or precision == "F32":
        writer.add_tensor(stored, np.ascontiguousarray(values))
        return
    wanted = type_of(stored, values.shape[-1], precision, layers, tied=tied)
    if wanted == "F16":
        writer.add_tensor(stored, values.astype(np.float16))
        return
    kind = gguf.GGMLQuantizationType[wanted]
    packed = np.asarray(libgguf.quantize_rows(np.ascontiguousarray(values), int(kind)))
    writer.add_tensor(stored, packed.view(np.uint8).reshape(values.shape[0], -1), raw_dtype=kind)


def _write_shape(writer: Any, checkpoint: Checkpoint, precision: str) -> None:
    config, facts = checkpoint.model.config, checkpoint.files.facts
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") not in ("default", "linear"):
        raise UnsupportedFormat(f"a rotary embedding scaled by {rope['rope_type']!r} can't be written as GGUF here")
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_type("model")
    if facts.name:
        writer.add_name(facts.name)
    if facts.licence:
        writer.add_license(facts.licence.lower())
    writer.add_file_type(FILE_TYPES[precision])
    writer.add_quantization_version(2)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10000.0)))
    writer.add_rope_dimension_count(head)
    if rope.get("rope_type") == "linear":
        import gguf

        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    if head * config.num_attention_heads != config.hidden_size or config.model_type == "qwen3":
        writer.add_key_length(head)
        writer.add_value_length(head)
    writer.add_vocab_size(checkpoint.model.get_input_embeddings().weight.shape[0])


def _copy_tokenizer(writer: Any, source: Path, tokenizer: Any) -> None:
    import gguf

    file = read_gguf(source)
    for key, value in file.values.items():
        if key.startswith("tokenizer.") and key != "tokenizer.chat_template":
            kind, inner = file.kinds[key]
            sub = gguf.GGUFValueType(inner) if inner is not None else None
            writer.add_key_value(key, value, gguf.GGUFValueType(kind), sub)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def _write_tokenizer(writer: Any, tokenizer: Any, config: Any) -> None:
    told = json.loads(tokenizer.backend_tokenizer.to_str())
    model = told["model"]
    if model["type"] != "BPE" or model.get("byte_fallback"):
        raise UnsupportedFormat(
            f"a tokenizer of kind {model['type']} can't be written as GGUF here",
            hint="byte-level BPE tokenizers can; llama.cpp's convert_hf_to_gguf.py knows more",
        )
    added = {each["id"]: each for each in told["added_tokens"]}
    tokens = {number: token for token, number in model["vocab"].items()} | {
        number: each["content"] for number, each in added.items()
    }
    rows = config.vocab_size
    kinds = [
        (CONTROL if added[number]["special"] else USER_DEFINED)
        if number in added
        else (NORMAL if number in tokens else UNUSED)
        for number in range(rows)
    ]
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in model["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitting_of(told))
    writer.add_token_list([tokens.get(number, f"[PAD{number}]") for number in range(rows)])
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_add_bos_token(bool(tokenizer.bos_token) and tokenizer("").input_ids[:1] == [tokenizer.bos_token_id])
    for role, name in (("bos", "bos"), ("eos", "eos"), ("unk", "unk"), ("pad", "pad")):
        number = getattr(tokenizer, f"{role}_token_id")
        if number is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def splitting_of(told: dict[str, Any]) -> str:
    """llama.cpp's name for how a tokenizer.json splits text before merging. Raises UnsupportedFormat."""
    steps = told.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers", [steps])
    kinds = [each.get("type") for each in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        pattern = steps[0]["pattern"].get("Regex", "")
        for name, known in PATTERNS.items():
            if pattern == known:
                return name
    raise UnsupportedFormat(
        f"llama.cpp may not know how this tokenizer splits text ({', '.join(map(str, kinds))})",
        hint="it would read other tokens than the model was trained on",
    )
