"""Makes docs/performance.md and its chart from docs/performance.json, which ``make bars NAME=serving`` writes."""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
WIDTH, HEIGHT, LEFT, FLOOR, TOP = 900, 300, 60, 240, 40
COLOURS = ("#d60", "#269")

INTRODUCTION = """# Performance

Tokens a second of all streams together, over HTTP, greedy, {tokens} tokens an answer, every stream with a prompt of its
own; medians of turns that the servers took one after the other on one machine:
{machine}.
The figures depend on the machine; what counts is the ratio. `make bars NAME=serving` measures them again, beside the
same peers, and says which bars are met. Dockyard serves from OpenVINO with weights written in eight bits, and with
activations rounded to eight bits where this CPU is faster so; `dockyard bench --tune` tries both;
[why, and how it is without AVX-512](decisions/006-weights-for-the-kernels.md).

![Tokens a second by streams](performance.svg)
"""


def page(found: dict[str, object]) -> str:
    """The page; a table for each peer."""
    parts = [INTRODUCTION.format(tokens=found["tokens"], machine=found["machine"])]
    for peer, levels in dict(found["against"]).items():  # type: ignore[call-overload]
        parts.append(f"\n## Against {peer}\n\n| streams | Dockyard | peer | ratio | bar |\n|---|---|---|---|---|\n")
        for streams, (ours, theirs, ratio, bar) in levels.items():
            parts.append(f"| {streams} | {ours:.0f} | {theirs:.0f} | {ratio:.2f} | {bar} |\n")
    return "".join(parts)


def chart(found: dict[str, object]) -> str:
    """Bars in pairs, ours first, a panel for each peer."""
    panels = dict(found["against"])  # type: ignore[call-overload]
    wide = (WIDTH - LEFT) / max(1, len(panels))
    most = max(max(row[0], row[1]) for levels in panels.values() for row in levels.values())
    parts = []
    for place, (peer, levels) in enumerate(panels.items()):
        left = LEFT + place * wide
        parts.append(_text(left, 20, f"against {peer}"))
        step = (wide - 30) / len(levels)
        for number, (streams, row) in enumerate(levels.items()):
            for which in (0, 1):
                high = row[which] / most * (FLOOR - TOP)
                x = left + number * step + which * step * 0.4
                parts.append(
                    f'<rect x="{x:.1f}" y="{FLOOR - high:.1f}" width="{step * 0.38:.1f}" height="{high:.1f}" '
                    f'fill="{COLOURS[which]}"><title>{row[which]:.0f} tokens/s</title></rect>'
                )
            parts.append(_text(left + number * step, FLOOR + 16, streams))
    for step in range(5):
        y = FLOOR - step / 4 * (FLOOR - TOP)
        parts.append(_text(8, y + 4, f"{most * step / 4:.0f}"))
    parts.append(_text(LEFT, HEIGHT - 12, "streams; orange: Dockyard, blue: the peer; tokens a second"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _text(x: float, y: float, said: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="#333">{escape(said)}</text>'


def main() -> None:
    found = json.loads((DOCS / "performance.json").read_text())
    written = {"performance.md": page(found), "performance.svg": chart(found)}
    stale = [name for name, text in written.items() if _read(DOCS / name) != text]
    if "--check" in sys.argv:
        sys.exit(f"stale: {', '.join(stale)}; run `make docs`" if stale else 0)
    for name, text in written.items():
        (DOCS / name).write_text(text)


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    main()
