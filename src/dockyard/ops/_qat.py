"""QAT-LoRA: INT4 weights trained with low-rank adapters inside their quantisers (NNCF's FQ_LORA), then put into IR as
they are. The four-bit numbers that were trained are those that are served; nothing is rounded again.

The loss is the divergence from the model before quantisation on the same text, so that no labels are needed.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dockyard.engines._openvino_graph import PREFIX, SUFFIX
from dockyard.errors import EngineUnavailable, LoadFailed
from dockyard.ops import Job
from dockyard.ops._checkpoint import Checkpoint
from dockyard.ops._libraries import library, threads

BATCH = 4
_WEIGHT = re.compile(r"(?:^|[^\w])(model[.:]layers[.:]\d+[.:][\w.:]+?)[.:]weight")


def check_installed() -> None:
    """Raise EngineUnavailable without torchao: NNCF asks for it when all is trained, and does not bring it."""
    if find_spec("torchao") is None:
        raise EngineUnavailable("QAT-LoRA needs torchao, which is not installed", hint="pip install torchao")


def train_and_write(job: Job, params: Any, checkpoint: Checkpoint, runs: Sequence[Sequence[int]], folder: Path) -> None:
    """Train on the runs, all of one length, and replace the matrices of the IR in ``folder``."""
    import numpy as np

    openvino, nncf = library("openvino"), library("nncf")
    with threads(checkpoint.model), _operations(job):
        trained = train(job, params, checkpoint, runs)
    graph = openvino.Core().read_model(folder / "openvino_model.xml")
    nodes = {
        node.get_friendly_name().removeprefix(PREFIX).removesuffix(SUFFIX): node
        for node in graph.get_ordered_ops()
        if node.get_type_name() == "MatMul" and node.get_friendly_name().startswith(PREFIX)
    }
    count = 0
    for module, codes, scale, zero in _quantised(trained):
        node = nodes.get(module)
        if node is None:
            raise LoadFailed(f"the graph has no matrix for {module}")
        node.input(1).replace_source_output(_decompression(openvino, np, codes, scale, zero))
        count += 1
    if count == 0:
        raise LoadFailed("NNCF left no matrix with four bits")
    job.note(f"{count} matrices with the trained four-bit numbers")
    made = nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT8_ASYM)  # what is left: the embeddings
    part = folder / "openvino_model.part.xml"
    openvino.save_model(made, part, compress_to_fp16=False)
    del graph, made
    for suffix in (".xml", ".bin"):
        part.with_suffix(suffix).replace(folder / f"openvino_model{suffix}")


def train(job: Job, params: Any, checkpoint: Checkpoint, runs: Sequence[Sequence[int]]) -> Any:
    """The model with its weights in four bits after ``params.steps`` steps; deterministic by ``params.seed``."""
    torch, nncf = library("torch"), library("nncf")
    from nncf.quantization.advanced_parameters import AdvancedCompressionParameters
    from nncf.torch.quantization.layers import AsymmetricLoraQuantizer, SymmetricLoraQuantizer

    torch.manual_seed(params.seed)
    model = checkpoint.model
    model.config.use_cache = False
    ids = torch.tensor([list(run) for run in runs])
    with torch.inference_mode():
        teacher = [torch.log_softmax(model(input_ids=row[None]).logits[0].float(), -1).half() for row in ids]
    quantised = nncf.compress_weights(
        model,
        mode=nncf.CompressWeightsMode.INT4_SYM if params.symmetric else nncf.CompressWeightsMode.INT4_ASYM,
        group_size=params.group_size,
        dataset=nncf.Dataset([{"input_ids": ids[:1], "attention_mask": torch.ones_like(ids[:1])}]),
        compression_format=nncf.CompressionFormat.FQ_LORA,
        advanced_parameters=AdvancedCompressionParameters(lora_adapter_rank=params.rank),
    )
    for values in quantised.parameters():
        values.requires_grad_(False)
    for module in quantised.modules():
        if isinstance(module, AsymmetricLoraQuantizer | SymmetricLoraQuantizer) and module.num_bits == 4:
            module.enable_gradients()
    learning = [values for values in quantised.parameters() if values.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=params.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, params.steps)
    quantised.train()
    order: list[int] = []
    first = last = 0.0
    for step in range(params.steps):
        if len(order) < BATCH:
            order += torch.randperm(len(ids)).tolist()
        chosen, order = order[:BATCH], order[BATCH:]
        logits = quantised(input_ids=ids[chosen]).logits.float()
        wanted = torch.stack([teacher[each] for each in chosen]).float()
        loss = torch.nn.functional.kl_div(
            torch.log_softmax(logits, -1).flatten(0, 1), wanted.flatten(0, 1), log_target=True, reduction="batchmean"
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        schedule.step()
        last = float(loss.detach())
        first = first or last
        job.step("QAT-LoRA", step + 1, params.steps)
    job.note(f"divergence from the model in floats: {first:.4f} nats before, {last:.4f} after {params.steps} steps")
    return nncf.strip(quantised.eval(), do_copy=False, strip_format=nncf.StripFormat.DQ)


@contextlib.contextmanager
def _operations(job: Job) -> Iterator[None]:
    """Inside it NNCF has its compiled operations, or, without a compiler, torch's, more slowly.

    NNCF would have torch compile the latter at their first call, which needs the compiler that is not there.
    """
    torch = library("torch")
    from nncf.torch.quantization.extensions import QuantizedFunctionsCPU, ReferenceQuantizedFunctions

    if QuantizedFunctionsCPU._loaded_namespace is None:
        job.note("NNCF builds its extension the first time, which takes a minute or two")
        _build_extension()
    plain = QuantizedFunctionsCPU._loaded_namespace is ReferenceQuantizedFunctions
    with torch.compiler.set_stance("force_eager") if plain else contextlib.nullcontext():
        yield


def _build_extension() -> None:
    """Compile NNCF's operations, or load what was compiled.

    A build that was killed leaves a file that the next one waits for until it gives up. Under a lock that ends with its
    holder, such a file is nobody's. NNCF would load it in a pool of threads that it leaves open.
    """
    from filelock import FileLock
    from nncf.torch.quantization.extensions import QuantizedFunctionsCPU, QuantizedFunctionsCPULoader

    folder = Path(QuantizedFunctionsCPULoader.get_build_dir())
    with FileLock(str(folder.with_name(f"{folder.name}.lock"))):
        (folder / "lock").unlink(missing_ok=True)
        QuantizedFunctionsCPU._loaded_namespace = QuantizedFunctionsCPULoader.load()


def _quantised(model: Any) -> Iterator[tuple[str, Any, Any, Any]]:
    """Module name, codes (uint8 of four bits, or int8 where symmetric) and scale of each matrix with four bits, and its
    zero points or None; codes have the shape [rows, groups, size of a group]."""
    from nncf.torch.function_hook import get_hook_storage
    from nncf.torch.quantization import layers
    from nncf.torch.quantization.quantize_functions import unpack_int4, unpack_uint4

    state = dict(model.named_parameters())
    for name, hook in get_hook_storage(model).named_hooks():
        asymmetric = isinstance(hook, layers.INT4AsymmetricWeightsDecompressor)
        if not asymmetric and not isinstance(hook, layers.INT4SymmetricWeightsDecompressor):
            continue
        match = _WEIGHT.search(name)
        if match is None:
            raise LoadFailed(f"NNCF names a matrix {name}, which is not understood here")
        module = match[1].replace(":", ".")
        unpack = unpack_uint4 if asymmetric else unpack_int4
        codes = unpack(state[f"{module}.weight"]).reshape(hook.compressed_weight_shape).numpy()
        zero = unpack_uint4(hook._zero_point).reshape(hook.zero_point_shape).numpy() if asymmetric else None
        yield module, codes, hook._scale.numpy(), zero


def _decompression(openvino: Any, np: Any, codes: Any, scale: Any, zero: Any) -> Any:
    """(codes − zero points) · scale, as a part of a graph that plugins of OpenVINO compute with four-bit kernels."""
    opset = openvino.opset13
    kind = openvino.Type.u4 if zero is not None else openvino.Type.i4
    found = opset.convert(_packed(openvino, np, codes, kind), "f16")
    if zero is not None:
        found = opset.subtract(found, opset.convert(_packed(openvino, np, zero, kind), "f16"))
    found = opset.multiply(found, opset.constant(scale.astype(np.float16)))
    found = opset.reshape(found, opset.constant(np.array([codes.shape[0], -1], np.int64)), special_zero=False)
    return opset.convert(found, "f32").output(0)


def _packed(openvino: Any, np: Any, values: Any, kind: Any) -> Any:
    pairs = (values.astype(np.int16) & 15).astype(np.uint8).reshape(-1, 2)
    data = np.ascontiguousarray(pairs[:, 0] | (pairs[:, 1] << 4))
    # Without a copy of its own the constant would keep looking at memory that is given back here.
    return openvino.op.Constant(openvino.Tensor(data, list(values.shape), kind), shared_memory=False)
