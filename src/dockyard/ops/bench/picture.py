"""The trials as a picture: throughput against time a token, the Pareto front joined, the choice marked."""

from __future__ import annotations

from html import escape

from dockyard.ops.bench.tune import Trial, Tuned

WIDTH, HEIGHT, LEFT, BOTTOM, MARGIN = 860, 520, 70, 60, 30


def svg(tuned: Tuned, title: str) -> str:
    """A picture of its own: no script, no font, nothing from elsewhere."""
    shown = [trial for trial in tuned.trials if trial.many is not None]
    across = 1.08 * max([trial.many.tpot_p95 * 1000 for trial in shown if trial.many], default=1.0) or 1.0
    up = 1.1 * max([trial.many.throughput for trial in shown if trial.many], default=1.0) or 1.0

    def place(trial: Trial) -> tuple[float, float]:
        assert trial.many is not None
        x = LEFT + trial.many.tpot_p95 * 1000 / across * (WIDTH - LEFT - MARGIN)
        return x, HEIGHT - BOTTOM - trial.many.throughput / up * (HEIGHT - BOTTOM - 2 * MARGIN)

    parts = [_frame(title, across, up)]
    limit = LEFT + tuned.objective.tpot * 1000 / across * (WIDTH - LEFT - MARGIN)
    if limit < WIDTH - MARGIN:
        parts.append(f'<path d="M{limit:.1f} {2 * MARGIN}V{HEIGHT - BOTTOM}" stroke="#b55" stroke-dasharray="4 4"/>')
        parts.append(_text(limit + 4, 2 * MARGIN + 12, "objective", "#b55"))
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, tuned.front))
    parts.append(f'<polyline points="{line}" fill="none" stroke="#2a7" stroke-width="2"/>')
    for trial in shown:
        x, y = place(trial)
        chosen = trial == tuned.best
        colour = "#d60" if chosen else "#2a7" if trial in tuned.front else "#999"
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{7 if chosen else 5}" fill="{colour}"/>')
        if chosen or trial in tuned.front:
            parts.append(_text(x + 9, y + 4, trial.label + (" (chosen)" if chosen else ""), "#444"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="13"><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _frame(title: str, across: float, up: float) -> str:
    right, floor = WIDTH - MARGIN, HEIGHT - BOTTOM
    parts = [
        _text(LEFT, MARGIN, title, "#222"),
        f'<path d="M{LEFT} {2 * MARGIN}V{floor}H{right}" stroke="#444" fill="none"/>',
    ]
    for step in range(6):
        x, y = LEFT + step / 5 * (right - LEFT), floor - step / 5 * (floor - 2 * MARGIN)
        parts.append(_text(x - 8, floor + 18, f"{across * step / 5:.3g}", "#444"))
        parts.append(_text(22, y + 4, f"{up * step / 5:.3g}", "#444"))
    parts.append(_text(LEFT + 240, HEIGHT - 14, "milliseconds a token (95th percentile of answers)", "#444"))
    parts.append(_text(LEFT + 6, 2 * MARGIN - 8, "tokens a second, all streams", "#444"))
    return "".join(parts)


def _text(x: float, y: float, said: str, colour: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}">{escape(said)}</text>'
