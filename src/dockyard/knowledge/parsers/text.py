"""Plain text and code: the encoding is found, binary content is refused, blank lines part paragraphs."""

from __future__ import annotations

import codecs
import re
from pathlib import PurePosixPath

from dockyard.errors import UnsupportedFormat
from dockyard.knowledge.model import Block, Parsed
from dockyard.knowledge.parsers import Bounds
from dockyard.knowledge.parsers._blocks import clean

CODE = frozenset(
    {
        ".py", ".pyi", ".js", ".mjs", ".ts", ".tsx", ".jsx", ".java", ".kt", ".go", ".rs", ".c", ".h", ".cc",
        ".cpp", ".hpp", ".cs", ".rb", ".php", ".swift", ".scala", ".sh", ".bash", ".ps1", ".sql", ".lua", ".r",
        ".jl", ".pl", ".hs", ".ml", ".ex", ".erl", ".clj", ".vue", ".svelte", ".css", ".scss", ".proto",
        ".graphql", ".tf", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".conf", ".json", ".jsonl", ".xml",
        ".dockerfile", ".make", ".cmake", ".gradle"
    }
)  # fmt: skip
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_MAGIC = {
    b"%PDF": "a PDF", b"PK\x03\x04": "a ZIP archive", b"\x89PNG": "a PNG image", b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image", b"\x7fELF": "a program", b"MZ": "a program", b"\x1f\x8b": "a gzip archive",
    b"SQLite format 3": "an SQLite database", b"GGUF": "a model", b"\xd0\xcf\x11\xe0": "an old Office file",
}  # fmt: skip
_TOP = re.compile(
    r"^(?:(?:export |public |async |static |pub |abstract )*"
    r"(?:def|class|function|func|fn|interface|impl|struct|enum|trait|type)\b|@\w)"
)
_GAP = re.compile(r"\n[ \t]*\n\s*")


class TextParser:
    """Whatever nobody else claims."""

    suffixes = (".txt", ".text", ".log", ".rst", ".adoc", ".org", ".tex", *sorted(CODE))
    apart = False

    def parse(self, data: bytes, name: str, bounds: Bounds) -> Parsed:  # noqa: ARG002 - the caller bounds text
        text = decoded(data)
        code = PurePosixPath(name.lower()).suffix in CODE
        return Parsed(text=text, blocks=tuple(_code(text) if code else paragraphs(text)), title="")


def decoded(data: bytes) -> str:
    """Text of these bytes. Raises UnsupportedFormat for what is none, and says what it looks like."""
    for mark, name in _BOMS:
        if data.startswith(mark):
            try:
                return clean(data.decode(name))
            except UnicodeDecodeError:
                break
    for magic, what in _MAGIC.items():
        if data.startswith(magic):
            raise UnsupportedFormat(f"it is no text: it looks like {what}", hint="name it by its format, or exclude it")
    head = data[: 1 << 16]
    if len(_CONTROL.findall(head)) * 200 > len(head):
        raise UnsupportedFormat("it is no text: it holds binary content", hint="exclude it")
    try:
        return clean(data.decode("utf-8"))
    except UnicodeDecodeError:
        return clean(data.decode("cp1252", "replace"))


def paragraphs(text: str, start: int = 0, *, page: int = 0) -> list[Block]:
    """What blank lines part; ``start`` is where ``text`` begins in the document."""
    found, at = [], 0
    for gap in [*_GAP.finditer(text), None]:
        end = gap.start() if gap else len(text)
        piece = text[at:end]
        if piece.strip():
            left = len(piece) - len(piece.lstrip("\n"))
            found.append(Block(start + at + left, start + at + len(piece.rstrip()), "paragraph", 0, page))
        at = gap.end() if gap else end
    return found


def _code(text: str) -> list[Block]:
    """Definitions at the margin, each with what follows it."""
    found, begin, at = [], 0, 0
    decorated = False
    for line in text.splitlines(keepends=True):
        if _TOP.match(line):
            if text[begin:at].strip() and not decorated:
                found.append(Block(begin, begin + len(text[begin:at].rstrip()), "code"))
                begin = at
            decorated = line.startswith("@")
        at += len(line)
    if text[begin:].strip():
        found.append(Block(begin, len(text.rstrip()), "code"))
    return found


PLUGIN = TextParser()
