"""Pruning: weights to zero, or whole parts out of the network.

Zeros (magnitude, Wanda, 2:4) leave every matrix as large as it was: no engine on a CPU computes faster for them, and
what they save is the size of what is sent compressed. Parts that are taken out (layers, neurons, heads) make every
engine faster. What was done, and what it did to perplexity on the text that was looked at, is attached.
"""

from __future__ import annotations

import zlib
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from dockyard.artifact.lineage import attach
from dockyard.artifact.materialize import model_files
from dockyard.artifact.store import Entry, Store
from dockyard.errors import InvalidRequest
from dockyard.ops import Inputs, Job, Params, Takes, refuse_unused
from dockyard.ops._checkpoint import Checkpoint, Dtype, open_checkpoint, parameters, save_checkpoint
from dockyard.ops._libraries import library
from dockyard.ops._prune_parts import drop_groups, drop_layers, narrow
from dockyard.ops._prune_zeros import zero
from dockyard.ops._text import calibration, perplexity
from dockyard.ops.planning import PROCESS, Cost, forward_seconds
from dockyard.types import ModelFacts

ARTIFACT_TYPE = "application/vnd.dockyard.pruning.v1+json"
Method = Literal["magnitude", "wanda", "depth", "width", "heads"]
FASTER = {
    "zeros": "no engine on a CPU computes faster for zeros; the model is smaller only where it is compressed",
    "2:4": "GPUs with sparse tensor cores compute faster for it (vLLM, through compressed-tensors); no CPU engine does",
    "parts": "every engine computes faster, by about the share of the weights that went",
}
COUNTED = {"layers": "layers", "width": "neurons in an MLP", "groups": "key-value heads in a layer"}


class PruneParams(Params, frozen=True):
    """What to take away."""

    method: Annotated[Method, Meta(description="Weights by magnitude or Wanda; whole layers, MLP neurons or heads.")]
    sparsity: Annotated[
        Annotated[float, Meta(gt=0, lt=1)], Meta(description="Magnitude and Wanda: share of weights set to zero.")
    ] = 0.5
    pattern: Annotated[
        Literal["2:4", "4:8"] | None, Meta(description="Magnitude and Wanda: so many zeros in each run of weights.")
    ] = None
    layers: Annotated[Annotated[int, Meta(ge=1)] | None, Meta(description="Depth: layers to take out.")] = None
    width: Annotated[
        Annotated[int, Meta(ge=32, multiple_of=32)] | None, Meta(description="Width: MLP neurons to keep in a layer.")
    ] = None
    groups: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="Heads: key-value heads to take out of a layer, with the query heads that use them."),
    ] = None
    samples: Annotated[Annotated[int, Meta(ge=1, le=4096)], Meta(description="Runs of text to look at.")] = 8
    tokens: Annotated[Annotated[int, Meta(ge=8, le=8192)], Meta(description="Tokens of each run.")] = 256
    seed: Annotated[int, Meta(description="Of generated text.")] = 0
    dtype: Annotated[Dtype, Meta(description="Floats to write.")] = "float16"


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """What pruning did. Perplexities are on the text that was looked at, which flatters; ``deflated`` is what zlib
    leaves of the weights' bytes; ``removed`` names layers by their old numbers."""

    method: str
    parameters_before: int
    parameters_after: int
    zeros: float
    deflated: float
    perplexity_before: float
    perplexity_after: float
    removed: tuple[int, ...] = ()
    faster: str = ""


