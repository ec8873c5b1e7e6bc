"""python -m unittest: the right tool is called with arguments from the question, and its result is the answer."""

import unittest

from app import offered, run
from connection import connect


class Acts(unittest.TestCase):
    def test_an_agent_calls_and_answers(self) -> None:
        with connect() as client:
            told = run(client, "What is the weather in Oslo?")
            self.assertEqual((told["tool"], told["arguments"]), ("weather", {"city": "Oslo"}), told)
            self.assertIn("rain", told["answer"])
            sums = run(client, "How much is 12 plus 30?")
            self.assertEqual((sums["tool"], sums["found"]), ("add", "42"), sums)

    def test_tools_are_narrowed_by_words(self) -> None:
        self.assertEqual(offered("Is there rain in Lima?"), ["weather"])
        self.assertEqual(offered("Hello"), ["weather", "add"])


if __name__ == "__main__":
    unittest.main()
