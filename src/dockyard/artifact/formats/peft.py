"""PEFT adapters: ``adapter_config.json`` and ``adapter_model.safetensors``, which change a base model's weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dockyard.artifact.formats import _beside
from dockyard.artifact.formats._shape import integer, real, string
from dockyard.artifact.formats._tensors import Tensor, add_up
from dockyard.artifact.formats.safetensors import read_tensors
from dockyard.errors import UnsupportedFormat
from dockyard.types import Format, Json, ModelFacts

CONFIG = "adapter_config.json"


class Peft:
    """Reader of LoRA and kindred adapters as the ``peft`` library saves them."""

    name: Format = "peft"

    def weights(self, files: Sequence[Path]) -> list[Path]:
        return [
            path for path in files if path.suffix.lower() == ".safetensors" and path.name.startswith("adapter_model")
        ]

    def read(self, weights: Sequence[Path], files: Sequence[Path]) -> ModelFacts:
        source = _beside.find(CONFIG, weights, files)
        if source is None:
            raise UnsupportedFormat(f"{weights[0]}: an adapter without {CONFIG} beside it", param=str(weights[0]))
        config = _beside.read_object(source)
        kind = string(config.get("peft_type"))
        if kind is None:
            raise UnsupportedFormat(f"{source}: no peft_type", param=str(source))
        tensors = [tensor for path in weights for tensor in read_tensors(path)]
        totals = add_up(tensors)
        return ModelFacts(
            format="peft",
            architecture=kind.lower(),
            parameters=totals.parameters,
            quantization=totals.dtype,
            weight_bytes=totals.size,
            tensors=totals.bytes_by_part,
            weights=totals.weights_by_part,
            licence=_beside.licence(weights, files),
            base=string(config.get("base_model_name_or_path")),
            adapter_rank=_rank(config, tensors),
            adapter_alpha=real(config.get("lora_alpha")),
            adapter_targets=_targets(config, tensors),
        )


PLUGIN = Peft()


def _rank(config: Mapping[str, Json], tensors: Sequence[Tensor]) -> int | None:
    """The rank of the tensors themselves; the configuration's where they don't show one (prompt tuning, IA³)."""
    ranks = [min(tensor.shape) for tensor in tensors if ".lora_A." in tensor.name and len(tensor.shape) == 2]
    return max(ranks, default=integer(config.get("r")))


def _targets(config: Mapping[str, Json], tensors: Sequence[Tensor]) -> tuple[str, ...]:
    """The modules that are changed; a pattern in the configuration is resolved by the tensors' names."""
    stated = config.get("target_modules")
    if isinstance(stated, list):
        return tuple(sorted(item for item in stated if isinstance(item, str)))
    changed = {tensor.name.split(".lora_")[0].rsplit(".", 1)[-1] for tensor in tensors if ".lora_" in tensor.name}
    return tuple(sorted(changed))
