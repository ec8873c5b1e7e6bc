"""Workbooks: each sheet is a page under its name, each row a line that repeats the names of its columns."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from dockyard.errors import ArtifactError
from dockyard.knowledge.model import Parsed
from dockyard.knowledge.parsers import Bounds, _zipped
from dockyard.knowledge.parsers._blocks import Blocks
from dockyard.knowledge.parsers.csv import lines_of

MOST_ROWS = 200_000


class XlsxParser:
    """By openpyxl, values and no formulas."""

    suffixes = (".xlsx", ".xlsm")
    apart = True

    def parse(self, data: bytes, name: str, bounds: Bounds) -> Parsed:  # noqa: ARG002
        _zipped.check(data, "workbook", bounds)
        import openpyxl

        try:
            book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
            blocks, notes, left = Blocks(), [], MOST_ROWS
            for page, sheet in enumerate(book.worksheets, 1):
                rows: list[list[str]] = []
                for row in sheet.iter_rows(values_only=True):
                    if len(rows) >= left:
                        notes.append(f"sheet {sheet.title!r} has more rows than are read")
                        break
                    if cells := _cells(row):
                        rows.append(cells)
                left -= len(rows)
                blocks.add(str(sheet.title), "heading", level=2, page=page)
                for line in lines_of(rows):
                    blocks.add(line, "table", page=page)
            return blocks.done(pages=len(book.worksheets), notes=tuple(notes))
        except Exception as error:
            raise ArtifactError(f"the workbook is broken: {type(error).__name__}: {error}"[:300]) from error


def _cells(row: Iterable[Any]) -> list[str]:
    cells = ["" if value is None else str(value) for value in row]
    while cells and not cells[-1]:
        cells.pop()
    return cells


PLUGIN = XlsxParser()
