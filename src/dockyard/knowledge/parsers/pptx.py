"""Slides: each slide is a page, its title a heading, its notes a paragraph."""

from __future__ import annotations

import io
from typing import Any

from dockyard.errors import ArtifactError
from dockyard.knowledge.model import Parsed
from dockyard.knowledge.parsers import Bounds, _zipped
from dockyard.knowledge.parsers._blocks import Blocks, table


class PptxParser:
    """By python-pptx."""

    suffixes = (".pptx",)
    apart = True

    def parse(self, data: bytes, name: str, bounds: Bounds) -> Parsed:  # noqa: ARG002
        _zipped.check(data, "presentation", bounds)
        import pptx

        try:
            show = pptx.Presentation(io.BytesIO(data))
            blocks = Blocks()
            for number, slide in enumerate(show.slides, 1):
                _slide(blocks, slide, number)
            return blocks.done(title=show.core_properties.title or "", pages=len(show.slides))
        except Exception as error:
            raise ArtifactError(f"the presentation is broken: {type(error).__name__}: {error}"[:300]) from error


def _slide(blocks: Blocks, slide: Any, page: int) -> None:
    title = slide.shapes.title
    if title is not None:
        blocks.add(title.text_frame.text.replace("\v", " "), "heading", level=2, page=page)
    for shape in slide.shapes:
        if title is not None and shape.shape_id == title.shape_id:
            continue
        if shape.has_text_frame:
            lines = [paragraph.text.replace("\v", " ") for paragraph in shape.text_frame.paragraphs]
            blocks.add("\n".join(line for line in lines if line.strip()), "list", page=page)
        if getattr(shape, "has_table", False):
            rows = [[cell.text for cell in row.cells] for row in shape.table.rows]
            blocks.add(table(rows), "table", page=page)
    if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
        blocks.add(slide.notes_slide.notes_text_frame.text, page=page)


PLUGIN = PptxParser()
