"""The losses of a run as a picture and as figures."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import msgspec

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 860, 420, 70, 50, 50
COLOURS = {"loss": "#27a", "eval_loss": "#d60"}
NAMES = {"loss": "training", "eval_loss": "held out"}


class Point(msgspec.Struct, frozen=True):
    """One figure of a run: what it is, at which step."""

    step: int
    name: str
    value: float


def svg(points: Sequence[Point], title: str) -> str:
    """Losses against steps; a picture of its own: no script, no font, nothing from elsewhere."""
    lines = {name: [point for point in points if point.name == name] for name in COLOURS}
    shown = [point for line in lines.values() for point in line]
    last = max([point.step for point in shown], default=1)
    top = max([point.value for point in shown], default=1.0)
    low = min([point.value for point in shown], default=0.0)
    high = (top - low) or 1.0

    def place(point: Point) -> str:
        x = LEFT + point.step / last * (WIDTH - LEFT - 30)
        y = TOP + (top - point.value) / high * (HEIGHT - TOP - BOTTOM)
        return f"{x:.1f},{y:.1f}"

    parts = [_text(LEFT, 26, title, 15), f'<path d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - 30}" {_STROKE}/>']
    for share in (0.0, 0.5, 1.0):
        y = TOP + (1 - share) * (HEIGHT - TOP - BOTTOM)
        parts.append(_text(8, y + 4, f"{low + share * high:.3f}"))
        parts.append(_text(LEFT + share * (WIDTH - LEFT - 60), HEIGHT - BOTTOM + 20, f"{share * last:.0f}"))
    for number, (name, line) in enumerate(lines.items()):
        if line:
            path = " ".join(map(place, line))
            parts.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"/>')
            parts.append(_text(WIDTH - 130, TOP + 18 * number, NAMES[name], colour=COLOURS[name]))
    parts.append(_text(WIDTH // 2, HEIGHT - 10, "step"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="13"><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


_STROKE = 'fill="none" stroke="#888"'


def _text(x: float, y: float, text: str, size: int = 12, colour: str = "#444") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}">{escape(text)}</text>'
