"""ONNX: the graph's inputs, outputs and initializers out of the protobuf, without a protobuf library.

Field numbers are those of onnx.proto (ModelProto, GraphProto, TensorProto, ValueInfoProto).
"""

from __future__ import annotations

import mmap
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from dockyard.artifact.formats import _beside, _configuration
from dockyard.artifact.formats._protobuf import BYTES, VARINT, Message
from dockyard.artifact.formats._tensors import Tensor, add_up, element_count
from dockyard.errors import TruncatedContent, UnsupportedFormat
from dockyard.types import Format, ModelFacts

MAX_ITEMS = 1 << 20
MAX_DIMENSIONS = 64

_TYPES = {
    1: ("F32", 32), 2: ("U8", 8), 3: ("I8", 8), 4: ("U16", 16), 5: ("I16", 16), 6: ("I32", 32), 7: ("I64", 64),
    8: ("STRING", 0), 9: ("BOOL", 8), 10: ("F16", 16), 11: ("F64", 64), 12: ("U32", 32), 13: ("U64", 64),
    14: ("C64", 64), 15: ("C128", 128), 16: ("BF16", 16), 17: ("F8_E4M3", 8), 18: ("F8_E4M3FNUZ", 8),
    19: ("F8_E5M2", 8), 20: ("F8_E5M2FNUZ", 8), 21: ("U4", 4), 22: ("INT4", 4), 23: ("F4", 4), 24: ("F8_E8M0", 8),
}  # fmt: skip
_TYPED_DATA = {4: "F32", 5: "I32", 7: "I64", 10: "F64", 11: "U64"}


class Port(msgspec.Struct, frozen=True):
    """An input or output: its name, element type and shape; a free dimension is its name, or "?"."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class OnnxModel(msgspec.Struct, frozen=True):
    """What an ONNX file says. ``external`` are the files that hold weights kept out of it."""

    ir_version: int
    producer: str
    opsets: dict[str, int]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    tensors: tuple[Tensor, ...]
    operators: dict[str, int]
    external: tuple[Path, ...]


class _Graph:
    """What is gathered while the graph's fields go by."""

    def __init__(self) -> None:
        self.inputs: list[Port] = []
        self.outputs: list[Port] = []
        self.tensors: list[Tensor] = []
        self.users: dict[str, str] = {}
        self.operators: Counter[str] = Counter()
        self.external: dict[Path, int] = {}


class Onnx:
    """Reader of ONNX graphs and of the configuration beside them."""

    name: Format = "onnx"

    def weights(self, files: Sequence[Path]) -> list[Path]:
        return [path for path in files if path.suffix.lower() == ".onnx"]

    def read(self, weights: Sequence[Path], files: Sequence[Path]) -> ModelFacts:
        models = [read_model(path) for path in weights]
        totals = add_up(tensor for model in models for tensor in model.tensors)
        facts = _configuration.facts("onnx", totals, weights, files)
        changes: dict[str, object] = {}
        if not facts.capabilities and (found := _capabilities(models)):
            changes["capabilities"] = found
        if any("MatMulNBits" in model.operators for model in models):
            changes["quantization"] = "INT4"
        return ModelFacts(**{name: getattr(facts, name) for name in facts.__struct_fields__} | changes)


PLUGIN = Onnx()


def read_model(path: Path) -> OnnxModel:
    """The facts of one ``.onnx`` file. Raises UnsupportedFormat or TruncatedContent with the byte, and UnsafeContent
    where external data is named outside the model's folder.
    """
    size = path.stat().st_size
    if size == 0:
        raise TruncatedContent(f"{path}: an empty file", param=str(path))
    ir_version, producer, opsets, graph, seen = 0, [""], {}, _Graph(), False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        model = Message(path, data, 0, size)
        for field in model.fields():
            if field.number == 1 and field.wire == VARINT:
                ir_version = field.value
            elif field.number in (2, 3) and field.wire == BYTES:
                producer.append(model.text(field))
            elif field.number == 8:
                domain, version = _opset(model.inside(field))
                opsets[domain or "ai.onnx"] = version
            elif field.number == 7 and field.wire == BYTES:
                seen = True
                _read_graph(model.inside(field), graph)
    if not seen or not ir_version:
        raise UnsupportedFormat(f"{path}: not an ONNX model: no graph", param=str(path))
    for name, needed in graph.external.items():
        present = _beside.require(name, path).stat().st_size
        if present < needed:
            raise TruncatedContent(f"{name}: {present} bytes, and {path.name} needs {needed}", param=str(name))
    named = tuple(
        msgspec.structs.replace(tensor, name=graph.users.get(tensor.name, tensor.name)) for tensor in graph.tensors
    )
    known = {tensor.name for tensor in graph.tensors}
    return OnnxModel(
        ir_version,
        " ".join(producer).strip(),
        opsets,
        tuple(port for port in graph.inputs if port.name not in known),
        tuple(graph.outputs),
        named,
        dict(graph.operators),
        tuple(graph.external),
    )


