"""Text to JSON values: JSON, JSON with comments, YAML; each error with its line, and bounds on what a text may cost.

YAML is read as its version 1.2 has it where that matters here: dates and ``12:30`` stay text. Anchors that contain
themselves are refused, and so are texts that grow far beyond their size.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from dockyard.errors import InvalidRequest
from dockyard.tools.catalog.found import Document, Problem

MOST_BYTES = 32 << 20
MOST_NODES = 2_000_000
DEEPEST = 100
LINED = 3
"""Levels of a document whose lines are remembered."""


def document(text: str, where: str = "the text") -> Document:
    """A parsed text. Raises InvalidRequest with the line."""
    if len(text) > MOST_BYTES:
        raise InvalidRequest(f"{where} has more than {MOST_BYTES} characters")
    text = text.removeprefix("\ufeff")
    begins = text.lstrip()[:2]
    if begins[:1] in ("{", "[") or begins in ("//", "/*"):
        return _json(text, where)
    return _yaml(text, where)


def _json(text: str, where: str) -> Document:
    twice: list[Problem] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in items:
            if key in found:
                twice.append(Problem(where=key[:100], message="is there twice; the first counts"))
            else:
                found[key] = value
        return found

    try:
        value = json.loads(without_comments(text), object_pairs_hook=pairs, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"{where} is not JSON: line {error.lineno}: {error.msg}", param=where) from error
    except (RecursionError, ValueError) as error:
        raise InvalidRequest(f"{where} is not JSON: {type(error).__name__}: {error}", param=where) from error
    return Document(value=value, twice=tuple(twice))


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


_COMMENT = r"//[^\n]*|/\*(?:[^*]|\*(?!/))*\*/"
_TOKENS = re.compile(rf'"(?:[^"\\\n]|\\.)*"|{_COMMENT}|,(?=(?:\s|{_COMMENT})*[}}\]])')


def without_comments(text: str) -> str:
    """JSON with comments and trailing commas as plain JSON of the same length and lines."""
    return _TOKENS.sub(lambda hit: hit[0] if hit[0][0] == '"' else re.sub(r"[^\n]", " ", hit[0]), text)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Scalars as YAML 1.2's core schema has them, nearly."""


SCALARS: tuple[tuple[str, str, Any], ...] = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("merge", r"<<", "<"),
)
"""Tag, pattern and first characters of scalars that are no text."""


def resolve_scalars(kind: Any) -> None:
    """Have a loader or dumper class know ``SCALARS``."""
    for tag, pattern, first in SCALARS:
        kind.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$"), list(first))


_Loader.yaml_implicit_resolvers = {}
resolve_scalars(_Loader)


def _yaml(text: str, where: str) -> Document:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark else ""
        told = ", ".join(part for part in (error.context, error.problem) if part)
        raise InvalidRequest(f"{where} is not YAML: {line}{told}", param=where) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise InvalidRequest(f"{where} is not YAML: {error}", param=where) from error
    finally:
        loader.dispose()
    if node is None:
        raise InvalidRequest(f"{where} is empty", param=where)
    plain = _Plain(where)
    return Document(value=plain.value(node, ()), lines=plain.lines, twice=tuple(plain.twice))


class _Plain:
    """Nodes to values, with cycles, growth and doubled keys seen on the way."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.lines: dict[tuple[str | int, ...], int] = {}
        self.twice: list[Problem] = []
        self._open: set[int] = set()
        self._count = 0

    def value(self, node: yaml.Node, path: tuple[str | int, ...], depth: int = 0) -> Any:
        line = node.start_mark.line + 1
        if len(path) <= LINED and len(path) == depth:
            self.lines[path] = line
        self._count += 1
        if self._count > MOST_NODES or depth > DEEPEST:
            raise InvalidRequest(f"{self.where}: line {line}: too much, or nested too deep", param=self.where)
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if id(node) in self._open:
            raise InvalidRequest(f"{self.where}: line {line}: contains itself by its anchor", param=self.where)
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*path, at), depth + 1) for at, item in enumerate(node.value)]
            return self._mapping(node, path, depth)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.Node, path: tuple[str | int, ...], depth: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                for part in self._merged(value_node, path, depth):
                    merged = {**part, **merged}
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                line = key_node.start_mark.line + 1
                raise InvalidRequest(f"{self.where}: line {line}: a key must be text", param=self.where)
            key = str(key_node.value)
            if key in found:
                line = key_node.start_mark.line + 1
                self.twice.append(Problem(where=key[:100], message="is there twice; the first counts", line=line))
                continue
            found[key] = self.value(value_node, (*path, key), depth + 1)
            if len(path) < LINED:
                self.lines[(*path, key)] = key_node.start_mark.line + 1
        return {**merged, **found}

    def _merged(self, node: yaml.Node, path: tuple[str | int, ...], depth: int) -> Iterator[dict[str, Any]]:
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        for part in parts:
            value = self.value(part, (*path, "<<"), depth + 1)
            if not isinstance(value, dict):
                line = part.start_mark.line + 1
                raise InvalidRequest(f"{self.where}: line {line}: only tables can be merged", param=self.where)
            yield value


def _scalar(node: yaml.ScalarNode) -> Any:
    tag, said = node.tag.removeprefix("tag:yaml.org,2002:"), node.value
    try:
        if tag == "null":
            return None
        if tag == "bool":
            return said.lower() == "true"
        if tag == "int":
            return int(said, 0) if said[:2] in ("0x", "0o") else int(said)
        if tag == "float":
            return float(said)
    except ValueError:
        return said
    return said


class _Dumper(yaml.SafeDumper):
    """No anchors: other tools' readers need not know them."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


resolve_scalars(_Dumper)


def dump_yaml(value: Any) -> str:
    """YAML that this module, and readers of YAML 1.1 and 1.2, read as the same value."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=4096)
