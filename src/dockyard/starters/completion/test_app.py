"""python -m unittest: what is filled in runs, and the editor's configuration names what is served."""

import json
import re
import unittest

from app import around, complete, shown
from connection import HERE, connect

CODE = "def double(x):\n    return\n\nprint(double(2))\n"


class Completes(unittest.TestCase):
    def test_a_middle_is_filled_in(self) -> None:
        before, after = around(CODE, 2)
        self.assertEqual((before, after), ("def double(x):\n    return", "\n\nprint(double(2))\n"))
        with connect() as client:
            names = [model["id"] for model in client.models()]
            middle = shown(complete(client, before, after), after)
        found: dict = {}
        exec(before + middle, found)  # the suggestion, in the place of the cursor
        self.assertEqual(found["double"](21), 42, middle)
        configured = set(re.findall(r"^    model: (\S+)$", (HERE / ".continue/config.yaml").read_text(), re.MULTILINE))
        self.assertEqual(configured, {"complete", "explain"})
        self.assertLessEqual(configured, set(names))

    def test_suggestions_do_not_repeat_what_follows(self) -> None:
        self.assertEqual(shown(" x * 2\n\nprint(double(2))\nmore", "\n\nprint(double(2))\n"), " x * 2")

    def test_the_editors_files_are_json(self) -> None:
        for file in (HERE / ".vscode").iterdir():
            json.loads(file.read_text())


if __name__ == "__main__":
    unittest.main()
