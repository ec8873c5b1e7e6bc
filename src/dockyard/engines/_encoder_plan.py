"""What the files beside an encoder say of its use (pooling, window, prompts …), and what it takes of memory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from dockyard.engines._encoder_batch import BATCH_TOKENS
from dockyard.errors import InvalidRequest, LoadFailed
from dockyard.hardware import Hardware
from dockyard.settings import Settings
from dockyard.types import Json, LoadOptions, Memory, ModelFiles

T = TypeVar("T")
Pooling = Literal["cls", "mean", "max", "last"]

PARALLEL = 32
"""Requests that wait in the worker at once: their texts are what batches are made of."""

DEFAULT_WINDOW = 512
PROCESS = 70 << 20
"""Resident bytes of a worker with onnxruntime, numpy and tokenizers, before any model."""

WEIGHT_FACTOR = 1.6
"""onnxruntime holds weights as they came and, for most matrices, once more in the order its kernels read."""

TOKENIZER = 20 << 20

_ROBERTA = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet"})
"""Their position table has two rows that no token uses."""

_CLS = ("bge", "arctic-embed", "mxbai-embed", "gte-base-en-v1.5", "gte-large-en-v1.5", "gte-multilingual", "simcse")
"""Families that are trained on the first token's vector; nearly everybody else takes the mean."""

_DECODERS = frozenset({"qwen2", "qwen3", "llama", "mistral", "gemma", "gemma2"})
"""Decoders see the whole text only at its last token."""


