"""python -m unittest: an answer is in the documents and cited, or it is said that it is not there."""

import unittest

from app import answer, index
from connection import connect


class Answers(unittest.TestCase):
    def test_answers_are_cited_or_refused(self) -> None:
        index()
        with connect() as client:
            told = answer(client, "How far does the lamp shine?")
            missing = answer(client, "Who won the football cup in 1990?")
        self.assertIn("nineteen", told["answer"], told)
        self.assertTrue(told["citations"], told)
        self.assertIn("handbook.md", str(told["citations"]))
        self.assertFalse(missing["citations"], missing)


if __name__ == "__main__":
    unittest.main()