class Pruner:
    """Take weights or parts out of MODEL. Recover what that costs with `dockyard tune` or `dockyard distill`."""

    name = "prune"
    version = "1"
    params = PruneParams
    takes = (
        Takes(role="base", help="The model: GGUF or safetensors.", required=True),
        Takes(role="calibration", kind="file", help="Text (.txt) or JSONL to look at; else generated."),
    )

    def predict(self, store: Store, inputs: Inputs, params: PruneParams) -> Cost:
        facts = model_files(store, inputs.artifacts[0].digest)
        check(params, facts.facts)
        weights = parameters(facts)
        looked_at = params.samples * params.tokens
        return Cost(
            memory=PROCESS + 8 * weights,
            disk=(4 if params.dtype == "float32" else 2) * weights,
            seconds=20 + weights / 2e7 + 4 * forward_seconds(weights, looked_at),
        )

    def run(self, job: Job, params: PruneParams) -> Entry:
        digest = job.artifact("base")
        check(params, model_files(job.store, digest).facts)
        checkpoint = open_checkpoint(job.store, digest)
        runs = calibration(job, checkpoint, samples=params.samples, tokens=params.tokens, seed=params.seed)
        before, size = perplexity(checkpoint.model, runs), _count(checkpoint.model)
        removed = _prune(job, params, checkpoint, runs)
        after = perplexity(checkpoint.model, runs)
        entry = save_checkpoint(job, checkpoint.model, checkpoint.tokenizer, dtype=params.dtype)
        kind = "parts" if params.method in ("depth", "width", "heads") else "2:4" if params.pattern else "zeros"
        zeros, deflated = _emptiness(checkpoint.model)
        found = Pruned(
            method=params.method + (f" {params.pattern}" if params.pattern else ""),
            parameters_before=size,
            parameters_after=_count(checkpoint.model),
            zeros=round(zeros, 4),
            deflated=round(deflated, 3),
            perplexity_before=round(before, 3),
            perplexity_after=round(after, 3),
            removed=removed,
            faster=FASTER[kind],
        )
        job.note(f"perplexity on the text looked at: {before:.2f} before, {after:.2f} after; {found.faster}")
        attach(
            job.store,
            entry.descriptor.digest,
            msgspec.json.format(msgspec.json.encode(found), indent=2),
            artifact_type=ARTIFACT_TYPE,
        )
        return entry


PLUGIN = Pruner()


def check(params: PruneParams, facts: ModelFacts) -> None:
    """Raise InvalidRequest for what the method needs and was not told, or what would leave nothing."""
    needs = {"depth": "layers", "width": "width", "heads": "groups"}
    own = needs.get(params.method)
    for name in needs.values():
        if (getattr(params, name) is not None) != (name == own):
            word = "needs" if name == own else "does not take"
            raise InvalidRequest(f"pruning by {params.method} {word} `{name}`", param=name)
    if own:
        refuse_unused(params, ("sparsity", "pattern"), "takes whole parts out")
    if params.pattern:
        refuse_unused(params, ("sparsity",), f"makes {params.pattern} zeros")
    limits = {"layers": facts.layers, "width": facts.feed_forward, "groups": facts.kv_heads}
    if own and (most := limits[own]) is not None and (told := getattr(params, own)) >= most:
        does = "takes nothing away" if own == "width" else "is too many to take out"
        raise InvalidRequest(f"the model has {most} {COUNTED[own]}, so {told} {does}", param=own)


def _prune(job: Job, params: PruneParams, checkpoint: Checkpoint, runs: list[list[int]]) -> tuple[int, ...]:
    model = checkpoint.model

    def seen(done: int, total: int) -> None:
        job.step(f"pruning by {params.method}", done, total)

    if params.method in ("magnitude", "wanda"):
        zero(model, runs if params.method == "wanda" else None, params.sparsity, params.pattern, seen)
        return ()
    if params.layers is not None:
        return tuple(drop_layers(model, runs, params.layers, seen))
    if params.width is not None:
        narrow(model, runs, params.width, seen)
    if params.groups is not None:
        drop_groups(model, runs, params.groups, seen)
    return ()


def _count(model: Any) -> int:
    return sum(each.numel() for each in model.parameters())


def _emptiness(model: Any) -> tuple[float, float]:
    """Share of zeros in the matrices of the layers, and what zlib leaves of a sample of their bytes as half floats."""
    torch = library("torch")
    total = zeros = raw = packed = 0
    for name, values in model.named_parameters():
        if values.ndim == 2 and ".layers." in name:
            total += values.numel()
            zeros += int((values == 0).sum())
            data = values.detach().to(torch.float16).reshape(-1)[: 1 << 17].numpy().tobytes()
            raw, packed = raw + len(data), packed + len(zlib.compress(data, 6))
    return zeros / max(1, total), packed / max(1, raw)
