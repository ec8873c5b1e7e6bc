"""Word documents: paragraphs, headings by their style, lists, tables."""

from __future__ import annotations

import io
import re
from typing import Any

from dockyard.errors import ArtifactError
from dockyard.knowledge.model import Parsed
from dockyard.knowledge.parsers import Bounds, _zipped
from dockyard.knowledge.parsers._blocks import Blocks, table

_HEADING = re.compile(r"[Hh]eading (\d)")


class DocxParser:
    """By python-docx."""

    suffixes = (".docx",)
    apart = True

    def parse(self, data: bytes, name: str, bounds: Bounds) -> Parsed:  # noqa: ARG002
        _zipped.check(data, "Word document", bounds)
        import docx
        from docx.table import Table

        try:
            document = docx.Document(io.BytesIO(data))
            blocks = Blocks()
            for item in document.iter_inner_content():
                if isinstance(item, Table):
                    blocks.add(table([[cell.text for cell in row.cells] for row in item.rows]), "table")
                else:
                    _paragraph(blocks, item)
            title = document.core_properties.title or ""
        except Exception as error:
            raise ArtifactError(f"the Word document is broken: {type(error).__name__}: {error}"[:300]) from error
        return blocks.done(title=title)


def _paragraph(blocks: Blocks, item: Any) -> None:
    style = (item.style.name if item.style is not None else "") or ""
    found = _HEADING.match(style)
    if found or style == "Title":
        blocks.add(item.text, "heading", level=int(found[1]) if found else 1)
    elif style.startswith("List"):
        blocks.add(f"- {item.text}" if item.text.strip() else "", "list")
    else:
        blocks.add(item.text)


PLUGIN = DocxParser()
