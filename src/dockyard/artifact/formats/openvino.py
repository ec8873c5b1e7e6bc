"""OpenVINO IR: an XML graph with its weights in the ``.bin`` of the same name.

The XML is streamed through expat with document types and entities refused, so that neither a small file that unfolds
into a large one nor a reference to another file can do harm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from xml.parsers.expat import ExpatError, ParserCreate, XMLParserType

import msgspec

from dockyard.artifact.formats import _beside, _configuration
from dockyard.artifact.formats._tensors import Tensor, add_up, element_count
from dockyard.errors import TruncatedContent, UnsafeContent, UnsupportedFormat
from dockyard.types import Format, ModelFacts

MAX_XML = 256 << 20
MAX_DEPTH = 64
MAX_VALUE = 1 << 16
MAX_LAYERS = 1 << 20
_HEAD = 4096
_BITS = {
    "f32": 32, "f16": 16, "bf16": 16, "f64": 64, "i8": 8, "u8": 8, "i4": 4, "u4": 4, "nf4": 4, "f4e2m1": 4, "i2": 2,
    "u2": 2, "u1": 1, "i16": 16, "u16": 16, "i32": 32, "u32": 32, "i64": 64, "u64": 64, "f8e4m3": 8, "f8e5m2": 8,
    "f8e8m0": 8, "boolean": 8, "u3": 3, "u6": 6, "string": 0, "dynamic": 0,
}  # fmt: skip
_NAMES = {
    "f32": "FP32", "f16": "FP16", "bf16": "BF16", "i8": "INT8", "u8": "INT8", "i4": "INT4", "u4": "INT4", "nf4": "NF4",
    "f8e4m3": "FP8", "f8e5m2": "FP8", "f4e2m1": "FP4", "i2": "INT2", "u2": "INT2",
}  # fmt: skip


class Ir(msgspec.Struct, frozen=True):
    """What one IR says. ``rt_info`` is flattened: ``nncf/weight_compression/mode`` → ``int4_asym``."""

    name: str
    version: str
    tensors: tuple[Tensor, ...]
    layers: dict[str, int]
    rt_info: dict[str, str]


class OpenVino:
    """Reader of OpenVINO IR graphs; tokenizers beside a model are not counted as weights."""

    name: Format = "openvino"

    def weights(self, files: Sequence[Path]) -> list[Path]:
        """The XML files of networks, each followed by its ``.bin``."""
        graphs = [path for path in files if path.suffix.lower() == ".xml" and _is_ir(path)]
        models = [path for path in graphs if "tokenizer" not in path.name] or graphs
        return [file for path in models for file in (path, path.with_suffix(".bin")) if file.is_file()]

    def read(self, weights: Sequence[Path], files: Sequence[Path]) -> ModelFacts:
        graphs = [read_ir(path) for path in weights if path.suffix.lower() == ".xml"]
        totals = add_up(tensor for graph in graphs for tensor in graph.tensors)
        facts = _configuration.facts("openvino", totals, weights, files)
        modes = [mode for graph in graphs if (mode := graph.rt_info.get("nncf/weight_compression/mode"))]
        dtype = _NAMES.get(totals.dtype or "", totals.dtype)
        quantization = f"{dtype} ({modes[0]})" if modes and dtype else dtype
        return ModelFacts(
            **{name: getattr(facts, name) for name in facts.__struct_fields__} | {"quantization": quantization}
        )


PLUGIN = OpenVino()


def read_ir(path: Path) -> Ir:
    """The facts of one IR. Raises UnsupportedFormat (not an IR, malformed), UnsafeContent (a document type, an entity),
    TruncatedContent (the XML, or its ``.bin``, ends too early).
    """
    size = path.stat().st_size
    if size > MAX_XML:
        raise UnsupportedFormat(f"{path}: {size} bytes of XML; at most {MAX_XML} are read", param=str(path))
    handler = _Handler(path)
    parser = handler.parser()

    with path.open("rb") as file:
        try:
            parser.ParseFile(file)
        except ExpatError as error:
            kind = (
                TruncatedContent if "no element found" in str(error) or "unclosed" in str(error) else UnsupportedFormat
            )
            raise kind(f"{path}: malformed XML: {error}", param=str(path)) from error
        except (ValueError, LookupError) as error:
            raise UnsupportedFormat(f"{path}: malformed XML: {error}", param=str(path)) from error
    if not handler.is_ir:
        raise UnsupportedFormat(f"{path}: XML, but not an OpenVINO IR: no <net>", param=str(path))
    handler.check_weights()
    return Ir(handler.name, handler.version, tuple(handler.tensors), handler.layers, handler.rt_info)


class _Handler:
    """Receives expat's events; keeps the path of open elements, not the tree."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.open: list[str] = []
        self.is_ir = False
        self.name = self.version = ""
        self.layer = ("", "")
        self.layers: dict[str, int] = {}
        self.tensors: list[Tensor] = []
        self.rt_info: dict[str, str] = {}
        self.seen: set[tuple[int, int, str]] = set()
        self.needed = 0

    def parser(self) -> XMLParserType:
        made = ParserCreate()
        made.StartElementHandler = self.start
        made.EndElementHandler = self.end
        made.StartDoctypeDeclHandler = self.refuse
        made.EntityDeclHandler = self.refuse
        made.ExternalEntityRefHandler = self.refuse
        return made

    def refuse(self, *_: object) -> int:
        raise UnsafeContent(
            f"{self.path}: declares a document type or an entity, which no IR does", param=str(self.path)
        )

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self.open.append(tag)
        if len(self.open) > MAX_DEPTH:
            raise UnsupportedFormat(f"{self.path}: elements nested more than {MAX_DEPTH} deep", param=str(self.path))
        if self.open == ["net"]:
            self.is_ir = True
            self.name, self.version = attributes.get("name", ""), attributes.get("version", "")
        elif tag == "layer":
            self.layer = (attributes.get("type", ""), attributes.get("name", ""))
            self.layers[self.layer[0]] = self.layers.get(self.layer[0], 0) + 1
            if len(self.layers) > MAX_LAYERS or len(self.tensors) > MAX_LAYERS:
                raise UnsupportedFormat(f"{self.path}: more than {MAX_LAYERS} layers", param=str(self.path))
        elif tag == "data" and self.layer[0] == "Const":
            self.constant(attributes)
        elif self.open[:2] == ["net", "rt_info"] and "value" in attributes and len(self.rt_info) < 1024:
            parts = self.open[2:] if tag != "info" else [*self.open[2:-1], attributes.get("name", tag)]
            self.rt_info["/".join(parts)[:MAX_VALUE]] = attributes["value"][:MAX_VALUE]

    def end(self, _tag: str) -> None:
        self.open.pop()

    def constant(self, attributes: dict[str, str]) -> None:
        name, dtype = self.layer[1], attributes.get("element_type", "")
        where = f"{self.path}: constant {name!r}"
        shape = tuple(self.number(part, where) for part in attributes.get("shape", "").split(",") if part.strip())
        size, offset = (
            self.number(attributes.get("size", "0"), where),
            self.number(attributes.get("offset", "0"), where),
        )
        elements = element_count(shape, where)
        if dtype not in _BITS:
            raise UnsupportedFormat(f"{where} has the unknown element type {dtype!r}", param=str(self.path))
        if _BITS[dtype] and size < math.ceil(elements * _BITS[dtype] / 8):
            raise UnsupportedFormat(f"{where} of {elements} x {dtype} in {size} bytes", param=str(self.path))
        self.needed = max(self.needed, offset + size)
        if (offset, size, dtype) in self.seen:
            return  # equal constants are stored once
        self.seen.add((offset, size, dtype))
        self.tensors.append(Tensor(name, shape, dtype, elements if _BITS[dtype] else 0, size))

    def number(self, text: str, where: str) -> int:
        text = text.strip()
        if not text.isdecimal() or len(text) > 18:
            raise UnsupportedFormat(f"{where}: {text[:40]!r} is not a number", param=str(self.path))
        return int(text)

    def check_weights(self) -> None:
        if not self.needed:
            return
        weights = _beside.require(self.path.with_suffix(".bin"), self.path)
        present = weights.stat().st_size
        if present < self.needed:
            raise TruncatedContent(
                f"{weights}: {present} bytes, and {self.path.name} needs {self.needed}",
                param=str(weights),
                hint="the file was cut short: fetch it again",
            )


def _is_ir(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return b"<net" in file.read(_HEAD)
