"""Model artifacts as transformers models, and transformers models as artifacts.

    open_checkpoint(store, name)    GGUF (dequantised) or safetensors → a model with its own tokenizer and template
    save_checkpoint(job, …)         → a safetensors artifact with tokenizer, template, licence and lineage
    save_adapter(job, …)            → the same for a PEFT adapter

A quantised GGUF is opened as the floats that its blocks stand for. What is quantised in a way that training or merging
would corrupt (a ``quantization_config``, IR) is refused with the name of the artifact that it was made from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from dockyard.artifact.lineage import history
from dockyard.artifact.manifest import Parent, read_artifact
from dockyard.artifact.materialize import model_files
from dockyard.artifact.packing import pack_files
from dockyard.artifact.store import Entry, Store
from dockyard.artifact.writers import About
from dockyard.errors import DockyardError, UnsupportedFormat
from dockyard.ops import Job
from dockyard.ops._gguf_read import GgufFile, read_gguf
from dockyard.ops._gguf_tokenizer import tokenizer_of
from dockyard.ops._libraries import library
from dockyard.types import ModelFiles, Reference

Dtype = Literal["float32", "float16", "bfloat16"]
FAMILIES = {"llama": "LlamaConfig", "qwen2": "Qwen2Config", "qwen3": "Qwen3Config"}
"""GGUF's architectures that are opened here; any other is left to transformers."""


class Checkpoint(msgspec.Struct, frozen=True):
    """A model in memory (``transformers.PreTrainedModel``, in evaluation mode) with its tokenizer."""

    model: Any
    tokenizer: Any
    files: ModelFiles


def open_checkpoint(store: Store, name: str | Reference, *, dtype: Dtype = "float32") -> Checkpoint:
    """Load a model of the store with all its weights as ``dtype``.

    Raises ModelNotFound, UnsupportedFormat for what can't be opened as floats, EngineUnavailable without the extra.
    """
    files = model_files(store, name)
    try:
        return open_files(files, dtype=dtype)
    except UnsupportedFormat as error:
        raise UnsupportedFormat(error.message, hint=floats_hint(store, name) or error.hint) from error


def open_files(files: ModelFiles, *, dtype: Dtype = "float32") -> Checkpoint:
    """The same for files that are laid out already."""
    if files.format == "gguf":
        file = read_gguf(Path(files.weights[0]))
        tokenizer = open_tokenizer(files)
        model = _from_gguf(file, dtype, len(files.weights))
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        return Checkpoint(model.eval(), tokenizer, files)
    if files.format != "safetensors":
        raise UnsupportedFormat(
            f"{files.reference} is {files.format}, which can't be opened as floats here",
            hint="use the GGUF or safetensors artifact that it was made from",
        )
    folder = _folder(files)
    config = library("transformers").AutoConfig.from_pretrained(folder, local_files_only=True)
    if getattr(config, "quantization_config", None) is not None:
        raise UnsupportedFormat(
            f"{files.reference} is quantised ({files.facts.quantization}): its weights are not floats",
            hint="use the artifact with floats that it was made from",
        )
    torch, transformers = library("torch"), library("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=getattr(torch, dtype), local_files_only=True, trust_remote_code=False
    )
    return Checkpoint(model.eval(), open_tokenizer(files), files)


def open_tokenizer(files: ModelFiles) -> Any:
    """The tokenizer of a model in any format that brings one; its template is the artifact's own where it has one."""
    transformers = library("transformers")
    if files.format == "gguf":
        try:
            found = tokenizer_of(read_gguf(Path(files.weights[0])))
        except UnsupportedFormat:
            path = Path(files.weights[0])
            found = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    else:
        folder = _folder(files)
        if not (folder / "tokenizer.json").is_file() and not (folder / "tokenizer_config.json").is_file():
            raise UnsupportedFormat(
                f"{files.reference} has no tokenizer beside its weights", hint="package the model with its tokenizer"
            )
        found = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if files.chat_template is not None:
        found.chat_template = files.chat_template
    return found


