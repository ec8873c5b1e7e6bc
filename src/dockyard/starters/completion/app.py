"""Code completion as an editor asks for it: the text before the cursor, the text after it, and what goes between.

python app.py FILE LINE      what would be suggested at the end of that line
"""

import sys
from pathlib import Path

from connection import connect

BEFORE, AFTER = 2000, 1000


def around(text: str, line: int) -> tuple[str, str]:
    """What stands before and after the end of a line (from 1), as much as a model needs."""
    lines = text.splitlines(keepends=True)
    before = "".join(lines[:line]).rstrip("\n")
    return before[-BEFORE:], ("\n" + "".join(lines[line:]))[:AFTER]


def complete(client, before: str, after: str) -> str:
    """The middle, over the legacy completions endpoint with `suffix`, which is what editors speak."""
    return "".join(chunk.text for chunk in client.complete("complete", before, suffix=after))


def shown(middle: str, after: str) -> str:
    """What is worth suggesting: whole lines, without repeating what follows anyway."""
    rest = after.strip().split("\n")[0]
    lines = []
    for line in middle.split("\n"):
        if rest and line.strip() == rest:
            break
        lines.append(line)
    return "\n".join(lines).rstrip()


if __name__ == "__main__":
    before, after = around(Path(sys.argv[1]).read_text(), int(sys.argv[2]))
    with connect() as client:
        print(shown(complete(client, before, after), after))
