"""Markdown: the text stays as it is written, so that spans are those of the file; its structure is found."""

from __future__ import annotations

import re

from dockyard.knowledge.model import Block, BlockKind, Parsed
from dockyard.knowledge.parsers import Bounds
from dockyard.knowledge.parsers.text import decoded

_KINDS: dict[str, BlockKind] = {
    "heading_open": "heading",
    "paragraph_open": "paragraph",
    "bullet_list_open": "list",
    "ordered_list_open": "list",
    "blockquote_open": "paragraph",
    "fence": "code",
    "code_block": "code",
    "table_open": "table",
    "html_block": "paragraph",
}
_FRONT = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_TITLE = re.compile(r"^title:\s*[\"']?(.+?)[\"']?\s*$", re.MULTILINE)


class MarkdownParser:
    """CommonMark with tables, by markdown-it."""

    suffixes = (".md", ".markdown", ".mdx", ".qmd")
    apart = False

    def parse(self, data: bytes, name: str, bounds: Bounds) -> Parsed:  # noqa: ARG002
        from markdown_it import MarkdownIt

        text = decoded(data)
        front = _FRONT.match(text)
        begin = front.end() if front else 0
        starts = _line_starts(text)
        first = text.count("\n", 0, begin)
        blocks: list[Block] = []
        title = ""
        for token in MarkdownIt("commonmark").enable("table").parse(text[begin:]):
            kind = _KINDS.get(token.type)
            if kind is None or token.level or token.map is None:
                continue
            start, end = starts[token.map[0] + first], starts[token.map[1] + first]
            end = start + len(text[start:end].rstrip())
            level = int(token.tag[1]) if kind == "heading" else 0
            if end > start:
                blocks.append(Block(start, end, kind, level))
            if kind == "heading" and not title:
                title = heading_text(text[start:end])
        if front and (found := _TITLE.search(front[0])):
            title = found[1]
        return Parsed(text=text, blocks=tuple(blocks), title=title[:300])


def heading_text(source: str) -> str:
    """A heading without its marks."""
    return re.sub(r"^#+\s*|\s*#*\s*$|\n[=-]+$", "", source.strip()).strip()


def _line_starts(text: str) -> list[int]:
    starts = [0]
    starts.extend(match.end() for match in re.finditer("\n", text))
    return [*starts, len(text)]


PLUGIN = MarkdownParser()
