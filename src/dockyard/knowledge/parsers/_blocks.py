"""Text put together from pieces, with the span of each kept: what every parser of a structured format does."""

from __future__ import annotations

from dockyard.knowledge.model import Block, BlockKind, Parsed

SEPARATOR = "\n\n"
_SURROGATES = dict.fromkeys(range(55296, 57344), 65533)


class Blocks:
    """Pieces of a text, in order."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._blocks: list[Block] = []
        self._size = 0

    def add(self, text: str, kind: BlockKind = "paragraph", *, level: int = 0, page: int = 0) -> None:
        """One piece; one without text is none."""
        text = clean(text).strip("\n").rstrip()
        if not text.strip():
            return
        if self._parts:
            self._parts.append(SEPARATOR)
            self._size += len(SEPARATOR)
        self._parts.append(text)
        self._blocks.append(Block(self._size, self._size + len(text), kind, level, page))
        self._size += len(text)

    def done(self, *, title: str = "", pages: int = 0, notes: tuple[str, ...] = ()) -> Parsed:
        text = "".join(self._parts)
        if not title:
            title = next((text[one.start : one.end] for one in self._blocks if one.kind == "heading"), "")
        return Parsed(text=text, blocks=tuple(self._blocks), title=title.strip()[:300], pages=pages, notes=notes)


def clean(text: str) -> str:
    """Without what no text has: zero characters, and halves of characters."""
    return text.translate(_SURROGATES).replace("\x00", "").replace("\r\n", "\n").replace("\r", "\n")


def table(rows: list[list[str]]) -> str:
    """Rows as lines of ``a | b``, so that a row is one line and can be cited."""
    lines = [" | ".join(" ".join(cell.split()) for cell in row).rstrip(" |") for row in rows]
    return "\n".join(line for line in lines if line.strip(" |"))
