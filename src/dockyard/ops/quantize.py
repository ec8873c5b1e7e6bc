"""Quantisation: fewer bits a weight, in the format of the engine that will serve it.

GGUF by llama.cpp's own block formats; OpenVINO IR by NNCF, data-free or with calibration text (AWQ and scale
estimation), or trained (QAT-LoRA); FP8 and W4A16 for GPUs by llm-compressor, in an environment of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from dockyard.artifact.materialize import model_files
from dockyard.artifact.store import Entry, Store
from dockyard.errors import InvalidRequest, UnsupportedFormat
from dockyard.ops import Inputs, Job, Params, Takes, given, parity, refuse_unused
from dockyard.ops._checkpoint import Checkpoint, floats_hint, open_checkpoint, parameters, save_files, write_folder
from dockyard.ops._external import compress, find_python
from dockyard.ops._gguf_write import write_gguf
from dockyard.ops._ir import write_ir
from dockyard.ops._nncf import compress_ir
from dockyard.ops._qat import check_installed, train_and_write
from dockyard.ops._speakers import speaker
from dockyard.ops._text import calibration
from dockyard.ops.convert import gate_and_save, inside, limits_of
from dockyard.ops.planning import PROCESS, Cost, forward_seconds

Recipe = Literal[
    "gguf-f16", "gguf-q8_0", "gguf-q6_k", "gguf-q4_k_m", "gguf-q4_1", "gguf-q4_0",
    "openvino-f16", "openvino-int8", "openvino-int4", "openvino-int4-awq", "openvino-int4-qat", "fp8", "w4a16",
]  # fmt: skip

CALIBRATED = frozenset({"openvino-int4-awq", "openvino-int4-qat", "w4a16"})
USED = {
    "openvino-int4": ("kl", "group_size", "symmetric", "ratio"),
    "openvino-int4-awq": ("kl", "group_size", "symmetric", "ratio", "samples", "tokens", "seed"),
    "openvino-int4-qat": (
        "kl", "group_size", "symmetric", "samples", "tokens", "steps", "rank", "learning_rate", "seed",
    ),
    "fp8": ("python",),
    "w4a16": ("python", "samples", "tokens", "seed"),
}  # fmt: skip
"""Parameters beside ``to`` that count; of the others ``kl`` alone does."""

BITS = {"f16": 16.0, "q8_0": 8.5, "q6_k": 6.6, "q4_k_m": 4.9, "q4_1": 5.0, "q4_0": 4.5, "int8": 8.1, "int4": 4.7}
LIMITS = {"f16": 0.01, "q8_0": 0.02, "q6_k": 0.05, "int8": 0.05}
"""Divergence in nats beyond which a result is refused as broken; of four bits a small model loses much, so 1."""
BROKEN = {"ignorance": 0.5, "agreement": 0.4}
"""Four bits: what is half as far away as a model that knows nothing, or says another word at more than three of five
positions, is broken however few nats that are."""


class QuantizeParams(Params, frozen=True):
    """To what, and how."""

    to: Annotated[Recipe, Meta(description="Format and precision.")]
    group_size: Annotated[
        Literal[32, 64, 128], Meta(description="INT4 in IR: weights of a row that share a scale.")
    ] = 32
    symmetric: Annotated[bool, Meta(description="INT4 in IR: no zero points.")] = False
    ratio: Annotated[
        Annotated[float, Meta(gt=0, le=1)], Meta(description="INT4 in IR: share of the layers; the rest are INT8.")
    ] = 1.0
    samples: Annotated[
        Annotated[int, Meta(ge=1, le=4096)], Meta(description="Runs of calibration text to look at.")
    ] = 16
    tokens: Annotated[Annotated[int, Meta(ge=8, le=8192)], Meta(description="Tokens of each run.")] = 128
    steps: Annotated[Annotated[int, Meta(ge=1)], Meta(description="QAT-LoRA: steps of training.")] = 60
    rank: Annotated[Annotated[int, Meta(ge=1, le=512)], Meta(description="QAT-LoRA: rank of the adapters.")] = 16
    learning_rate: Annotated[Annotated[float, Meta(gt=0)], Meta(description="QAT-LoRA: AdamW's rate.")] = 5e-4
    seed: Annotated[int, Meta(description="Of generated text and of training.")] = 0
    kl: Annotated[
        Annotated[float, Meta(gt=0, le=10)] | None,
        Meta(description="Divergence from the source in nats beyond which the result is refused; else by precision."),
    ] = None
    python: Annotated[
        str | None, Meta(description="FP8 and W4A16: the Python of the environment that has llm-compressor.")
    ] = None


class Quantizer:
    """Write MODEL with fewer bits a weight. What it costs in quality is what `dockyard eval` measures."""

    name = "quantize"
    version = "1"
    params = QuantizeParams
    takes = (
        Takes(role="base", help="The model: GGUF or safetensors, best in half floats.", required=True),
        Takes(role="calibration", kind="file", help="Text (.txt) or JSONL to calibrate with; else generated."),
    )

    def predict(self, store: Store, inputs: Inputs, params: QuantizeParams) -> Cost:
        check(params)
        weights = parameters(model_files(store, inputs.artifacts[0].digest))
        spoken = len(parity.PROMPTS) * parity.POSITIONS * 24
        seconds = 20 + weights / 4e7 + 4 * forward_seconds(weights, spoken)
        memory, bits = PROCESS + 10 * weights, BITS[_precision(params.to)]
        looked_at = params.samples * params.tokens
        if params.to == "openvino-int4-awq":
            seconds += 20 * forward_seconds(weights, looked_at) + weights / 3e6
            memory += 4 * weights
        elif params.to == "openvino-int4-qat":
            seconds += 4 * params.steps * forward_seconds(weights, 4 * params.tokens)
            memory += 14 * weights
        notes = () if params.to not in ("fp8", "w4a16") else ("wants a GPU and an environment with llm-compressor",)
        return Cost(memory=memory, disk=int(weights * (bits / 8 + 2)), seconds=seconds, notes=notes)

    def run(self, job: Job, params: QuantizeParams) -> Entry:
        check(params)
        digest = job.artifact("base")
        files = model_files(job.store, digest)
        if params.to not in CALIBRATED and job.file("calibration") is not None:
            raise InvalidRequest(f"{params.to} looks at no text", param="calibration", hint="leave it out")
        if files.format not in ("gguf", "safetensors"):
            raise UnsupportedFormat(
                f"{files.reference} is {files.format}, and quantising starts from GGUF or safetensors",
                hint=floats_hint(job.store, digest),
            )
        if params.to in ("fp8", "w4a16"):
            return _for_gpu(job, params, digest)
        if params.to == "openvino-int4-qat":
            check_installed()
        job.note(f"asking {files.reference} in the runtime of {files.format}")
        before = speaker(files)
        said, runtime = parity.listen(before), before.runtime
        before.close()
        job.note(f"opening {files.reference}")
        made = _write(job, params, open_checkpoint(job.store, digest))
        precision = _precision(params.to)
        least = limits_of(files)
        limits = msgspec.structs.replace(least, kl=params.kl or max(least.kl, LIMITS.get(precision, 1.0)))
        if precision != "f16":
            own: dict[str, Any] = {"prefix": 4} if precision in LIMITS else {"prefix": 0, **BROKEN}
            limits = msgspec.structs.replace(limits, tie=0.5, **own)
        return gate_and_save(job, made, said, runtime, limits, what=f"{params.to} of {files.reference}")


PLUGIN = Quantizer()


def check(params: QuantizeParams) -> None:
    """Raise InvalidRequest for a parameter that would do nothing."""
    unused = [name for name in given(params) if name not in ("to", *USED.get(params.to, ("kl",)))]
    refuse_unused(params, unused, f"is {params.to}")


def _write(job: Job, params: QuantizeParams, checkpoint: Checkpoint) -> dict[str, Path]:
    folder = job.work / params.to
    folder.mkdir(exist_ok=True)

    def seen(done: int, total: int) -> None:
        job.step("tensors", done, total)

    if params.to.startswith("gguf-"):
        write_gguf(checkpoint, folder / "model.gguf", _precision(params.to).upper(), seen=seen)
        return inside(folder)
    runs: list[list[int]] = []
    if params.to in CALIBRATED:
        runs = calibration(job, checkpoint, samples=params.samples, tokens=params.tokens, seed=params.seed)
    write_ir(checkpoint, folder, seen=seen)
    if params.to == "openvino-int4-qat":
        train_and_write(job, params, checkpoint, runs, folder)
    elif params.to != "openvino-f16":
        compress_ir(job, params, runs, folder)
    return inside(folder)


def _for_gpu(job: Job, params: QuantizeParams, digest: str) -> Entry:
    python = find_python(job, params.python)
    checkpoint = open_checkpoint(job.store, digest, dtype="bfloat16")
    runs: list[list[int]] = []
    if params.to in CALIBRATED:
        runs = calibration(job, checkpoint, samples=params.samples, tokens=params.tokens, seed=params.seed)
    source, target = job.work / "source", job.work / params.to
    write_folder(checkpoint.model, checkpoint.tokenizer, source)
    compress(job, python, params.to, runs, source, target)
    job.note("no parity was checked: no engine on this machine serves this format")
    return save_files(job, inside(target))


def _precision(to: str) -> str:
    words = to.partition("-")[2].partition("-")[0]
    return words or ("q8_0" if to == "fp8" else "int4")
