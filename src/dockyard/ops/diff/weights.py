"""Two models' weights, tensor by tensor: what was changed, and by how much."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from dockyard.artifact.formats._tensors import part_of
from dockyard.errors import EngineUnavailable, UnsupportedFormat
from dockyard.types import ModelFiles

if TYPE_CHECKING:
    from numpy import ndarray

SHOWN = 10
_PLAIN = {"F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1", "U8": "u1"}


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor of both. ``relative`` is ‖second − first‖ / ‖first‖ (L2), ``largest`` the greatest absolute change,
    ``cosine`` the cosine between them; of dequantised values, so that formats of numbers can be compared."""

    name: str
    shape: tuple[int, ...]
    first_type: str
    second_type: str
    relative: float
    largest: float
    cosine: float


class WeightsDiff(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``same`` tensors are equal byte for byte or number for number. ``relative`` is over all numbers that both have,
    ``parts`` the same by part of the network; ``most`` are the most changed. ``why`` says why there is nothing."""

    compared: int = 0
    same: int = 0
    relative: float | None = None
    parts: dict[str, float] = {}
    most: tuple[Changed, ...] = ()
    only_first: tuple[str, ...] = ()
    only_second: tuple[str, ...] = ()
    reshaped: tuple[str, ...] = ()
    why: str = ""


class Table(msgspec.Struct, frozen=True):
    """The tensors of a model: type and shape by name, and how to read one as float32."""

    tensors: dict[str, tuple[str, tuple[int, ...]]]
    floats: Callable[[str], ndarray[Any, Any]]


def diff_weights(first: ModelFiles, second: ModelFiles, done: Callable[[int, int], None] | None = None) -> WeightsDiff:
    """Compare two models of one format, reading all weights, tensor by tensor. ``done`` hears how many of how many."""
    if first.weights and _blobs(first) == _blobs(second):
        return WeightsDiff(why="the weights are the same files")
    if first.format != second.format:
        return WeightsDiff(why=f"{first.format} and {second.format} name and order their tensors differently")
    try:
        one, two = table(first), table(second)
    except (UnsupportedFormat, EngineUnavailable) as error:
        return WeightsDiff(why=error.message)
    both = [name for name in one.tensors if name in two.tensors]
    alike = [name for name in both if math.prod(one.tensors[name][1]) == math.prod(two.tensors[name][1])]
    sums: dict[str, tuple[float, float]] = {}
    found, same = [], 0
    for count, name in enumerate(alike, 1):
        changed, squares, base = _compare(name, one, two)
        part = part_of(name)
        before = sums.get(part, (0.0, 0.0))
        sums[part] = (before[0] + squares, before[1] + base)
        same += squares == 0
        if squares:
            found.append(changed)
        if done is not None:
            done(count, len(alike))
    found.sort(key=lambda each: -each.relative)
    return WeightsDiff(
        compared=len(alike),
        same=same,
        relative=_root(sum(each[0] for each in sums.values()), sum(each[1] for each in sums.values())),
        parts={part: _root(*each) for part, each in sorted(sums.items())},
        most=tuple(found[:SHOWN]),
        only_first=tuple(name for name in one.tensors if name not in two.tensors),
        only_second=tuple(name for name in two.tensors if name not in one.tensors),
        reshaped=tuple(name for name in both if name not in alike),
    )


def table(files: ModelFiles) -> Table:
    """The tensors of a model's files. Raises UnsupportedFormat, and EngineUnavailable where a library is missing."""
    paths = [Path(each) for each in files.weights]
    if files.format == "gguf":
        return _gguf(paths)
    if files.format in ("safetensors", "peft"):
        return _safetensors(paths)
    raise UnsupportedFormat(f"weights of {files.format} are not compared tensor by tensor")


def _compare(name: str, one: Table, two: Table) -> tuple[Changed, float, float]:
    import numpy as np

    a, b = one.floats(name).ravel().astype(np.float64), two.floats(name).ravel().astype(np.float64)
    change = b - a
    squares, base, other = float(change @ change), float(a @ a), float(b @ b)
    scale = math.sqrt(base * other)
    changed = Changed(
        name=name,
        shape=one.tensors[name][1],
        first_type=one.tensors[name][0],
        second_type=two.tensors[name][0],
        relative=_root(squares, base),
        largest=float(np.abs(change).max()) if change.size else 0.0,
        cosine=float(a @ b) / scale if scale else 0.0,
    )
    return changed, squares, base


def _root(squares: float, base: float) -> float:
    """The norm of the change by that of the first; of a first that is nought the change's own norm."""
    return math.sqrt(squares / base) if base else math.sqrt(squares)


def _gguf(paths: Sequence[Path]) -> Table:
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise EngineUnavailable(
            "weights in GGUF are read with a library that is not installed", hint="pip install 'dockyard[refit]'"
        ) from None
    from dockyard.ops._gguf_read import read_gguf

    files = [read_gguf(path) for path in paths]
    owner = {name: file for file in files for name in file.tensors}
    tensors = {name: (file.tensors[name].dtype, file.tensors[name].shape) for name, file in owner.items()}
    return Table(tensors, lambda name: owner[name].floats(name))


def _safetensors(paths: Sequence[Path]) -> Table:
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    places: dict[str, tuple[Path, int, int]] = {}
    for path in paths:
        for name, kind, shape, start, end in _entries(path):
            tensors[name], places[name] = (kind, shape), (path, start, end)

    def floats(name: str) -> ndarray[Any, Any]:
        import numpy as np

        path, start, end = places[name]
        raw = np.memmap(path, np.uint8, "r", start, (end - start,)) if end > start else np.zeros(0, np.uint8)
        kind = tensors[name][0]
        if kind == "BF16":
            return (np.array(raw).view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        if kind not in _PLAIN:
            raise UnsupportedFormat(f"tensor {name} holds {kind}, which is not read as numbers here")
        return np.array(raw).view("<" + _PLAIN[kind]).astype(np.float32)

    return Table(tensors, floats)


def _entries(path: Path) -> Iterator[tuple[str, str, tuple[int, ...], int, int]]:
    """Name, type, shape and place of each tensor; ``artifact.formats`` has checked the header when it was taken in."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    for name, each in header.items():
        if name != "__metadata__":
            start, end = each["data_offsets"]
            yield name, each["dtype"], tuple(each["shape"]), 8 + length + start, 8 + length + end


def _blobs(files: ModelFiles) -> list[tuple[int, int]]:
    """Which files these are, whatever their names: run directories hold hard links to blobs."""
    return [(state.st_ino, state.st_size) for state in (Path(each).stat() for each in files.weights)]
