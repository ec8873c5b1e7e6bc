"""A run as a picture: each metric's value and interval on its own scale. No script, no font, nothing from elsewhere."""

from __future__ import annotations

from html import escape

from dockyard.ops.evaluate.result import Aggregate, Run
from dockyard.ops.report.markdown import number

WIDTH, LEFT, RIGHT, STEP, TOP = 860, 230, 190, 44, 70


def chart(run: Run) -> str:
    """The picture as SVG; the same run gives the same text."""
    shown = [each for each in run.aggregates if each.value is not None]
    height = TOP + STEP * max(1, len(shown)) + 20
    title = f"{run.suite}: {run.subject.name}"
    parts = [_text(20, 30, title, "#222", 16), *(_row(TOP + STEP * at, each) for at, each in enumerate(shown))]
    if not shown:
        parts.append(_text(20, TOP, "no metric could be computed", "#b33"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="13" role="img" aria-label="{escape(title)}"><rect width="100%" height="100%" fill="#fff"/>'
        f"{''.join(parts)}</svg>\n"
    )


def _row(y: float, each: Aggregate) -> str:
    assert each.value is not None
    low = each.interval.low if each.interval else each.value
    high = each.interval.high if each.interval else each.value
    first, last = _scale(each, low, high)
    span = (last - first) or 1.0

    def place(value: float) -> float:
        return LEFT + (value - first) / span * (WIDTH - LEFT - RIGHT)

    middle = y + 4
    told = f"{number(each.value)}  [{number(low)}, {number(high)}]  n={each.n}"
    return "".join(
        (
            _text(20, y + 8, each.metric.name, "#222"),
            f'<path d="M{LEFT} {middle}H{WIDTH - RIGHT}" stroke="#ddd"/>',
            f'<path d="M{place(low):.1f} {middle}H{place(high):.1f}" stroke="#2a7" stroke-width="6"/>',
            f'<circle cx="{place(each.value):.1f}" cy="{middle}" r="5" fill="#d60"/>',
            _text(LEFT, y + 22, number(first), "#888", 10),
            _text(WIDTH - RIGHT - 24, y + 22, number(last), "#888", 10),
            _text(WIDTH - RIGHT + 10, y + 8, told, "#444", 11),
        )
    )


def _scale(each: Aggregate, low: float, high: float) -> tuple[float, float]:
    """From nought to one for shares, else wide enough for the interval, and from nought where that is near."""
    if each.metric.kind == "proportion":
        return 0.0, 1.0
    first = 0.0 if low >= 0 else low * 1.1
    return first, high * 1.15 if high > 0 else 0.0


def _text(x: float, y: float, said: str, colour: str, size: int = 13) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" font-size="{size}">{escape(said)}</text>'
