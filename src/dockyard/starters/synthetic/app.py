"""Invented records for tests and demonstrations: valid by grammar, different by sampling, and measured.

python app.py 20 out/tickets.jsonl
"""

import itertools
import json
import re
import sys
from pathlib import Path

from connection import ask, connect

SUBJECTS = ("a late parcel", "a wrong size", "a refund", "a broken lamp", "a lost password")
MOODS = ("calm", "angry", "worried")


def shingles(text: str) -> set:
    found = re.findall(r"\w+", text.lower())
    return {tuple(found[place : place + 3]) for place in range(max(1, len(found) - 2))}


def alike(one: str, other: str) -> float:
    """How much two texts share: the Jaccard index of their runs of three words."""
    mine, theirs = shingles(one), shingles(other)
    return len(mine & theirs) / len(mine | theirs)


def generate(client, count: int, most_alike: float = 0.7, seed: int = 1) -> tuple[list[dict], dict]:
    """``count`` records and a report. A record that is too much like an earlier one, or was cut short, is left out."""
    rows: list[dict] = []
    report = {"asked": 0, "broken": 0, "repeated": 0}
    for subject, mood in itertools.islice(itertools.cycle(itertools.product(SUBJECTS, MOODS)), count * 3):
        if len(rows) == count:
            break
        report["asked"] += 1
        prompt = {"variables": {"subject": subject, "mood": mood}}
        text = ask(client, "ticket", "-", seed=seed + report["asked"], dockyard={"prompt": prompt})
        try:
            row = json.loads(text)
        except ValueError:
            report["broken"] += 1
            continue
        if any(alike(row["body"], earlier["body"]) > most_alike for earlier in rows):
            report["repeated"] += 1
            continue
        rows.append({"subject": subject, "mood": mood, **row})
    pairs = [alike(one["body"], other["body"]) for one, other in itertools.combinations(rows, 2)]
    report["kept"] = len(rows)
    report["mean_likeness"] = round(sum(pairs) / len(pairs), 3) if pairs else 0.0
    return rows, report


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    target = Path(sys.argv[2] if len(sys.argv) > 2 else "out/tickets.jsonl")
    with connect() as client:
        made, told = generate(client, count)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("".join(json.dumps(row) + "\n" for row in made))
    print(told)
