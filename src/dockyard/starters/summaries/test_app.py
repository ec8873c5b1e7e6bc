"""python -m unittest: texts are summarised, and the evaluation says how well."""

import unittest

from app import evaluate, lead, rouge1, texts
from connection import connect


class Summarises(unittest.TestCase):
    def test_summaries_are_shorter_and_say_what_matters(self) -> None:
        with connect() as client:
            found = evaluate(client, "short")
        self.assertEqual(len(found["summaries"]), len(texts()))
        self.assertLess(found["length"], 1.0)
        self.assertGreater(found["rouge1"], 0.35, found)

    def test_the_score_is_that_of_shared_words(self) -> None:
        self.assertEqual(rouge1("a b c d", "a b x y"), 0.5)
        self.assertEqual(rouge1("a", "b"), 0.0)
        self.assertEqual(lead("One. Two."), "One.")


if __name__ == "__main__":
    unittest.main()