def write_folder(model: Any, tokenizer: Any, folder: Path) -> dict[str, Path]:
    """Write a model and its tokenizer as Hugging Face lays them out; the files by name."""
    folder.mkdir(parents=True, exist_ok=True)
    if getattr(model.config, "quantization_config", None) is not None and not _is_packed(model):
        del model.config.quantization_config  # what it was dequantised from says nothing of what is written
    model.save_pretrained(folder, safe_serialization=True)
    write_tokenizer(tokenizer, folder)
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}


def write_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write a tokenizer with its template, without where it was read from."""
    for key in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(key, None)
    tokenizer.save_pretrained(folder)


def save_checkpoint(
    job: Job,
    model: Any,
    tokenizer: Any,
    *,
    dtype: Dtype | None = "float16",
    extra: Mapping[str, Path] | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Entry:
    """Put a model into the job's store, its weights as ``dtype`` (None: as they are), named and with lineage as the
    job says. ``extra`` are further files by their path in the artifact; licences of the base come along."""
    if dtype is not None:
        model = model.to(getattr(library("torch"), dtype))
    files = write_folder(model, tokenizer, job.work / "checkpoint")
    return save_files(job, {**files, **(extra or {})}, annotations=annotations)


def save_adapter(job: Job, model: Any, *, extra: Mapping[str, Path] | None = None) -> Entry:
    """Put the adapter of a PEFT model into the job's store: its configuration and matrices, without the base."""
    folder = job.work / "adapter"
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's card of unfilled fields
    files = {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}
    return save_files(job, {**files, **(extra or {})})


def save_files(job: Job, files: Mapping[str, Path], *, annotations: Mapping[str, str] | None = None) -> Entry:
    """Put files that an operation made into its store; nobody may write to them afterwards."""
    found, about = dict(files), About()
    for parent in job.inputs.artifacts:
        if parent.role == "base":
            found = {**licences(job.store, parent), **found}
            about = read_artifact(job.store, parent.digest).about
    return pack_files(
        job.store,
        found,
        reference=job.reference,
        about=about,
        lineage=job.lineage,
        annotations={**job.annotations, **(annotations or {})},
        link=True,
        on_progress=job.on_progress,
    )


def licences(store: Store, parent: Parent) -> dict[str, Path]:
    """Files of an artifact that whatever is made of it must carry too."""
    layers = read_artifact(store, parent.digest).of("licence")
    return {each.path: store.blob_path(each.descriptor.digest) for each in layers if not each.packed}


def parameters(files: ModelFiles) -> int:
    """How many weights a model has, by its headers; a guess from its bytes where they do not say."""
    return files.facts.parameters or files.facts.weight_bytes // 2


def _folder(files: ModelFiles) -> Path:
    return Path(files.weights[0]).parent


def _is_packed(model: Any) -> bool:
    return bool(getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False))


def floats_hint(store: Store, name: str | Reference) -> str | None:
    """Which ancestor has the floats that an artifact lacks."""
    for each in history(store, name)[1:]:
        try:
            files = model_files(store, each.digest)
        except DockyardError:
            continue
        if files.format in ("gguf", "safetensors"):
            return f"use {each.names[0] if each.names else each.digest}, which it was made from"
    return None


# GGUF


def _from_gguf(file: GgufFile, dtype: Dtype, shards: int) -> Any:
    torch, transformers = library("torch"), library("transformers")
    family = FAMILIES.get(str(file.values.get("general.architecture")))
    if family is None or shards > 1 or any("expert" in name for name in file.tensors):
        # By itself it may leave weights in GGUF's blocks, and even where it doesn't it takes them for quantised.
        return transformers.AutoModelForCausalLM.from_pretrained(
            file.path.parent, gguf_file=file.path.name, dtype=getattr(torch, dtype), local_files_only=True,
            quantization_config=transformers.GgufConfig(dequantize=True),
        )  # fmt: skip
    config = config_of(file)
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    names = gguf_names(model)
    state = {}
    for name, stored in names.items():
        if stored not in file.tensors:
            raise UnsupportedFormat(f"{file.path.name} has no tensor {stored}, which {name} is read from")
        values = file.floats(stored)
        if config.model_type == "llama" and (heads := rotated_heads(name, config)):
            values = from_rotated(values, heads)
        state[name] = torch.from_numpy(values).to(getattr(torch, dtype))
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    _fill_buffers(model)
    return model


