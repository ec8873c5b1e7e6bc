"""Merging: adapters become part of the weights of their base, computed and written in floats.

A base that is quantised in its own format (bitsandbytes, INT4 IR …) is refused, since adding small numbers to rounded
ones loses them; a quantised GGUF is opened as the floats that its blocks stand for, and the result stays in floats.
"""

from __future__ import annotations

import json
import struct
import warnings
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from dockyard.artifact.lineage import lineage_of
from dockyard.artifact.materialize import model_files
from dockyard.artifact.store import Entry, Store
from dockyard.errors import ArtifactError, InvalidRequest, NotFound, UnsupportedFormat
from dockyard.ops import Inputs, Job, Params, Takes, parity
from dockyard.ops._checkpoint import Dtype, open_checkpoint, parameters, write_folder
from dockyard.ops._libraries import library
from dockyard.ops._speakers import Transformers
from dockyard.ops.convert import gate_and_save
from dockyard.ops.planning import PROCESS, Cost, forward_seconds
from dockyard.types import ModelFiles

ADAPTER = "adapter_model.safetensors"
SAME_WEIGHTS = ("convert", "quantize")
"""Operations whose result has its base's weights, but for rounding."""


class MergeParams(Params, frozen=True):
    """How to merge."""

    scale: Annotated[
        Annotated[float, Meta(gt=0, le=16)],
        Meta(description="Multiplies each adapter's own factor (alpha / rank)."),
    ] = 1.0
    dtype: Annotated[Dtype, Meta(description="Floats to write.")] = "float16"


class Merger:
    """Make adapters part of BASE. The result answers as the base with the adapters did, or is refused."""

    name = "merge"
    version = "1"
    params = MergeParams
    takes = (
        Takes(role="base", help="The model that the adapters were trained on: GGUF or safetensors.", required=True),
        Takes(role="adapter", help="A PEFT adapter; may be repeated.", required=True, many=True),
    )

    def predict(self, store: Store, inputs: Inputs, params: MergeParams) -> Cost:
        (base, *_) = [each.digest for each in inputs.artifacts if each.role == "base"]
        weights = parameters(model_files(store, base))
        spoken = len(parity.PROMPTS) * parity.POSITIONS * 24
        width = 4 if params.dtype == "float32" else 2
        return Cost(
            memory=PROCESS + 12 * weights,
            disk=width * weights,
            seconds=20 + weights / 4e7 + 4 * forward_seconds(weights, spoken),
        )

    def run(self, job: Job, params: MergeParams) -> Entry:
        adapters = [model_files(job.store, digest) for digest in job.artifacts("adapter")]
        if not adapters:
            raise InvalidRequest("there is no adapter to merge", param="adapter", hint="--adapter NAME")
        for each in adapters:
            if each.format != "peft":
                raise UnsupportedFormat(f"{each.reference} is {each.format}, not a PEFT adapter")
        checkpoint = open_checkpoint(job.store, job.artifact("base"))
        model = checkpoint.model
        for place, each in enumerate(adapters):
            check_adapter(model, each)
            _tell_of_another_base(job, each)
            job.step("adapters", place, len(adapters))
            model = attach(model, each, params.scale)
            if place < len(adapters) - 1:
                model = model.merge_and_unload(safe_merge=True)
        said = parity.listen(Transformers(model=model, tokenizer=checkpoint.tokenizer))
        merged = model.merge_and_unload(safe_merge=True)
        job.step("adapters", len(adapters), len(adapters))
        merged.to(getattr(library("torch"), params.dtype))
        made = write_folder(merged, checkpoint.tokenizer, job.work / "merged")
        return gate_and_save(job, made, said, "PEFT", parity.Limits(kl=0.02), what="the merged model")


PLUGIN = Merger()


def _tell_of_another_base(job: Job, adapter: ModelFiles) -> None:
    """Say so where an adapter's lineage names weights that are not the base's: its shapes fit, its numbers may not."""
    taught = [each.digest for each in lineage_of(job.store, adapter.digest).parents if each.role == "base"]
    base = job.artifact("base")
    if taught and _weights(job.store, taught[0]) != _weights(job.store, base):
        named = [next(iter(map(str, job.store.names(each))), each) for each in (taught[0], base)]
        job.note(f"{adapter.reference} was trained on {named[0]}, and {named[1]} has other weights")


def _weights(store: Store, digest: str) -> str:
    """The artifact whose weights these are, in whatever format and precision."""
    try:
        made = lineage_of(store, digest)
    except NotFound:
        return digest
    parents = [each.digest for each in made.parents if each.role == "base"]
    return _weights(store, parents[0]) if parents and made.operation in SAME_WEIGHTS else digest


def attach(model: Any, adapter: ModelFiles, scale: float = 1.0) -> Any:
    """The model with a PEFT adapter on it, in evaluation mode. Raises InvalidRequest where it is no adapter of it."""
    peft = library("peft")
    folder = Path(adapter.weights[0]).parent
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by names that will go
            found = peft.PeftModel.from_pretrained(model, str(folder), local_files_only=True)
    except (ValueError, RuntimeError, TypeError) as error:
        raise InvalidRequest(f"adapter {adapter.reference}: {str(error).splitlines()[0]}", param="adapter") from error
    if scale != 1.0:
        for module in found.modules():
            if hasattr(module, "scaling") and isinstance(module.scaling, dict):
                for name in module.scaling:
                    module.scaling[name] *= scale
    return found.eval()


def check_adapter(model: Any, adapter: ModelFiles) -> None:
    """Raise InvalidRequest unless each matrix of the adapter has a module of its size in the model."""
    modules = dict(model.named_modules())
    header = _header(Path(adapter.weights[0]))
    for name, tensor in header.items():
        inside = name.removeprefix("base_model.model.")
        module, _, part = inside.partition(".lora_")
        found = modules.get(module)
        if not part or found is None:
            if part:
                raise InvalidRequest(
                    f"adapter {adapter.reference}: the base has no module {module}",
                    param="adapter",
                    hint="was it trained on this base?",
                )
            continue  # a module that was trained whole, or a vector of another method: PEFT checks those
        wide = tensor["shape"][1] if part.startswith("A") else tensor["shape"][0]
        has = getattr(found, "in_features" if part.startswith("A") else "out_features", None)
        if part[:2] in ("A.", "B.") and has is not None and wide != has:
            raise InvalidRequest(
                f"adapter {adapter.reference}: {module} has {has} there, and the adapter's matrix {wide}",
                param="adapter",
                hint="was it trained on this base?",
            )


def _header(path: Path) -> dict[str, Any]:
    if path.suffix != ".safetensors":
        raise UnsupportedFormat(f"{path.name} is no PEFT adapter in safetensors")
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > path.stat().st_size:
            raise ArtifactError(f"{path.name} is cut short")
        found = json.loads(file.read(length))
    found.pop("__metadata__", None)
    return dict(found)
