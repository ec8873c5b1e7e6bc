"""HTML: what a reader sees of the main part, without navigation, scripts and forms."""

from __future__ import annotations

from typing import Any

from dockyard.errors import UnsupportedFormat
from dockyard.knowledge.model import Parsed
from dockyard.knowledge.parsers import Bounds
from dockyard.knowledge.parsers._blocks import Blocks, table

_LEFT_OUT = frozenset(
    {
        "script", "style", "noscript", "template", "svg", "math", "nav", "footer", "aside", "form", "button",
        "iframe", "object", "select", "dialog", "head"
    }
)  # fmt: skip
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = frozenset(
    {
        "address", "article", "blockquote", "body", "dd", "details", "div", "dl", "dt", "fieldset",
        "figcaption", "figure", "header", "hr", "html", "li", "main", "ol", "p", "section", "summary", "ul",
        "tbody"
    }
)  # fmt: skip
MOST_DEPTH = 200


class HtmlParser:
    """By lxml's forgiving parser; entities of others and networks are not reached for."""

    suffixes = (".html", ".htm", ".xhtml")
    apart = True

    def parse(self, data: bytes, name: str, bounds: Bounds) -> Parsed:  # noqa: ARG002
        from lxml import etree, html

        parser = html.HTMLParser(encoding=_encoding(data), no_network=True, remove_comments=True, remove_pis=True)
        try:
            root = html.document_fromstring(data, parser=parser)
        except (etree.ParserError, etree.XMLSyntaxError, ValueError) as error:
            raise UnsupportedFormat(f"it is no HTML: {error}") from error
        title = root.findtext(".//title") or ""
        blocks = Blocks()
        _Walk(blocks).element(_main(root), 0)
        return blocks.done(title=" ".join(title.split()))


def _encoding(data: bytes) -> str | None:
    """UTF-8 where it is that and nothing else is declared; else what the page says, as lxml reads it."""
    if b"charset" in data[:2048].lower():
        return None
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return "utf-8"


def _main(root: Any) -> Any:
    for path in (".//main", ".//article", ".//*[@role='main']"):
        found = root.findall(path)
        if len(found) == 1 and len("".join(found[0].itertext())) > 200:
            return found[0]
    body = root.find(".//body")
    return root if body is None else body


class _Walk:
    """Text of inline elements is gathered until a block begins or ends."""

    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._inline: list[str] = []

    def element(self, node: Any, depth: int) -> None:
        tag = node.tag if isinstance(node.tag, str) else ""
        if tag in _LEFT_OUT or not tag or depth > MOST_DEPTH or node.get("hidden") is not None:
            return
        if tag in _HEADINGS:
            self._flush()
            self._blocks.add(" ".join("".join(node.itertext()).split()), "heading", level=_HEADINGS[tag])
        elif tag == "pre":
            self._flush()
            self._blocks.add("".join(node.itertext()), "code")
        elif tag == "table":
            self._flush()
            rows = [[" ".join(cell.itertext()) for cell in row if cell.tag in ("td", "th")] for row in node.iter("tr")]
            self._blocks.add(table(rows), "table")
        elif tag == "br":
            self._inline.append("\n")
        else:
            self._children(node, tag, depth)

    def _children(self, node: Any, tag: str, depth: int) -> None:
        block = tag in _BLOCKS
        if block:
            self._flush()
        if tag == "li":
            self._inline.append("- ")
        self._inline.append(node.text or "")
        for child in node:
            self.element(child, depth + 1)
            self._inline.append(child.tail or "")
        if block:
            self._flush("list" if tag == "li" else "paragraph")

    def _flush(self, kind: Any = "paragraph") -> None:
        lines = [" ".join(line.split()) for line in "".join(self._inline).split("\n")]
        # A line break in the source is a space; only <br> is one, and it was put in as a line of its own.
        self._inline.clear()
        text = " ".join(line for line in lines if line)
        if text not in ("", "-"):
            self._blocks.add(text, kind)


PLUGIN = HtmlParser()
