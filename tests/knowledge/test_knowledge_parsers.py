"""Every format that is read, and everything that is wrong with files in the wild: a line each, and the rest goes on."""

from __future__ import annotations

import io
import zipfile
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("lancedb", reason="the extra `knowledge` is not installed")

from dockyard.errors import ArtifactError, PayloadTooLarge, UnsafeContent, UnsupportedFormat
from dockyard.knowledge.chunkers import chunk
from dockyard.knowledge.model import Cut, Parsed
from dockyard.knowledge.parsers import Bounds
from dockyard.knowledge.parsers._apart import Apart


def parse(name: str, data: bytes, **bounds: float) -> Parsed:
    with Apart(Bounds(**bounds)) as apart:  # type: ignore[arg-type]  # numbers of several kinds
        return apart.parse(data, name)


def kinds(parsed: Parsed) -> list[tuple[str, str]]:
    return [(block.kind, parsed.text[block.start : block.end]) for block in parsed.blocks]


def pdf(*pages: str, password: str = "") -> bytes:
    """A PDF with a line of text on each page."""
    from pypdf import PdfReader, PdfWriter

    objects = ["<< /Type /Catalog /Pages 2 0 R >>", ""]
    for text in pages:
        stream = f"BT /F1 12 Tf 72 700 Td ({text}) Tj ET"
        font = "<< /Font << /F1 << /Type /Font /Subtype /Type1 /BaseFont /Helvetica >> >> >>"
        number = len(objects) + 1
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents {number + 1} 0 R /Resources {font} >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    kids = " ".join(f"{3 + 2 * place} 0 R" for place in range(len(pages)))
    objects[1] = f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>"
    body, places = "%PDF-1.4\n", []
    for number, text in enumerate(objects, 1):
        places.append(len(body))
        body += f"{number} 0 obj\n{text}\nendobj\n"
    start = len(body)
    body += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n" + "".join(f"{at:010d} 00000 n \n" for at in places)
    body += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF"
    data = body.encode()
    if password:
        writer = PdfWriter(PdfReader(io.BytesIO(data)))
        writer.encrypt(password, algorithm="RC4-128")
        sink = io.BytesIO()
        writer.write(sink)
        return sink.getvalue()
    return data


def docx() -> bytes:
    import docx as library

    document = library.Document()
    document.add_heading("Rules", 1)
    document.add_paragraph("Dogs stay outside.")
    table = document.add_table(rows=1, cols=2)
    table.cell(0, 0).text, table.cell(0, 1).text = "Gate", "3"
    sink = io.BytesIO()
    document.save(sink)
    return sink.getvalue()


def test_markdown_keeps_its_own_offsets() -> None:
    source = (
        "---\ntitle: The rules\n---\n# Rules\n\nDogs stay *outside*.\n\n```py\nx = 1\n```\n\n"
        "| a | b |\n|---|---|\n| 1 | 2 |\n"
    )
    parsed = parse("rules.md", source.encode())
    assert parsed.text == source
    assert parsed.title == "The rules"
    assert kinds(parsed)[:3] == [
        ("heading", "# Rules"),
        ("paragraph", "Dogs stay *outside*."),
        ("code", "```py\nx = 1\n```"),
    ]
    (span,) = chunk(parsed, Cut())
    assert span.heading == "The rules > Rules"
    assert parsed.text[span.start : span.end].startswith("Dogs stay")


def test_html_is_what_a_reader_sees() -> None:
    page = (
        "<html><head><title>Port</title><script>evil()</script></head><body><nav>Home</nav><h1>Port</h1>"
        "<p>Open\n<b>daily</b>.</p><ul><li>North<li>South</ul><table><tr><td>Gate<td>3</table></body></html>"
    )
    parsed = parse("index.html", page.encode())
    assert "evil" not in parsed.text
    assert "Home" not in parsed.text
    assert kinds(parsed) == [
        ("heading", "Port"), ("paragraph", "Open daily."), ("list", "- North"), ("list", "- South"),
        ("table", "Gate | 3"),
    ]  # fmt: skip


def test_office_files_and_tables() -> None:
    told = kinds(parse("a.docx", docx()))
    assert told == [
        ("heading", "Rules"),
        ("paragraph", "Dogs stay outside."),
        ("table", "Gate | 3"),
    ]
    import openpyxl
    import pptx

    book = openpyxl.Workbook()
    book.active.append(["Name", "Fee"])
    book.active.append(["Halcyon", 45])
    sink = io.BytesIO()
    book.save(sink)
    assert kinds(parse("a.xlsx", sink.getvalue())) == [("heading", "Sheet"), ("table", "Name: Halcyon | Fee: 45")]
    show = pptx.Presentation()
    slide = show.slides.add_slide(show.slide_layouts[1])
    slide.shapes.title.text, slide.placeholders[1].text = "Tides", "High at noon"
    sink = io.BytesIO()
    show.save(sink)
    parsed = parse("a.pptx", sink.getvalue())
    assert kinds(parsed) == [("heading", "Tides"), ("list", "High at noon")]
    assert parsed.blocks[1].page == 1
    assert parse("a.csv", b"Name;Fee\nHalcyon;45\n").text == "Name: Halcyon | Fee: 45"


