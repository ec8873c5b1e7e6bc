"""So many characters each, cut at spaces: knows nothing of the text. The yardstick for the others."""

from __future__ import annotations

from dockyard.knowledge.model import Cut, Parsed, Span


def fixed(parsed: Parsed, cut: Cut) -> list[Span]:
    text, found, at = parsed.text, [], 0
    while at < len(text):
        end = min(len(text), at + cut.size)
        if end < len(text):
            space = max(text.rfind(" ", at + cut.size // 2, end), text.rfind("\n", at + cut.size // 2, end))
            end = space if space > at else end
        found.append(Span(start=at, end=end, above=0, below=len(text), page=_page(parsed, at)))
        if end >= len(text):
            break
        at = max(end - cut.overlap, at + 1)
        while at < len(text) and text[at].isspace():
            at += 1
    return found


def _page(parsed: Parsed, at: int) -> int:
    return next((block.page for block in reversed(parsed.blocks) if block.start <= at), 0)


PLUGIN = fixed
