"""Summaries of texts, and how good they are: ROUGE-1 and length against summaries that people wrote.

python app.py            the table, for both prompts and for the first sentence of each text
"""

import json
import re
from collections import Counter
from statistics import fmean

from connection import HERE, ask, connect


def texts() -> list[dict]:
    return [json.loads(line) for line in (HERE / "data" / "texts.jsonl").read_text().splitlines()]


def words(text: str) -> Counter:
    return Counter(re.findall(r"[a-z0-9]+", text.lower()))


def rouge1(summary: str, reference: str) -> float:
    """ROUGE-1 F1: shared words, as `dockyard eval` counts them with the scorer `rouge` without stemming."""
    mine, theirs = words(summary), words(reference)
    shared = sum((mine & theirs).values())
    return 2 * shared / (sum(mine.values()) + sum(theirs.values())) if shared else 0.0


def lead(text: str) -> str:
    """The first sentence: what any summariser has to be measured against."""
    return re.split(r"(?<=[.!?])\s+", text)[0]


def evaluate(client, route: str) -> dict:
    """The mean score of a route, and how long its summaries are beside the texts; "lead" is the first sentence."""
    rows = []
    for one in texts():
        made = lead(one["text"]) if route == "lead" else ask(client, route, one["text"])
        rows.append((rouge1(made, one["summary"]), len(made) / len(one["text"]), made))
    return {
        "route": route,
        "rouge1": round(fmean(row[0] for row in rows), 3),
        "length": round(fmean(row[1] for row in rows), 2),
        "summaries": [row[2] for row in rows],
    }


if __name__ == "__main__":
    with connect() as client:
        for route in ("plain", "short", "lead"):
            found = evaluate(client, route)
            print(f"{route:6} ROUGE-1 {found['rouge1']:.3f}, length {found['length']:.0%} of the text")
