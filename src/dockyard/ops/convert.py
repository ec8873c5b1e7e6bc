"""Conversion between formats: GGUF, safetensors, OpenVINO IR, ONNX; and a PEFT adapter to llama.cpp's GGUF.

Precision stays what it is where the other format has it; else weights become half floats, from which ``quantize`` goes
on. Every conversion passes the parity gate (``ops.parity``): the result answers as the source did, in the runtime that
serves it, or nothing is stored.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from dockyard.artifact.formats import read_facts
from dockyard.artifact.materialize import model_files
from dockyard.artifact.store import Entry, Store
from dockyard.engines._llama_adapters import as_gguf
from dockyard.errors import EngineUnavailable, InvalidRequest, LoadFailed, UnsupportedFormat
from dockyard.ops import Inputs, Job, Params, Takes, parity, refuse_unused
from dockyard.ops._checkpoint import (
    Checkpoint,
    Dtype,
    open_files,
    parameters,
    save_files,
    write_folder,
    write_tokenizer,
)
from dockyard.ops._gguf_write import write_gguf
from dockyard.ops._ir import ir_of_gguf, open_ir, readable, write_ir
from dockyard.ops._libraries import INSTALL, library
from dockyard.ops._speakers import speaker
from dockyard.ops.planning import PROCESS, Cost, forward_seconds
from dockyard.types import Adapter, ModelFiles

Target = Literal["gguf", "safetensors", "openvino", "onnx"]
FLOATS: dict[str, Dtype] = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class ConvertParams(Params, frozen=True):
    """What to convert to."""

    to: Annotated[Target, Meta(description="The format to write.")]
    precision: Annotated[
        Literal["F16", "F32"], Meta(description="Floats to write where the source's own precision can't be kept.")
    ] = "F16"
    kl: Annotated[
        Annotated[float, Meta(gt=0, le=10)] | None,
        Meta(
            description="Divergence from the source in nats beyond which the result is refused; else 0.01, or 0.03 "
            "where llama.cpp computes with quantised weights."
        ),
    ] = None


class Converter:
    """Write MODEL in another format: the same weights, tokenizer and chat template, checked to answer the same."""

    name = "convert"
    version = "1"
    params = ConvertParams
    takes = (
        Takes(role="base", help="The model, or the PEFT adapter, to convert.", required=True),
        Takes(role="of", help="For an adapter: the model that it was trained on."),
    )

    def predict(self, store: Store, inputs: Inputs, params: ConvertParams) -> Cost:
        files = model_files(store, inputs.artifacts[0].digest)
        if files.format == "peft":
            return Cost(memory=64 << 20, disk=files.facts.weight_bytes, seconds=1.0)
        weights = parameters(files)
        width = 4 if params.precision == "F32" else 2
        spoken = len(parity.PROMPTS) * parity.POSITIONS
        return Cost(
            memory=PROCESS + 10 * weights,
            disk=2 * width * weights,
            seconds=20 + weights / 4e7 + 4 * forward_seconds(weights, spoken * 24),
        )

    def run(self, job: Job, params: ConvertParams) -> Entry:
        files = model_files(job.store, job.artifact("base"))
        if files.format == "peft":
            return _adapter(job, files, params)
        if job.artifacts("of"):
            raise InvalidRequest("`of` is the base of an adapter, and this is a model", param="of", hint="leave it out")
        if files.format == params.to:
            raise InvalidRequest(
                f"{files.reference} is {params.to} already", param="to", hint="`dockyard quantize` changes precision"
            )
        if params.to == "openvino" and params.precision == "F32":
            raise InvalidRequest(
                "OpenVINO IR is written in half floats", param="precision", hint="GenAI reads no full floats of a model"
            )
        job.note(f"asking {files.reference} in the runtime of {files.format}")
        before = speaker(files)
        said, runtime = parity.listen(before), before.runtime
        before.close()
        made = write(job, files, params)
        limits = limits_of(files)
        if params.kl is not None:
            limits = msgspec.structs.replace(limits, kl=params.kl)
        return gate_and_save(job, made, said, runtime, limits)


PLUGIN = Converter()


def limits_of(files: ModelFiles) -> parity.Limits:
    """What may differ when these files are compared with others of the same weights."""
    floats = files.format != "gguf" or files.facts.quantization in FLOATS
    return parity.EXACT if floats else parity.ROUNDED


def gate_and_save(
    job: Job, made: dict[str, Path], said: list[parity.Said], runtime: str, limits: parity.Limits, *, what: str = ""
) -> Entry:
    """Let written files through the gate, store them, and attach the figures. Raises ParityMismatch."""
    found = measure(made, said, runtime, limits)
    job.note(f"parity with {found.reference}: {found.kl:.4f} nats, {found.prefix} of {found.positions} greedy tokens")
    parity.require(found, what or f"the {found.candidate} model")
    entry = save_files(job, made)
    parity.record(job.store, entry.descriptor.digest, found)
    return entry


def measure(made: dict[str, Path], said: list[parity.Said], runtime: str, limits: parity.Limits) -> parity.Parity:
    """Ask written files what their original was asked."""
    after = speaker(_laid(made))
    try:
        return parity.compare(said, runtime, after, limits)
    finally:
        after.close()


def write(job: Job, files: ModelFiles, params: ConvertParams) -> dict[str, Path]:
    """Write the model in its new format below the job's folder; the files by their path in the artifact."""
    folder = job.work / params.to
    if params.to == "openvino" and readable(files):
        job.note("converting with its precision")
        ir_of_gguf(files, folder)
        return inside(folder)
    job.note(f"opening {files.reference}")
    checkpoint = open_ir(files) if files.format == "openvino" else open_files(files)
    return write_checkpoint(checkpoint, folder, params.to, params.precision, _seen(job))


