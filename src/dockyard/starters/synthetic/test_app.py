"""python -m unittest: records are valid, different, and counted."""

import unittest

from app import alike, generate
from connection import connect


class Invents(unittest.TestCase):
    def test_records_are_valid_and_different(self) -> None:
        with connect() as client:
            rows, report = generate(client, 4)
        self.assertEqual(report["kept"], 4, report)
        self.assertEqual(len({row["body"] for row in rows}), 4)
        for row in rows:
            self.assertIsInstance(row["urgent"], bool)
            self.assertGreaterEqual(len(row["title"]), 5)
        self.assertLess(report["mean_likeness"], 0.5)

    def test_likeness_counts_shared_runs_of_words(self) -> None:
        self.assertEqual(alike("a b c d", "a b c d"), 1.0)
        self.assertEqual(alike("a b c d", "e f g h"), 0.0)


if __name__ == "__main__":
    unittest.main()
