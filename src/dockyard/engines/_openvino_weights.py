"""Writes the weights of a graph again in a form that the CPU multiplies faster than the file's own.

OpenVINO's quick kernels for compressed weights want whole zero points. Blocks of Q4_1 and Q4_K have minima instead, and
with them as they are (see ``_openvino_graph``) every product first unpacks its matrix. So where a model is small, its
weights may be unpacked once, or rounded to eight bits, which is sixteen times finer than the four they had.
"""

from __future__ import annotations

from typing import Any, Literal

from dockyard.engines._openvino_graph import linear
from dockyard.errors import LoadFailed

Weights = Literal["file", "int8", "half"]
"""As in the file; eight bits in groups of one of ``GROUPS`` with one scale each, symmetric; or sixteen bits, float."""

GROUPS = (256, 192, 128, 64)
"""Weights that may share a scale: the most that a row is a multiple of, else a row has one scale."""

ROUNDED_TOGETHER = 64
"""Activations that share a factor before such weights, where they are rounded: in larger groups answers change."""


def rewrite(model: Any, weights: Weights) -> int:
    """Give each linear layer, the output layer included, its matrix in this form; how many were changed.

    The nodes keep their names. What else reads a matrix, such as an embedding that shares it, keeps the old one.
    """
    if weights == "file":
        return 0
    form = _half if weights == "half" else _int8
    nodes = [node for node in model.get_ordered_ops() if linear(node) and node.get_attributes()["transpose_b"]]
    for node in nodes:
        value = node.input_value(1)
        node.input(1).replace_source_output(form(_values(value), value.get_element_type()))
    return len(nodes)


def _values(output: Any) -> Any:
    """What a constant part of a graph comes to, float32."""
    import numpy as np

    node = output.get_node()
    kind = node.get_type_name()
    if kind == "Constant":
        return node.get_data(dtype=np.float32)
    inputs = [_values(value) for value in node.input_values()]
    match kind:
        case "Convert":
            return inputs[0]
        case "Subtract":
            return inputs[0] - inputs[1]
        case "Multiply":
            return inputs[0] * inputs[1]
        case "Reshape":
            return inputs[0].reshape(tuple(output.get_shape()))
        case _:
            raise LoadFailed(f"weights that are made by {kind} can't be written again", hint="leave out flag weights")


def _half(values: Any, kind: Any) -> Any:
    import numpy as np
    from openvino import opset13

    return opset13.convert(opset13.constant(values.astype(np.float16)), kind).output(0)


def _int8(values: Any, kind: Any) -> Any:
    import numpy as np
    from openvino import opset13

    rows, columns = values.shape
    size = next((size for size in GROUPS if columns % size == 0), columns)
    grouped = size < columns
    groups = values.reshape(rows, -1, size) if grouped else values
    scales = np.abs(groups).max(-1, keepdims=True) / 127
    scales = np.where(scales == 0, 1, scales).astype(np.float16)
    rounded = np.clip(np.rint(groups / scales.astype(np.float32)), -127, 127).astype(np.int8)
    whole = opset13.multiply(opset13.convert(opset13.constant(rounded), "f16"), opset13.constant(scales))
    if grouped:
        whole = opset13.reshape(whole, opset13.constant(np.array(values.shape, np.int64)), False)
    return opset13.convert(whole, kind).output(0)
