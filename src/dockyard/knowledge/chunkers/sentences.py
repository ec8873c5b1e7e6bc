"""Whole sentences up to a size, whatever paragraph or section they are of."""

from __future__ import annotations

from dockyard.knowledge.chunkers._packing import pack
from dockyard.knowledge.chunkers._sentences import sentences as spans
from dockyard.knowledge.chunkers.fixed import _page
from dockyard.knowledge.model import Cut, Parsed, Span


def sentences(parsed: Parsed, cut: Cut) -> list[Span]:
    whole = len(parsed.text)
    packed = pack(spans(parsed.text), cut.size, cut.overlap)
    return [Span(start=begin, end=end, below=whole, page=_page(parsed, begin)) for begin, end in packed]


PLUGIN = sentences