class Flags(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The allow-list of ``LoadOptions.flags``; None leaves it to the model's own files.

    ``batch`` is how many texts go through the network together, ``file`` the path of the graph where there are several;
    ``truncate`` cuts what is too long (and says so) instead of refusing it.
    """

    pooling: Pooling | None = None
    normalize: bool | None = None
    truncate: bool = False
    batch: Annotated[int, Meta(ge=1, le=256)] | None = None
    file: str | None = None


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How this model's vectors are made; crosses to the worker in ``LoadPlan.details``."""

    graph: str
    tokenizer: str
    pooling: Pooling
    normalize: bool
    truncate: bool
    batch: int | None
    prompts: dict[str, str] = {}


def read_flags(flags: dict[str, Json]) -> Flags:
    """Raises InvalidRequest naming the flag that is unknown or of the wrong type."""
    try:
        return msgspec.convert(flags, Flags)
    except msgspec.ValidationError as error:
        names = ", ".join(Flags.__struct_fields__)
        raise InvalidRequest(f"encoder flags: {error}", param="flags", hint=f"flags: {names}") from error


def graph(files: ModelFiles, flags: Flags) -> Path:
    """The network to load: the one that ``file`` names, else ``model`` or ``openvino_model``, else the first."""
    graphs = [Path(path) for path in files.weights if path.endswith((".onnx", ".xml"))]
    found = [path for path in graphs if "tokenizer" not in path.name]
    if flags.file is not None:
        named = [path for path in found if path == Path(files.directory) / flags.file or path.name == flags.file]
        if not named:
            names = ", ".join(path.name for path in found)
            raise InvalidRequest(f"flag file: the model has no graph {flags.file!r}", param="flags.file", hint=names)
        return named[0]
    usual = [path for path in found if path.stem in ("model", "openvino_model")]
    return (usual or found)[0]


def beside(files: ModelFiles, name: str) -> Path | None:
    """A file of the model: next to its weights, else at its top."""
    for folder in (Path(files.weights[0]).parent, Path(files.directory)):
        if (folder / name).is_file():
            return folder / name
    return None


def recipe(files: ModelFiles, flags: Flags) -> Recipe:
    """Raises LoadFailed where the files ask for what is not done here."""
    tokenizer = beside(files, "tokenizer.json")
    if tokenizer is None:
        raise LoadFailed(f"{files.reference} has no tokenizer.json", hint="package it together with its tokenizer")
    modules = [str(each.get("type", "")) for each in _read(files, "modules.json", list[dict[str, Json]], [])]
    if any(name.endswith(".Dense") for name in modules):
        raise LoadFailed(
            f"{files.reference} has a dense layer behind its pooling, which the encoder engine does not compute",
            hint="export the whole model, pooling and all, with an output `sentence_embedding`",
        )
    normalises = any(name.endswith(".Normalize") for name in modules) or not modules
    prompts = _read(files, "config_sentence_transformers.json", dict[str, Json], {}).get("prompts")
    return Recipe(
        graph=str(graph(files, flags)),
        tokenizer=str(tokenizer),
        pooling=flags.pooling or _pooling(files),
        normalize=normalises if flags.normalize is None else flags.normalize,
        truncate=flags.truncate,
        batch=flags.batch,
        prompts={str(name): str(text) for name, text in prompts.items()} if isinstance(prompts, dict) else {},
    )


def _pooling(files: ModelFiles) -> Pooling:
    """The model's own setting; where it has none, what its family is trained with."""
    found = _read(files, "1_Pooling/config.json", dict[str, Json], {})
    stated: tuple[tuple[str, Pooling], ...] = (
        ("pooling_mode_cls_token", "cls"),
        ("pooling_mode_lasttoken", "last"),
        ("pooling_mode_max_tokens", "max"),
        ("pooling_mode_mean_tokens", "mean"),
    )
    chosen = [pooling for name, pooling in stated if found.get(name) is True]
    if len(chosen) > 1:
        raise LoadFailed(
            f"{files.reference} joins several poolings ({', '.join(chosen)}), which the encoder engine does not do",
            hint="choose one with the flag `pooling`",
        )
    if chosen:
        return chosen[0]
    if files.facts.architecture in _DECODERS:
        return "last"
    called = f"{files.facts.name or ''} {files.reference}".lower()
    return "cls" if any(family in called for family in _CLS) else "mean"


def window(files: ModelFiles, options: LoadOptions, settings: Settings) -> int:
    """Tokens of one text: as trained, or fewer where somebody asks for fewer."""
    stated = [
        _read(files, "sentence_bert_config.json", dict[str, Json], {}).get("max_seq_length"),
        _read(files, "tokenizer_config.json", dict[str, Json], {}).get("model_max_length"),
        files.context,
    ]
    limit = files.facts.context
    if limit is not None and files.facts.architecture in _ROBERTA:
        limit -= 2
    trained = min([int(each) for each in (*stated, limit) if isinstance(each, int | float) and 0 < each < 1 << 20]
                  or [DEFAULT_WINDOW])  # fmt: skip
    if options.context and options.context > (limit or trained):
        raise InvalidRequest(
            f"{files.reference} was trained on {limit or trained} tokens; a context of {options.context} is not "
            "possible",
            param="context",
        )
    return options.context or min(trained, settings.context or trained)


def memory(files: ModelFiles, made: Recipe, context: int, lanes: int) -> Memory:
    """Fitted to what a worker took once each lane had a text of the full window."""
    facts = files.facts
    forward = facts.feed_forward or 4 * (facts.embedding or 384)
    held = Path(made.graph).stat().st_size + _external(Path(made.graph))
    tokens = max(context, BATCH_TOKENS)
    lane = 4 * tokens * (3 * forward + 3 * context * (facts.heads or 12))
    return Memory(weights=int(held * WEIGHT_FACTOR), workspace=PROCESS + TOKENIZER + lanes * lane)


def threads(options: LoadOptions, settings: Settings, hardware: Hardware) -> int:
    return options.threads or settings.threads or hardware.cores


def _external(path: Path) -> int:
    """Weights that lie beside the graph."""
    names = (path.with_suffix(".bin"), path.with_name(f"{path.name}_data"), path.with_name(f"{path.name}.data"))
    return sum(each.stat().st_size for each in names if each.is_file())


def _read(files: ModelFiles, name: str, kind: type[T], default: T) -> T:
    path = beside(files, name)
    if path is None:
        return default
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LoadFailed(f"{files.reference}: {name}: {error}", hint="it does not say what it should") from error