def write_checkpoint(
    checkpoint: Checkpoint, folder: Path, to: Target, precision: str, seen: Callable[[int, int], None] | None = None
) -> dict[str, Path]:
    """Write a model in memory in a format, in floats."""
    if to == "safetensors":
        checkpoint.model.to(getattr(library("torch"), FLOATS[precision]))
        return write_folder(checkpoint.model, checkpoint.tokenizer, folder)
    folder.mkdir(parents=True, exist_ok=True)
    if to == "gguf":
        write_gguf(checkpoint, folder / "model.gguf", precision, seen=seen)
    elif to == "openvino":
        write_ir(checkpoint, folder, seen=seen)
    else:
        _write_onnx(checkpoint, folder)
    return inside(folder)


def inside(folder: Path) -> dict[str, Path]:
    """All files of a folder by their names."""
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}


def _seen(job: Job) -> Callable[[int, int], None]:
    return lambda done, total: job.step("tensors", done, total)


def _laid(made: dict[str, Path]) -> ModelFiles:
    """Written files as an engine would get them."""
    from dockyard.artifact.formats import weight_files

    found, weights = weight_files(list(made.values()))
    return ModelFiles(
        reference="what was made",
        digest="",
        directory=str(weights[0].parent),
        format=found,
        weights=tuple(map(str, weights)),
        facts=read_facts(list(made.values())),
    )


def _write_onnx(checkpoint: Checkpoint, folder: Path) -> None:
    """By onnxruntime-genai's builder, in a process of its own: it takes a folder and much memory."""
    if not _installed("onnxruntime_genai") or not _installed("onnx_ir"):
        raise EngineUnavailable("onnxruntime-genai's builder is not installed", hint=INSTALL)
    source = folder.with_name("onnx-source")
    checkpoint.model.to(library("torch").float32)
    write_folder(checkpoint.model, checkpoint.tokenizer, source)
    command = [
        sys.executable, "-m", "onnxruntime_genai.models.builder", "-m", str(source), "-i", str(source), "-o",
        str(folder), "-p", "fp32", "-e", "cpu", "-c", str(folder.with_name("onnx-cache")),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        said = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        raise LoadFailed(f"the ONNX builder failed: {said[-1] if said else done.returncode}")
    write_tokenizer(checkpoint.tokenizer, folder)
    checkpoint.model.config.save_pretrained(folder)


def _installed(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


def _adapter(job: Job, files: ModelFiles, params: ConvertParams) -> Entry:
    if params.to != "gguf":
        raise UnsupportedFormat(
            "a PEFT adapter becomes GGUF, and nothing else", hint="OpenVINO takes it as it is; or `dockyard merge` it"
        )
    refuse_unused(params, ("precision", "kl"), "is an adapter")
    if not job.artifacts("of"):
        raise InvalidRequest(
            "an adapter becomes GGUF beside its base", param="of", hint="`--of MODEL` says what it was trained on"
        )
    base = model_files(job.store, job.artifact("of"))
    adapter = Adapter(name=files.reference, path=files.directory, digest=files.digest)
    path = Path(as_gguf(adapter, base, job.work))
    target = path.rename(job.work / "lora.gguf")
    facts = msgspec.to_builtins(read_facts([target]))
    job.note(f"rank {facts.get('adapter_rank')}, alpha {facts.get('adapter_alpha')}")
    return save_files(job, {"lora.gguf": target})