def _opset(message: Message) -> tuple[str, int]:
    domain, version = "", 0
    for field in message.fields():
        if field.number == 1:
            domain = message.text(field)
        elif field.number == 2:
            version = field.value
    return domain, version


def _read_graph(message: Message, graph: _Graph) -> None:
    for count, field in enumerate(message.fields()):
        if count > MAX_ITEMS:
            raise UnsupportedFormat(f"{message.path}: a graph of more than {MAX_ITEMS} items")
        inner = message.inside(field)
        if field.number == 1:
            _read_node(inner, graph)
        elif field.number == 5:
            graph.tensors.append(_tensor(inner, graph))
        elif field.number == 11:
            graph.inputs.append(_port(inner))
        elif field.number == 12:
            graph.outputs.append(_port(inner))


def _read_node(message: Message, graph: _Graph) -> None:
    """Count the operator; remember who uses an anonymous initializer, since exporters name nodes after modules."""
    inputs, name = [], ""
    for field in message.fields():
        if field.number == 1:
            inputs.append(message.text(field))
        elif field.number == 3:
            name = message.text(field)
        elif field.number == 4:
            graph.operators[message.text(field)] += 1
        if len(inputs) > MAX_DIMENSIONS:
            break
    for source in inputs:
        if name and source.startswith(("onnx::", "val_", "_v_")):
            graph.users.setdefault(source, f"{name}/{source}")


def _tensor(message: Message, graph: _Graph) -> Tensor:
    shape: list[int] = []
    kind, name, stored, external = 0, "", 0, dict[str, str]()
    for field in message.fields():
        if field.number == 1:
            shape += message.numbers(field, MAX_DIMENSIONS)
        elif field.number == 2:
            kind = field.value
        elif field.number == 8:
            name = message.text(field)
        elif field.number == 9:
            stored += field.end - field.start
        elif field.number in _TYPED_DATA:
            stored += (field.end - field.start) or 8
        elif field.number == 13:
            external.update([_pair(message.inside(field))])
    where = f"{message.path}: initializer {name!r}"
    if kind not in _TYPES or len(shape) > MAX_DIMENSIONS:
        raise UnsupportedFormat(f"{where} has the unknown type {kind} or {len(shape)} dimensions")
    dtype, bits = _TYPES[kind]
    elements = element_count(shape, where)
    size = (elements * bits + 7) // 8
    if "location" in external:
        _note_external(message, graph, external, size)
    elif size > 64 + 10 * stored:  # typed data may be packed in varints of one byte: wider than stored, never tenfold
        raise TruncatedContent(f"{where} of {size} bytes has {stored} bytes of data", param=str(message.path))
    return Tensor(name, tuple(shape), dtype, elements, size)


def _note_external(message: Message, graph: _Graph, external: dict[str, str], size: int) -> None:
    path = _beside.contained(message.path.parent, external["location"], message.path)
    stated = [external.get("offset", "0"), external.get("length", str(size))]
    if not all(text.isdecimal() and len(text) < 20 for text in stated):
        raise UnsupportedFormat(f"{message.path}: external data at {stated}", param=str(message.path))
    graph.external[path] = max(graph.external.get(path, 0), sum(map(int, stated)))


def _pair(message: Message) -> tuple[str, str]:
    found = {field.number: message.text(field) for field in message.fields() if field.wire == BYTES}
    return found.get(1, ""), found.get(2, "")


def _port(message: Message) -> Port:
    name, dtype, shape = "", "?", list[int | str]()
    for field in message.fields():
        if field.number == 1:
            name = message.text(field)
        elif field.number == 2:
            for tensor in _messages(message.inside(field), 1):
                for part in tensor.fields():
                    if part.number == 1:
                        dtype = _TYPES.get(part.value, ("?", 0))[0]
                    elif part.number == 2:
                        shape = [_dimension(side) for side in _messages(tensor.inside(part), 1)]
    return Port(name, dtype, tuple(shape))


def _messages(message: Message, number: int) -> list[Message]:
    found = [message.inside(field) for field in message.fields() if field.number == number and field.wire == BYTES]
    if len(found) > MAX_DIMENSIONS:
        raise UnsupportedFormat(f"{message.path}: {len(found)} dimensions at byte {message.start}")
    return found


def _dimension(message: Message) -> int | str:
    for field in message.fields():
        if field.number == 1:
            return field.value
        if field.number == 2:
            return message.text(field)
    return "?"


def _capabilities(models: Sequence[OnnxModel]) -> tuple[str, ...]:
    """A guess by the outputs' names and ranks, where no config.json says what the model is for."""
    outputs = {port.name: port for model in models for port in model.outputs}
    inputs = {port.name for model in models for port in model.inputs}
    if "input_ids" not in inputs:
        return ("vision",) if "pixel_values" in inputs else ()
    if outputs.keys() & {"last_hidden_state", "sentence_embedding", "token_embeddings", "pooler_output"}:
        return ("embed",)
    logits = outputs.get("logits")
    if logits is None:
        return ()
    if len(logits.shape) == 2:
        return ("rerank",) if logits.shape[1] == 1 else ("classify",)
    return ("complete",)
