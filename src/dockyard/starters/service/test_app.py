"""python -m unittest: questions are answered, people are asked for, and card numbers reach nobody."""

import tempfile
import unittest
from pathlib import Path

from app import Desk, find_fact
from connection import connect


class Serves(unittest.TestCase):
    def test_a_desk_answers_and_hands_over(self) -> None:
        with tempfile.TemporaryDirectory() as folder, connect() as client:
            desk = Desk(client, Path(folder))
            told = desk.reply("How long does delivery take?")
            self.assertIsNone(told["ticket"])
            self.assertIn("three days", told["answer"])
            self.assertIn("person", desk.reply("Let me talk to a human!")["ticket"]["why"])
            self.assertIn("no fact", desk.reply("Do you sell cars?")["ticket"]["why"])
            blocked = desk.reply("I want a refund on card 4111 1111 1111 1111")
            self.assertIn("guard", blocked["ticket"]["why"])
            files = [file.read_text() for file in Path(folder).iterdir()]
            self.assertEqual(len(files), 3)
            self.assertFalse(any("4111" in text for text in files))

    def test_facts_are_found_by_their_words(self) -> None:
        self.assertIn("Sunday", find_fact("Are you open on Sunday?"))
        self.assertEqual(find_fact("Hello there"), "")


if __name__ == "__main__":
    unittest.main()