def _fill_buffers(model: Any) -> None:
    """Frequencies of the rotary embedding are computed, not loaded: make them where they are still without numbers."""
    rotary = model.model.rotary_emb
    fresh = type(rotary)(config=model.config)
    model.model.rotary_emb = fresh


def config_of(file: GgufFile) -> Any:
    """A transformers configuration with the dimensions of a GGUF header."""
    transformers = library("transformers")
    values = file.values
    architecture = str(values["general.architecture"])
    own = {key.removeprefix(f"{architecture}."): value for key, value in values.items()}
    heads, width = int(own["attention.head_count"]), int(own["embedding_length"])
    if own.get("rope.scaling.type", "none") not in ("none", "linear") or "rope_freqs.weight" in file.tensors:
        raise UnsupportedFormat(f"{file.path.name} scales its rotary embedding in a way that is not read here")
    scaling: dict[str, Any] = {"rope_type": "default", "rope_theta": float(own.get("rope.freq_base", 10000.0))}
    if own.get("rope.scaling.type") == "linear":
        scaling |= {"rope_type": "linear", "factor": float(own["rope.scaling.factor"])}
    return getattr(transformers, FAMILIES[architecture])(
        vocab_size=file.tensors["token_embd.weight"].shape[1],
        hidden_size=width,
        intermediate_size=int(own["feed_forward_length"]),
        num_hidden_layers=int(own["block_count"]),
        num_attention_heads=heads,
        num_key_value_heads=int(own.get("attention.head_count_kv", heads)),
        head_dim=int(own.get("attention.key_length", width // heads)),
        rms_norm_eps=float(f"{own['attention.layer_norm_rms_epsilon']:.6g}"),
        max_position_embeddings=int(own["context_length"]),
        rope_parameters=scaling,
        tie_word_embeddings="output.weight" not in file.tensors,
        bos_token_id=values.get("tokenizer.ggml.bos_token_id"),
        eos_token_id=values.get("tokenizer.ggml.eos_token_id"),
        pad_token_id=values.get("tokenizer.ggml.padding_token_id"),
        **({"attention_bias": "blk.0.attn_q.bias" in file.tensors} if architecture == "llama" else {}),
    )


_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)")
_PARTS = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
_ENDS = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def gguf_names(model: Any) -> dict[str, str]:
    """For each parameter of a llama-like model the name that GGUF has for it. Raises UnsupportedFormat for another."""
    found = {}
    for name, _ in model.named_parameters():
        match = _LAYER.fullmatch(name)
        if match is not None and match[2] in _PARTS:
            found[name] = f"blk.{match[1]}.{_PARTS[match[2]]}.{match[3]}"
        elif name in _ENDS:
            found[name] = _ENDS[name]
        else:
            raise UnsupportedFormat(f"GGUF has no place here for the parameter {name} of {model.config.model_type}")
    return found


def rotated_heads(name: str, config: Any) -> int | None:
    """Heads of a matrix whose rows llama.cpp keeps in another order (architecture llama); None for all others."""
    if ".self_attn.q_proj." in name:
        return int(config.num_attention_heads)
    if ".self_attn.k_proj." in name:
        return int(config.num_key_value_heads)
    return None


def to_rotated(values: Any, heads: int) -> Any:
    """Rows of a query or key matrix as llama.cpp has them: each head's first and second half, taken in turns."""
    rows = values.shape[0] // heads // 2
    return values.reshape(heads, 2, rows, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)


def from_rotated(values: Any, heads: int) -> Any:
    """The inverse of ``to_rotated``."""
    rows = values.shape[0] // heads // 2
    return values.reshape(heads, rows, 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
