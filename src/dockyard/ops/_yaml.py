"""YAML files of operations: recipes, gates and suites, in which no key may be there twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import msgspec

Kind = TypeVar("Kind")


def decoded(data: bytes, kind: type[Kind]) -> Kind:
    """What the text says. Raises msgspec's DecodeError, also for a key that is there twice, of which YAML's own readers
    take the last one and say nothing."""
    found = msgspec.yaml.decode(data, type=kind)
    for key, line, first in _repeated(data):
        raise msgspec.DecodeError(f"line {line}: {key!r} was said in line {first} already")
    return found


def _repeated(data: bytes) -> Iterator[tuple[str, int, int]]:
    """Each key that its mapping has already, with the lines of both."""
    import yaml

    waiting: list[Any] = [yaml.compose(data, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))]
    seen: set[int] = set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # an anchor's
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += reversed(node.value)
        elif isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, _ in node.value:
                if isinstance(key, yaml.ScalarNode):
                    line = key.start_mark.line + 1
                    if key.value in lines:
                        yield key.value, line, lines[key.value]
                    lines[key.value] = line
            waiting += [value for _, value in reversed(node.value)]
