"""GGUF to OpenVINO IR, once for a model and a version of the engine: ``python -m dockyard.engines._openvino_convert``.

It runs in a process of its own, since a conversion takes memory that nobody would get back. A folder in the cache is
complete or not there: it is filled under another name, and renamed when all of it is on the disk.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from dockyard.artifact.formats import read_facts
from dockyard.artifact.formats.gguf import matrices
from dockyard.engines._openvino_graph import ROTATED, TENSORS, Block, exact_zero_points, name_modules, turn
from dockyard.engines._openvino_weights import Weights, rewrite
from dockyard.errors import LoadFailed
from dockyard.types import ModelFiles

REVISION = 1
"""Of what is done to the graph here: another number converts anew."""


def cached(files: ModelFiles, cache: Path, weights: Weights = "file") -> Path:
    """The folder with the IR of a GGUF model; converts it where it is not there yet. Raises LoadFailed."""
    from filelock import FileLock

    kind = "" if weights == "file" else f"-{weights}"
    name = f"{files.digest.replace(':', '-')}-{version('openvino-genai')}-{REVISION}{kind}"
    target = cache / name
    if target.is_dir():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{name}.lock"):
        if target.is_dir():
            return target
        for left in cache.glob(f"{name}.tmp-*"):  # of a conversion that was killed: nobody else is here now
            shutil.rmtree(left, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(prefix=f"{name}.tmp-", dir=cache))
        try:
            _in_child(Path(files.weights[0]), fresh, weights)
            fresh.rename(target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return target


def _in_child(source: Path, target: Path, weights: Weights) -> None:
    program = [sys.executable, "-P", "-m", "dockyard.engines._openvino_convert"]
    done = subprocess.run(
        [*program, str(source), str(target), str(os.getpid()), weights],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    sys.stderr.write(done.stdout)
    if done.returncode:
        said = [line.strip() for line in done.stdout.splitlines() if line.strip()]
        raise LoadFailed(
            f"{source.name} can't be converted to OpenVINO IR: {said[-1] if said else f'status {done.returncode}'}",
            hint="the worker's log has details; the llamacpp engine may serve this file",
        )


def convert(source: Path, target: Path, weights: Weights = "file") -> None:
    """Write the IR of the model, of its tokenizer and of its detokenizer into the empty folder ``target``."""
    import openvino
    import openvino_genai
    import openvino_tokenizers

    with tempfile.TemporaryDirectory(prefix="raw-", dir=target) as folder:
        raw = Path(folder)
        (raw / "model.gguf").symlink_to(source.resolve())
        # Reader and writer are one constructor of GenAI's. It saves before it compiles, and there is no device to
        # compile for, so that time and memory for that are saved.
        with contextlib.suppress(RuntimeError):
            openvino_genai.LLMPipeline(raw / "model.gguf", "NONE", enable_save_ov_model=True)
        graphs = ("openvino_model", "openvino_tokenizer", "openvino_detokenizer")
        if any(not (raw / f"{name}.xml").is_file() for name in graphs):
            openvino_genai.Tokenizer(raw / "model.gguf")  # says what is wrong with the file, if it is that
            raise LoadFailed("OpenVINO GenAI did not read the file")
        core = openvino.Core()
        core.add_extension(str(openvino_tokenizers._ext_path))
        for name in graphs:
            model = core.read_model(raw / f"{name}.xml")
            if name == "openvino_model":
                _mend(model, source)
                rewrite(model, weights)
            elif name == "openvino_tokenizer":
                _unlimit(model)
            openvino.save_model(model, target / f"{name}.xml", compress_to_fp16=False)


def _mend(model: Any, source: Path) -> None:
    tensors, head_size, rotated = _blocks(source)
    for name, node in name_modules(model).items():
        _, _, layer, module = name.split(".", 3)
        read = tensors.get(f"blk.{layer}.{TENSORS[module]}.weight")
        if read is None:
            continue
        block = read()
        if rotated and module in ROTATED:
            block = (turn(block[0], head_size), turn(block[1], head_size))
        exact_zero_points(node, block)


def _unlimit(model: Any) -> None:
    """GenAI's tokenizer of a GGUF file cuts a text to its last 8,192 tokens and says nothing; let it take them all."""
    import numpy as np

    for node in model.get_ordered_ops():
        if node.get_type_name() == "Constant" and node.get_element_type().get_type_name() == "i32":
            users = [user.get_node().get_type_name() for user in node.output(0).get_target_inputs()]
            if users == ["Minimum"] and node.data.size == 1 and int(node.data.reshape(-1)[0]) == 8192:
                from openvino import opset13

                wide = opset13.constant(np.array((1 << 31) - 1, dtype=np.int32))
                node.output(0).replace(wide.output(0))
                return
    raise LoadFailed("OpenVINO GenAI builds another tokenizer from GGUF than the one that is known here")


def _blocks(source: Path) -> tuple[dict[str, partial[Block]], int, bool]:
    """For each matrix with minima a function that reads its scales and minima; the size of a head; whether rows of
    queries and keys are in llama.cpp's order."""
    facts = read_facts([source])
    found = {
        name: partial(_read, source, tensor, offset)
        for name, (tensor, offset) in matrices(source).items()
        if tensor.dtype in _READERS
    }
    return found, facts.head_size or 0, facts.architecture == "llama"


def _read(source: Path, tensor: Any, offset: int) -> Block:
    import numpy as np

    raw = np.memmap(source, np.uint8, "r", offset, (tensor.size,))
    return _READERS[tensor.dtype](raw.reshape(tensor.shape[1], -1))


def _q4_1(raw: Any) -> Block:
    import numpy as np

    head = np.ascontiguousarray(raw.reshape(raw.shape[0], -1, 20)[..., :4]).view(np.float16).astype(np.float32)
    return head[..., 0], head[..., 1]


def _q4_k(raw: Any) -> Block:
    """Eight blocks of 32 in a super-block: scales and minima of six bits each, in units of two halves."""
    import numpy as np

    blocks = raw.reshape(raw.shape[0], -1, 144)
    units = np.ascontiguousarray(blocks[..., :4]).view(np.float16).astype(np.float32)
    packed = blocks[..., 4:16]
    low, high, last = packed[..., :4], packed[..., 4:8], packed[..., 8:]
    scales = np.concatenate((low & 63, (last & 15) | ((low >> 6) << 4)), -1).astype(np.float32) * units[..., :1]
    minima = np.concatenate((high & 63, (last >> 4) | ((high >> 6) << 4)), -1).astype(np.float32) * units[..., 1:]
    rows = raw.shape[0]
    return scales.reshape(rows, -1), -minima.reshape(rows, -1)


_READERS = {"Q4_1": _q4_1, "Q4_K": _q4_k}


def main(arguments: list[str]) -> int:
    from dockyard.engines._process import die_with_parent

    die_with_parent(int(arguments[2]))
    try:
        convert(Path(arguments[0]), Path(arguments[1]), msgspec.convert(arguments[3], Weights))
    except LoadFailed as error:
        print(error.message, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
