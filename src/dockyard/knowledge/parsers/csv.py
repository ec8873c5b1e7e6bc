"""Tables as text: each row becomes a line that repeats the names of its columns, so that it can stand alone."""

from __future__ import annotations

import csv
import io

from dockyard.errors import UnsupportedFormat
from dockyard.knowledge.model import Parsed
from dockyard.knowledge.parsers import Bounds
from dockyard.knowledge.parsers._blocks import Blocks
from dockyard.knowledge.parsers.text import decoded

MOST_CELL = 100_000


class CsvParser:
    """With commas, semicolons, tabs or bars: the delimiter is found."""

    suffixes = (".csv", ".tsv")
    apart = False

    def parse(self, data: bytes, name: str, bounds: Bounds) -> Parsed:  # noqa: ARG002
        text = decoded(data)
        csv.field_size_limit(MOST_CELL)
        try:
            dialect: type[csv.Dialect] | csv.Dialect = csv.Sniffer().sniff(text[:8192], delimiters=",;\t|")
        except csv.Error:
            dialect = csv.excel_tab if name.lower().endswith(".tsv") else csv.excel
        try:
            rows = [row for row in csv.reader(io.StringIO(text), dialect) if any(cell.strip() for cell in row)]
        except csv.Error as error:
            raise UnsupportedFormat(f"it is no table: {error}") from error
        blocks = Blocks()
        for line in lines_of(rows):
            blocks.add(line, "table")
        return blocks.done()


def lines_of(rows: list[list[str]]) -> list[str]:
    """``Name: Ann | Town: Rome`` for each row below one of names; rows as they are where the first has a number."""
    if not rows:
        return []
    head = [" ".join(cell.split()) for cell in rows[0]]
    named = len(rows) > 1 and all(head) and not any(_number(cell) for cell in head) and len(set(head)) == len(head)
    if not named:
        return [" | ".join(" ".join(cell.split()) for cell in row) for row in rows]
    found = []
    for row in rows[1:]:
        cells = [" ".join(cell.split()) for cell in row]
        names = [*head, *(f"column {place + 1}" for place in range(len(head), len(cells)))]
        found.append(" | ".join(f"{name}: {cell}" for name, cell in zip(names, cells, strict=False) if cell))
    return [line for line in found if line]


def _number(text: str) -> bool:
    try:
        float(text.replace(",", ""))
    except ValueError:
        return False
    return True


PLUGIN = CsvParser()
