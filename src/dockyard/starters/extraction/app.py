"""Free text in, a table out: each line of a file becomes a row, whose shape the model can't leave.

python app.py data/orders.txt out/orders.csv
"""

import csv
import json
import sys
from pathlib import Path

from connection import ask, connect

COLUMNS = ("customer", "item", "quantity")


def extract(client, text: str) -> dict:
    """The order in a text. The prompt's schema is compiled to a grammar, so the answer is JSON of that shape."""
    return json.loads(ask(client, "extract", text))


def suspicious(row: dict, text: str) -> list[str]:
    """The columns whose value does not stand in the text: a grammar gives shape, not truth, so this is checked."""
    return [column for column in ("customer", "item") if row[column].lower() not in text.lower()]


def table(client, lines: list[str]) -> list[dict]:
    rows = []
    for line in lines:
        row = extract(client, line)
        rows.append({**row, "check": ", ".join(suspicious(row, line))})
    return rows


def write(rows: list[dict], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as sink:
        writer = csv.DictWriter(sink, fieldnames=[*COLUMNS, "check"])
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    source, target = (*sys.argv[1:], "data/orders.txt", "out/orders.csv")[:2] if len(sys.argv) < 3 else sys.argv[1:3]
    lines = [line for line in Path(source).read_text().splitlines() if line.strip()]
    with connect() as client:
        found = table(client, lines)
    write(found, Path(target))
    for row in found:
        print(row)