def test_pdf_has_pages() -> None:
    parsed = parse("a.pdf", pdf("The first page speaks of tides.", "The second page of ropes."))
    assert parsed.pages == 2
    assert [(block.page, parsed.text[block.start : block.end]) for block in parsed.blocks] == [
        (1, "The first page speaks of tides."), (2, "The second page of ropes."),
    ]  # fmt: skip


def test_a_claim_needs_its_numbers_and_a_passage_the_names() -> None:
    from dockyard.knowledge.claims import about, rarity, support
    from dockyard.knowledge.model import Document, Hit

    text = "A boat longer than twelve metres pays 45 crowns a night. The master is Mira Oldane."
    hit = Hit(base="b", document=Document(number=1, source=1, path="fees.md", digest="", title="Harbour of Keldor"),
              text=text, heading="Fees", start=100, end=100 + len(text), page=0, score=1.0)  # fmt: skip
    weights = rarity([text])
    found = support("Boats longer than 12 metres pay 45 crowns.", [hit], weights)
    assert found is not None
    assert text[found.start - 100 : found.end - 100] == "A boat longer than twelve metres pays 45 crowns a night."
    assert support("Boats longer than 12 metres pay 54 crowns.", [hit], weights) is None
    assert support("The master is Teo Oldane.", [hit], weights) is None
    assert about("What does a boat pay in Keldor?", [hit]) == [hit]
    assert about("What does a boat pay in Kelgate?", [hit]) == []


def test_code_is_cut_between_definitions() -> None:
    source = b"import os\n\n\ndef first():\n    return 1\n\n\n@cached\nclass Second:\n    x = 2\n"
    parsed = parse("m.py", source)
    assert [text.split("\n")[0] for _, text in kinds(parsed)] == ["import os", "def first():", "@cached"]


def bomb() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/document.xml", b"\0" * (64 << 20))
    return sink.getvalue()


@pytest.mark.parametrize(
    ("name", "make", "error", "told"),
    [
        ("locked.pdf", lambda: pdf("x", password="secret"), UnsafeContent, "encrypted"),
        ("broken.pdf", lambda: b"%PDF-1.4 and nothing more", ArtifactError, "broken"),
        ("scan.pdf", lambda: pdf(""), UnsupportedFormat, "no text"),
        ("bomb.docx", bomb, UnsafeContent, "not opened"),
        ("broken.docx", lambda: docx()[:400], ArtifactError, "broken"),
        ("locked.docx", lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600, UnsafeContent, "encrypted"),
        ("binary.txt", lambda: bytes(range(256)) * 64, UnsupportedFormat, "binary"),
        ("program.txt", lambda: b"\x7fELF" + b"\0" * 64, UnsupportedFormat, "a program"),
        ("empty.txt", lambda: b" \n ", UnsupportedFormat, "no text"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(name: str, make: object, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        parse(name, make())  # type: ignore[operator]


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(PayloadTooLarge, match="2048 is the most"):
        parse("a.txt", b"x" * 4000, most=2048)


def test_a_parser_that_takes_too_long_is_ended_and_replaced() -> None:
    with Apart(Bounds(seconds=0.001)) as apart:
        for _ in range(2):
            with pytest.raises(UnsafeContent, match="takes more than"):
                apart.parse(b"<p>Slow.</p>", "slow.html")


def test_a_parser_that_takes_too_much_memory_is_told() -> None:
    with Apart(Bounds(memory=400 << 20)) as apart:
        with pytest.raises((UnsafeContent, ArtifactError)):
            apart.parse(b"<p>" + b"x" * (60 << 20), "large.html")
        assert apart.parse(b"<p>Still here.</p>", "fine.html").text == "Still here."


def test_text_of_other_encodings() -> None:
    assert parse("a.txt", "Größe".encode("utf-16")).text == "Größe"
    assert parse("a.txt", "Größe".encode("cp1252")).text == "Größe"


@pytest.mark.parametrize("chunker", ["structure", "sentences", "fixed"])
def test_chunks_are_spans_in_order_within_the_size(chunker: str) -> None:
    text = "# One\n\n" + " ".join(f"Sentence number {n} says a little." for n in range(80)) + "\n\n# Two\n\nShort.\n"
    parsed = parse("a.md", text.encode())
    spans = chunk(parsed, Cut(chunker=chunker, size=300))
    assert all(0 < span.end - span.start <= 300 for span in spans)
    assert [span.start for span in spans] == sorted(span.start for span in spans)
    joined = "".join("".join(parsed.text[span.start : span.end] for span in spans).split())
    assert all(f"number{n}says" in joined for n in range(80))
    if chunker == "structure":
        assert spans[-1].heading.endswith("Two")
        overlapping = chunk(parsed, Cut(size=300, overlap=80))
        assert any(later.start < sooner.end for sooner, later in pairwise(overlapping))
