"""PDF: the text of each page, by pypdf. A scan has none, and an encrypted one opens only if it needs no password."""

from __future__ import annotations

import io
import re

from dockyard.errors import ArtifactError, UnsafeContent, UnsupportedFormat
from dockyard.knowledge.model import Parsed
from dockyard.knowledge.parsers import Bounds
from dockyard.knowledge.parsers._blocks import Blocks

MOST_PAGES = 10_000
_GAP = re.compile(r"\n\s*\n")
_HEADING = re.compile(r"(?:\d+(?:\.\d+)*\.?\s+)?[A-Z][^.!?:;,]{2,70}$")


class PdfParser:
    """One paragraph for each gap of a page; lines that look like headings begin one."""

    suffixes = (".pdf",)
    apart = True

    def parse(self, data: bytes, name: str, bounds: Bounds) -> Parsed:  # noqa: ARG002
        from pypdf import PdfReader
        from pypdf.errors import PyPdfError

        try:
            reader = PdfReader(io.BytesIO(data))
            if reader.is_encrypted and not reader.decrypt(""):
                raise UnsafeContent("it is encrypted", hint="save a copy without a password")
            count = len(reader.pages)
        except (PyPdfError, ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
            raise ArtifactError(f"the PDF is broken: {_short(error)}", hint="open it and save it again") from error
        blocks, blank, failed = Blocks(), 0, 0
        for number in range(min(count, MOST_PAGES)):
            try:
                text = reader.pages[number].extract_text() or ""
            except Exception:  # noqa: BLE001 - a broken page is one page less, and is told
                failed += 1
                continue
            if not text.strip():
                blank += 1
            for piece in _GAP.split(text):
                _add(blocks, piece, number + 1)
        if blank == count:
            raise UnsupportedFormat("its pages hold no text", hint="a scan needs text recognition first")
        notes = [f"{failed} of {count} pages could not be read"] if failed else []
        notes += [f"{blank} of {count} pages hold no text"] if blank else []
        told = reader.metadata.title if reader.metadata else None
        return blocks.done(title=str(told or "")[:300], pages=count, notes=tuple(notes))


def _add(blocks: Blocks, piece: str, page: int) -> None:
    """A paragraph; its first line is a heading if it looks like one and more follows."""
    lines = [line.strip() for line in piece.splitlines() if line.strip()]
    held: list[str] = []
    for place, line in enumerate(lines):
        after = lines[place + 1] if place + 1 < len(lines) else ""
        if _HEADING.fullmatch(line) and len(after) > len(line) and (not held or held[-1].endswith((".", "!", "?"))):
            blocks.add("\n".join(held), page=page)
            held = []
            blocks.add(line, "heading", level=2, page=page)
        else:
            held.append(line)
    blocks.add("\n".join(held), page=page)


def _short(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


PLUGIN = PdfParser()
