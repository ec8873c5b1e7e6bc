"""Names the nodes of a graph made from GGUF as PEFT names modules, and makes its zero points exact.

OpenVINO GenAI builds the graph of a GGUF file with numbers for names, so that no adapter finds its place in it; and it
rounds the minimum of each block of Q4_1 and Q4_K weights to a multiple of the block's scale, which costs accuracy.
Both are mended here, on the saved graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from dockyard.errors import LoadFailed

PREFIX = "__module."
SUFFIX = "/ov_ext::linear/MatMul"

ATTENTION = ("q_proj", "k_proj", "v_proj")
TENSORS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
"""The linear layers by PEFT's names, and what GGUF calls their tensors."""

ROTATED = ("self_attn.q_proj", "self_attn.k_proj")
"""Modules whose rows llama.cpp's converter reorders for architecture llama."""

Block = tuple[Any, Any]
"""Scales and minima of a matrix's blocks, float32, shape [rows, blocks of a row]."""


def modules(model: Any) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of each linear layer that bears a name of PEFT's, in a graph from whatever converter."""
    found = {}
    for node in model.get_ordered_ops():
        name = node.get_friendly_name()
        if node.get_type_name() != "MatMul" or not name.startswith(PREFIX) or not linear(node):
            continue
        rows, columns = (int(size.get_length()) for size in node.input_value(1).get_partial_shape())
        turned = bool(node.get_attributes()["transpose_b"])
        found[name.removeprefix(PREFIX).partition("/")[0]] = (columns, rows) if turned else (rows, columns)
    return found


def name_modules(model: Any) -> dict[str, Any]:
    """Give each linear layer's MatMul the name that GenAI looks for; returns the nodes by PEFT's module name.

    Raises LoadFailed where the graph is not the one that this was written for.
    """
    nodes = {node.get_friendly_name(): node for node in model.get_ordered_ops()}
    found: dict[str, Any] = {}
    layer = 0
    try:
        while f"model.layers.self_attn.add0.layer{layer}" in nodes:
            for module, node in _layer(layer, nodes):
                found[f"model.layers.{layer}.{module}"] = node
            layer += 1
    except (KeyError, StopIteration) as error:
        raise _unknown(f"layer {layer}") from error
    if len({node.get_friendly_name() for node in found.values()}) != max(1, layer * len(TENSORS)):
        raise _unknown("its linear layers")
    for name, node in found.items():
        node.set_friendly_name(f"{PREFIX}{name}{SUFFIX}")
    return found


def exact_zero_points(node: Any, block: Block) -> None:
    """Replace the rounded zero points of a matrix by what the file's minima are in units of its scales.

    ``block`` must be the matrix's own: the scales are compared. Raises LoadFailed.
    """
    import numpy as np
    from openvino import opset13

    multiply = next(_above(node.input_value(1).get_node(), lambda each: each.get_type_name() == "Multiply"))
    subtract = multiply.input_value(0).get_node()
    scales = multiply.input_value(1).get_node()
    if subtract.get_type_name() != "Subtract" or scales.get_type_name() != "Constant":
        raise _unknown(node.get_friendly_name())
    delta, least = block
    if not np.array_equal(scales.data.reshape(delta.shape), delta.astype(np.float16)):
        raise _unknown(f"the weights of {node.get_friendly_name()}")
    zero = np.where(delta == 0, 0, -least / np.where(delta == 0, 1, delta)).astype(np.float16)
    constant = opset13.constant(zero.reshape(scales.data.shape))
    subtract.input(1).replace_source_output(constant.output(0))


def turn(values: Any, head_size: int) -> Any:
    """Rows as llama.cpp orders them for its rotary embedding, put back as transformers has them."""
    heads = values.shape[0] // head_size
    return values.reshape(heads, head_size // 2, 2, -1).swapaxes(1, 2).reshape(values.shape)


def _layer(layer: int, nodes: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    output = next(_above(nodes[f"model.layers.self_attn.add0.layer{layer}"], linear))
    attention = next(_above(output, lambda node: node.get_type_name() == "ScaledDotProductAttention"))
    for index, name in enumerate(ATTENTION):
        yield f"self_attn.{name}", next(_above(attention.input_value(index).get_node(), linear))
    yield "self_attn.o_proj", output
    product = nodes[f"model.layers.self_attn.mlp.mul.layer{layer}"]
    gate, up = sorted((value.get_node() for value in product.input_values()), key=linear)
    yield "mlp.gate_proj", next(_above(gate, linear))
    yield "mlp.up_proj", up
    yield "mlp.down_proj", next(_above(nodes[f"model.layers.self_attn.add1.layer{layer}"], linear))


def _above(node: Any, wanted: Callable[[Any], bool]) -> Iterator[Any]:
    """Nodes that feed into ``node`` and are ``wanted``, nearest first; what lies above one of them is not looked at."""
    seen = {node.get_friendly_name()}
    level = [node]
    while level:
        parents = [value.get_node() for each in level for value in each.input_values()]
        level = []
        for parent in parents:
            if parent.get_friendly_name() in seen:
                continue
            seen.add(parent.get_friendly_name())
            if wanted(parent):
                yield parent
            else:
                level.append(parent)


def linear(node: Any) -> bool:
    """A product with a constant matrix, which may be compressed."""
    if node.get_type_name() != "MatMul":
        return False
    weight = node.input_value(1)
    if weight.get_partial_shape().rank.get_length() != 2:
        return False
    found = weight.get_node()
    while found.get_type_name() in ("Convert", "Reshape", "Multiply", "Subtract"):
        found = found.input_value(0).get_node()
    return bool(found.get_type_name() == "Constant")


def _unknown(what: str) -> LoadFailed:
    return LoadFailed(
        f"OpenVINO GenAI builds another graph from GGUF than the one that is known here: {what}",
        hint="use the llamacpp engine for this model",
    )
