"""Sections first: a passage never leaves its section, and carries the headings above it.

Within a section whole paragraphs, list items and tables are put together up to the size; what is longer than that is
cut between sentences, or lines where it is code or a table.
"""

from __future__ import annotations

import re

from dockyard.knowledge.chunkers._packing import pack
from dockyard.knowledge.chunkers._sentences import sentences
from dockyard.knowledge.model import Block, Cut, Parsed, Span

SMALL = 0.3
"""A section with less than this share of the size joins the next one at its level or below, if both fit together."""
_MARK = re.compile(r"^#+\s*|\s*#+$|\n[=-]+$")


def structure(parsed: Parsed, cut: Cut) -> list[Span]:
    found: list[Span] = []
    path: list[tuple[int, str]] = []
    section: list[Block] = []
    for block in parsed.blocks:
        if block.kind != "heading":
            section.append(block)
            continue
        _close(found, parsed, cut, path, section)
        section = []
        path = [(level, name) for level, name in path if level < block.level]
        name = _MARK.sub("", parsed.text[block.start : block.end].strip()).strip()
        path.append((block.level, " ".join(name.split())[:160]))
    _close(found, parsed, cut, path, section)
    if not found:  # headings and nothing else
        found = [Span(start=b.start, end=b.end, below=len(parsed.text), page=b.page) for b in parsed.blocks]
    return found


def _close(found: list[Span], parsed: Parsed, cut: Cut, path: list[tuple[int, str]], section: list[Block]) -> None:
    if not section:
        return
    heading = heading_of(parsed, path)
    above, below = section[0].start, section[-1].end
    pages = [(block.start, block.page) for block in section]
    for begin, end in pack(_pieces(parsed.text, section, cut.size), cut.size, cut.overlap):
        page = next((page for start, page in reversed(pages) if start <= begin), 0)
        found.append(Span(start=begin, end=end, heading=heading, page=page, above=above, below=below))


def heading_of(parsed: Parsed, path: list[tuple[int, str]]) -> str:
    """The title and the headings on the way down, each once."""
    names = [name for _, name in path if name]
    title = " ".join(parsed.title.split())[:160]
    if title and title not in names:
        names.insert(0, title)
    return " > ".join(names)


def _pieces(text: str, section: list[Block], size: int) -> list[tuple[int, int]]:
    pieces: list[tuple[int, int]] = []
    for block in section:
        if block.end - block.start <= size:
            pieces.append((block.start, block.end))
        elif block.kind in ("code", "table", "list"):
            pieces += _lines(text, block)
        else:
            pieces += sentences(text, block.start, block.end)
    return pieces


def _lines(text: str, block: Block) -> list[tuple[int, int]]:
    found, at = [], block.start
    for line in text[block.start : block.end].splitlines(keepends=True):
        if line.strip():
            found.append((at, at + len(line.rstrip())))
        at += len(line)
    return found


PLUGIN = structure
