"""PEFT's LoRA adapters for GenAI, which reads the matrices and nothing else, and ignores what it finds no place for.

So the configuration is read here, whatever GenAI would compute otherwise than PEFT is refused, and each matrix must
belong to a module of the model.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from dockyard.errors import InvalidRequest
from dockyard.types import Adapter

WEIGHTS = "adapter_model.safetensors"
MAX_HEADER = 16 << 20
_PART = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<part>[AB])\.weight")


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """Of ``adapter_config.json``, what changes the arithmetic."""

    peft_type: str = "LORA"
    r: int = 8
    lora_alpha: float = 8.0
    use_rslora: bool = False
    use_dora: bool = False
    fan_in_fan_out: bool = False
    bias: str = "none"
    lora_bias: bool = False
    rank_pattern: dict[str, Any] = {}
    alpha_pattern: dict[str, Any] = {}
    modules_to_save: list[str] | None = None


class Weights(msgspec.Struct, frozen=True):
    """GenAI's handle of the matrices, and the factor of their product."""

    adapter: Any
    factor: float


def read(adapter: Adapter, modules: Mapping[str, tuple[int, int]]) -> Weights:
    """Open an adapter for a model with these modules (inputs and outputs by name).

    Raises InvalidRequest where it is no adapter of this model, or not one that would be computed as PEFT does.
    """
    file = Path(adapter.path)
    if file.is_dir():
        file = file / WEIGHTS
    if file.suffix != ".safetensors" or not file.is_file():
        raise _bad(adapter, f"there is no {WEIGHTS}", "the openvino engine takes PEFT's LoRA adapters in safetensors")
    configuration = _configuration(adapter, file.parent)
    _check(adapter, _header(adapter, file), modules)
    import openvino_genai

    rank = configuration.r**0.5 if configuration.use_rslora else configuration.r
    return Weights(openvino_genai.Adapter(str(file)), configuration.lora_alpha / rank * adapter.scale)


def _configuration(adapter: Adapter, folder: Path) -> Configuration:
    try:
        found = msgspec.json.decode((folder / "adapter_config.json").read_bytes(), type=Configuration)
    except OSError as error:
        raise _bad(adapter, f"adapter_config.json can't be read: {error}", "its rank and alpha are in there") from error
    except msgspec.MsgspecError as error:
        raise _bad(adapter, f"adapter_config.json: {error}") from error
    unlike = [
        (found.peft_type != "LORA", f"peft_type {found.peft_type}"),
        (found.use_dora, "use_dora"),
        (found.fan_in_fan_out, "fan_in_fan_out"),
        (found.bias != "none" or found.lora_bias, "biases"),
        (bool(found.rank_pattern) and found.use_rslora, "rank_pattern with use_rslora"),
        (bool(found.alpha_pattern or found.rank_pattern), "ranks or alphas that differ between modules"),
        (bool(found.modules_to_save), "modules_to_save"),
        (found.r <= 0, f"rank {found.r}"),
    ]
    for is_so, what in unlike:
        if is_so:
            raise _bad(adapter, f"it has {what}, which OpenVINO GenAI does not compute", "merge it into the base")
    return found


def _header(adapter: Adapter, file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as data:
            (length,) = struct.unpack("<Q", data.read(8))
            if length > MAX_HEADER:
                raise _bad(adapter, f"a header of {length} bytes")
            found = json.loads(data.read(length))
    except (OSError, ValueError, struct.error) as error:
        raise _bad(adapter, f"{file.name} is not in safetensors: {error}") from error
    found.pop("__metadata__", None)
    return dict(found)


def _check(adapter: Adapter, header: dict[str, Any], modules: Mapping[str, tuple[int, int]]) -> None:
    for name, tensor in header.items():
        match = _PART.fullmatch(name)
        size = modules.get(match["module"]) if match else None
        if match is None or size is None:
            raise _bad(
                adapter, f"the model has no module for its tensor {name}", "was it trained on this base, with PEFT?"
            )
        shape = tensor.get("shape", ())
        wide = shape[1] if match["part"] == "A" and len(shape) == 2 else shape[0] if len(shape) == 2 else None
        if wide != size[0 if match["part"] == "A" else 1]:
            raise _bad(adapter, f"its tensor {name} is {shape}, and the module has {size[0]} inputs, {size[1]} outputs")
    if not header:
        raise _bad(adapter, "it has no tensors")


def _bad(adapter: Adapter, what: str, hint: str | None = None) -> InvalidRequest:
    return InvalidRequest(f"adapter {adapter.name}: {what}", param="model", hint=hint)
