"""OpenVINO IR from models of the store, and floats back out of it.

The graph is GenAI's own, which it builds from a GGUF file of the same weights; so what is written here loads, batches
and takes adapters as what the openvino engine converts for itself. The tokenizer comes as graphs beside it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from dockyard.engines._openvino_convert import convert
from dockyard.engines._openvino_graph import PREFIX, SUFFIX
from dockyard.engines._openvino_plan import ARCHITECTURES, TOKENIZERS, TYPES
from dockyard.errors import LoadFailed, UnsupportedFormat
from dockyard.ops._checkpoint import Checkpoint, open_tokenizer, write_tokenizer
from dockyard.ops._gguf_read import read_gguf
from dockyard.ops._gguf_write import OnTensor, write_gguf
from dockyard.ops._libraries import library
from dockyard.types import ModelFiles

MODEL = "openvino_model.xml"


def readable(files: ModelFiles) -> bool:
    """Whether GenAI reads this GGUF as it is, so that its quantisation is kept."""
    if files.format != "gguf" or len(files.weights) > 1 or files.facts.architecture not in ARCHITECTURES:
        return False
    kinds = {tensor.dtype for tensor in read_gguf(Path(files.weights[0])).tensors.values() if len(tensor.shape) > 1}
    return kinds <= TYPES and files.facts.tokenizer in TOKENIZERS


def ir_of_gguf(files: ModelFiles, folder: Path) -> None:
    """IR of a GGUF file that is ``readable``, in its own precision, into the empty ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    convert(Path(files.weights[0]), folder)
    write_configuration(files, folder)


def write_ir(checkpoint: Checkpoint, folder: Path, *, seen: OnTensor | None = None) -> None:
    """IR of a model in memory, with its tokenizer, into the empty ``folder``; weights in half floats.

    Raises UnsupportedFormat for families that GenAI does not build from GGUF.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".gguf-", dir=folder.parent) as scratch:
        path = Path(scratch) / "model.gguf"
        try:
            write_gguf(checkpoint, path, "F16", seen=seen, copy_tokenizer=True)
        except UnsupportedFormat as error:
            raise UnsupportedFormat(error.message, hint="only such models become OpenVINO IR here") from error
        convert(path, folder)
    checkpoint.model.config.architectures = [type(checkpoint.model).__name__]
    checkpoint.model.config.save_pretrained(folder)
    checkpoint.model.generation_config.save_pretrained(folder)
    write_tokenizer(checkpoint.tokenizer, folder)


def write_configuration(files: ModelFiles, folder: Path) -> None:
    """What lies beside the graph: dimensions, and the tokenizer as other tools read it."""
    from dockyard.ops._checkpoint import config_of

    config = config_of(read_gguf(Path(files.weights[0])))
    config.architectures = [f"{type(config).__name__.removesuffix('Config')}ForCausalLM"]
    config.save_pretrained(folder)
    write_tokenizer(open_tokenizer(files), folder)


def open_ir(files: ModelFiles) -> Checkpoint:
    """The floats that an IR's weights stand for, as a transformers model. Needs config.json beside the graph.

    Raises UnsupportedFormat where the graph's matrices do not bear PEFT's names of modules, or some are missing.
    """
    torch, transformers, openvino = library("torch"), library("transformers"), library("openvino")
    folder = Path(files.weights[0]).parent
    if not (folder / "config.json").is_file():
        raise UnsupportedFormat(
            f"{files.reference} has no config.json beside its graph", hint="it names the dimensions"
        )
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    graph = openvino.Core().read_model(folder / MODEL)
    state = {name: torch.from_numpy(values) for name, values in _state(graph, config, files.reference).items()}
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    lacking, strange = model.load_state_dict(state, strict=False)
    lacking = [name for name in lacking if not (name == "lm_head.weight" and config.tie_word_embeddings)]
    if lacking or strange:
        raise UnsupportedFormat(
            f"the graph of {files.reference} has not the parts of a {config.model_type}: {[*lacking, *strange][:3]}"
        )
    model.tie_weights()
    return Checkpoint(model.eval(), open_tokenizer(files), files)


def _state(graph: Any, config: Any, told: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    norms = []
    head = [config.vocab_size, config.hidden_size]
    for node in graph.get_ordered_ops():
        name, kind = node.get_friendly_name(), node.get_type_name()
        if kind == "MatMul" and (name.startswith(PREFIX) or _shape(node.input_value(1)) in (head, head[::-1])):
            values = evaluate(node.input_value(1))
            module = name.removeprefix(PREFIX).removesuffix(SUFFIX) if name.startswith(PREFIX) else "lm_head"
            found[f"{module}.weight"] = values if node.get_attributes()["transpose_b"] else values.T.copy()
        elif kind == "Gather" and _shape(node.input_value(0)) == head:
            found["model.embed_tokens.weight"] = evaluate(node.input_value(0))
        elif kind == "ReduceMean" and _wide(node.input_value(0), config.hidden_size):
            norms.append(_norm(node, config.hidden_size))
    if len(norms) != 2 * config.num_hidden_layers + 1:
        raise UnsupportedFormat(f"the graph of {told} is of another kind than is read here: {len(norms)} norms")
    for layer in range(config.num_hidden_layers):
        for place, name in enumerate(("input_layernorm", "post_attention_layernorm")):
            found[f"model.layers.{layer}.{name}.weight"] = norms[2 * layer + place]
    found["model.norm.weight"] = norms[-1]
    if "lm_head.weight" in found and config.tie_word_embeddings:
        del found["lm_head.weight"]
    return found


def _wide(output: Any, size: int) -> bool:
    """Whether a value is one of the stream of hidden states: [batch, tokens, size]."""
    shape = output.get_partial_shape()
    return shape.rank.is_static and len(shape) == 3 and shape[2].is_static and shape[2].get_length() == size


def _norm(mean: Any, size: int) -> Any:
    """The weights of the RMS norm whose mean of squares this node takes.

    The mean's root divides the hidden states, and a constant multiplies the quotient. A norm of nothing but ones has no
    such constant: OpenVINO leaves out what changes nothing.
    """
    import numpy as np

    node = mean
    while True:
        users = [port.get_node() for port in node.output(0).get_target_inputs()]
        if len(users) != 1 or users[0].get_type_name() not in ("Add", "Sqrt", "Power", "Divide", "Multiply"):
            return np.ones(size, np.float32)
        (node,) = users
        for value in node.input_values():
            if node.get_type_name() == "Multiply" and _shape(value)[-1:] == [size]:
                return evaluate(value).reshape(-1)


def _shape(output: Any) -> list[int]:
    """A shape; empty where it is not known before the graph is run."""
    shape = output.get_partial_shape()
    return [int(size.get_length()) for size in shape] if shape.is_static else []


def evaluate(output: Any) -> Any:
    """What a part of a graph without inputs computes, as float32."""
    import numpy as np

    openvino = library("openvino")
    try:
        result = openvino.opset13.result(output)
        compiled = openvino.Core().compile_model(
            openvino.Model([result], []), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        return np.asarray(compiled([])[0], dtype=np.float32).copy()
    except RuntimeError as error:
        raise LoadFailed(f"weights of the graph can't be computed: {str(error).splitlines()[-1]}") from error
