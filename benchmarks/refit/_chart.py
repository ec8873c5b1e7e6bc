"""Charts of docs/concepts: one bar a row, written anew by a run of the group that measures them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

PAGES = Path(__file__).parent.parent.parent / "docs" / "concepts"
COLOURS = ("#2b6cb0", "#b7791f")


class Bar(NamedTuple):
    """``told`` stands behind the bar; ``colour`` is 0 or 1."""

    name: str
    value: float
    told: str
    colour: int = 0


def figures(page: str) -> dict[str, Any]:
    """What was kept of a page's figures before, so that one group can add to another's."""
    path = PAGES / f"{page}.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def keep(page: str, found: dict[str, Any]) -> None:
    """Keep a page's figures."""
    (PAGES / f"{page}.json").write_text(json.dumps(found, indent=2, sort_keys=True) + "\n")


def draw(page: str, title: str, bars: Sequence[Bar], *, least: float = 0.0, logarithmic: bool = False) -> None:
    """Draw a page's chart; bars begin at ``least``."""
    (PAGES / f"{page}.svg").write_text(chart(title, bars, least=least, logarithmic=logarithmic))


def chart(title: str, bars: Sequence[Bar], *, least: float = 0.0, logarithmic: bool = False) -> str:
    """The same as SVG."""
    scale = math.log if logarithmic else float
    most = max(scale(bar.value) for bar in bars)
    start = scale(least) if logarithmic and least else least
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="700" height="{34 + 26 * len(bars)}" '
        'font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="#fff"/>',
        f'<text x="8" y="18">{escape(title)}</text>',
    ]
    for place, bar in enumerate(bars):
        top = 32 + 26 * place
        width = max(1.0, 300 * (scale(bar.value) - start) / max(1e-9, most - start))
        lines += [
            f'<text x="190" y="{top + 14}" text-anchor="end">{escape(bar.name)}</text>',
            f'<rect x="200" y="{top}" width="{width:.1f}" height="18" fill="{COLOURS[bar.colour]}"/>',
            f'<text x="{210 + width:.1f}" y="{top + 14}">{escape(bar.told)}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"
