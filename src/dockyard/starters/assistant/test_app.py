"""python -m unittest: the assistant remembers from one conversation to the next."""

import tempfile
import unittest
from pathlib import Path

from app import Memory, answer
from connection import connect


class Remembers(unittest.TestCase):
    def test_what_was_said_yesterday_is_known_today(self) -> None:
        with tempfile.TemporaryDirectory() as folder, connect() as client:
            file = Path(folder) / "memory.json"
            answer(client, Memory(file), "My dog is called Biscuit. How are you?")
            today = Memory(file)
            self.assertEqual(today.facts, ["My dog is called Biscuit."])
            self.assertIn("Biscuit", answer(client, today, "What is my dog called?"))

    def test_questions_are_no_facts(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            memory = Memory(Path(folder) / "memory.json")
            memory.learn("What is my name? I live in Oslo.")
            self.assertEqual(memory.facts, ["I live in Oslo."])
            self.assertEqual(memory.recall("Where do I live?"), ["I live in Oslo."])


if __name__ == "__main__":
    unittest.main()
