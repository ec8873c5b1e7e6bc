"""Bytes to text with its structure: the protocol of a parser, and the chooser.

A parser is one file of this package, or an entry point of group ``dockyard.knowledge.parsers``, that binds ``PLUGIN``.
The file's suffix chooses it; what no parser claims is read as text if it is some. Formats that need foreign code are
parsed in a process of their own with bounds on time and memory: a file that makes a parser hang or grow costs that file
and nothing else.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Protocol

import msgspec

from dockyard import plugins
from dockyard.errors import PayloadTooLarge, UnsupportedFormat
from dockyard.knowledge.model import Parsed


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much one document may take: ``most`` bytes as it comes, ``unpacked`` bytes of what is packed in it,
    ``characters`` of text, ``seconds`` and bytes of ``memory`` to parse it apart."""

    most: int = 64 << 20
    unpacked: int = 512 << 20
    ratio: int = 200
    characters: int = 20_000_000
    seconds: float = 120.0
    memory: int = 2 << 30


class Parser(Protocol):
    """One format. ``apart``: it runs foreign code on the bytes, so it gets a process of its own."""

    suffixes: tuple[str, ...]
    apart: bool

    def parse(self, data: bytes, name: str, bounds: Bounds) -> Parsed:
        """Raises UnsupportedFormat, UnsafeContent, ArtifactError or PayloadTooLarge, which name no path."""
        ...


def named(name: str) -> Parser:
    """The parser of this name, loaded."""
    found: Parser = plugins.find("knowledge.parsers")[name].load()  # by the kind's contract
    return found


def choose(path: str) -> str:
    """The name of the parser for a path; "text" for what no parser claims."""
    return _suffixes().get(PurePosixPath(path.lower()).suffix, "text")


def _suffixes() -> dict[str, str]:
    if not _KNOWN:
        for name, plugin in plugins.find("knowledge.parsers").items():
            if plugin.error is None:
                parser: Parser = plugin.load()  # by the kind's contract
                _KNOWN.update(dict.fromkeys(parser.suffixes, name))
    return _KNOWN


_KNOWN: dict[str, str] = {}


def check_size(size: int, bounds: Bounds) -> None:
    """Raises PayloadTooLarge."""
    if size > bounds.most:
        raise PayloadTooLarge(
            f"it has {size} bytes, and {bounds.most} is the most",
            hint="split it, or raise the setting `knowledge_max_document`",
        )


def parse(data: bytes, path: str, bounds: Bounds) -> Parsed:
    """Parse in this process; ``apart`` does it in another. Raises as parsers do."""
    check_size(len(data), bounds)
    parsed = named(choose(path)).parse(data, path, bounds)
    if len(parsed.text) > bounds.characters:
        raise PayloadTooLarge(f"its text has {len(parsed.text)} characters, and {bounds.characters} is the most")
    if not parsed.text.strip():
        raise UnsupportedFormat("it holds no text", hint="a scan needs text recognition first")
    return parsed
