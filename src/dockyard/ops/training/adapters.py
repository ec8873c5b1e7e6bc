"""Adapters: which modules get one, and the adapter as files that are the same for the same training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from dockyard.errors import InvalidRequest
from dockyard.ops._libraries import library
from dockyard.ops.training.options import AdapterParams

Kind = Literal["lora", "rslora", "dora", "qlora"]


def linear_modules(model: Any) -> list[str]:
    """The last names of the linear layers of a model, its head left out: what "all-linear" stands for."""
    torch = library("torch")
    head = model.get_output_embeddings()
    found = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    return sorted(found)


def targets(model: Any, text: str) -> list[str]:
    """The modules that ``target`` names. Raises InvalidRequest for one that the model has not."""
    known = linear_modules(model)
    if text.strip() == "all-linear":
        return known
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    if not wanted:
        raise InvalidRequest("no module is named", param="target", hint=f"all-linear, or some of {', '.join(known)}")
    for name in wanted:
        if name not in known:
            raise InvalidRequest(
                f"the model has no linear module {name!r}", param="target", hint=f"it has {', '.join(known)}"
            )
    return wanted


def lora_config(model: Any, kind: Kind, params: AdapterParams, task: str = "CAUSAL_LM") -> Any:
    """The PEFT configuration of an adapter."""
    return library("peft").LoraConfig(
        r=params.rank,
        lora_alpha=params.alpha if params.alpha is not None else 2 * params.rank,
        lora_dropout=params.dropout,
        target_modules=targets(model, params.target),
        use_rslora=kind == "rslora",
        use_dora=kind == "dora",
        task_type=task,
    )


def weight_bytes(model: Any) -> int:
    """Bytes of a model's parameters and buffers as they lie in memory; 4-bit ones with their scales."""
    total = 0
    for tensor in [*model.parameters(), *model.buffers()]:
        total += tensor.numel() * tensor.element_size()
        state = getattr(tensor, "quant_state", None)
        for part in (state, getattr(state, "state2", None)):
            absmax = getattr(part, "absmax", None)
            if absmax is not None:
                total += absmax.numel() * absmax.element_size()
    return total


def write_adapter(model: Any, folder: Path, base: str) -> dict[str, Path]:
    """The adapter of a PEFT model as files. What PEFT writes in the order of a set, or as this machine's path, is
    written so that the same adapter has the same bytes."""
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    told["base_model_name_or_path"] = base
    told = {key: sorted(value) if key.endswith("_modules") and value else value for key, value in told.items()}
    path.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return {each.name: each for each in sorted(folder.iterdir()) if each.is_file()}
