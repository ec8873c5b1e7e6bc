"""python -m unittest: every line becomes a row of the right shape, and most are right."""

import csv
import tempfile
import unittest
from pathlib import Path

from app import COLUMNS, suspicious, table, write
from connection import HERE, connect


class Extracts(unittest.TestCase):
    def test_lines_become_rows(self) -> None:
        lines = (HERE / "data" / "orders.txt").read_text().splitlines()
        with connect() as client:
            rows = table(client, lines)
        self.assertEqual([set(COLUMNS) <= set(row) for row in rows], [True] * len(lines))
        self.assertTrue(all(isinstance(row["quantity"], int) for row in rows))
        right = sum(str(row["quantity"]) in line and not row["check"] for row, line in zip(rows, lines))
        self.assertGreaterEqual(right, 2, rows)
        with tempfile.TemporaryDirectory() as folder:
            write(rows, Path(folder) / "out.csv")
            with (Path(folder) / "out.csv").open() as source:
                self.assertEqual(len(list(csv.DictReader(source))), len(lines))

    def test_what_is_not_in_the_text_is_marked(self) -> None:
        self.assertEqual(suspicious({"customer": "Zoe", "item": "mugs"}, "two mugs for Al"), ["customer"])


if __name__ == "__main__":
    unittest.main()
