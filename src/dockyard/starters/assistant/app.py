"""A chat assistant with a memory that lasts: what the user says of themselves is kept and recalled when it matters.

python app.py            talk; an empty line ends
"""

import json
import re
from pathlib import Path

from connection import HERE, ask, connect

KEEP_TURNS = 6
TELLS = re.compile(r"\b(my|i am|i'm|i live|i like|i work|i have)\b", re.IGNORECASE)


class Memory:
    """Facts in a file, and the last turns. Facts are the user's own sentences: nothing is made up in keeping them."""

    def __init__(self, path: Path = HERE / "memory.local.json") -> None:
        self.path = path
        self.turns: list[dict] = []
        self.facts: list[str] = json.loads(path.read_text()) if path.exists() else []

    def learn(self, text: str) -> None:
        for sentence in re.split(r"(?<=[.!?])\s+", text.strip()):
            if TELLS.search(sentence) and not sentence.endswith("?") and sentence not in self.facts:
                self.facts.append(sentence)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.facts, indent=1))
        part.replace(self.path)

    def recall(self, text: str, most: int = 4) -> list[str]:
        """The facts that share most words with the question, then the newest."""
        words = set(re.findall(r"\w+", text.lower()))
        scored = [(len(words & set(re.findall(r"\w+", fact.lower()))), place) for place, fact in enumerate(self.facts)]
        return [self.facts[place] for _, place in sorted(scored, reverse=True)[:most]]


def answer(client, memory: Memory, text: str) -> str:
    """One turn: recall, ask, remember."""
    question = {"role": "user", "content": text}
    prompt = {"variables": {"memory": memory.recall(text)}}
    told = ask(client, "assistant", [*memory.turns, question], dockyard={"prompt": prompt})
    memory.turns = [*memory.turns, question, {"role": "assistant", "content": told}][-KEEP_TURNS:]
    memory.learn(text)
    return told


if __name__ == "__main__":
    memory = Memory()
    with connect() as client:
        while text := input("> ").strip():
            print(answer(client, memory, text))
