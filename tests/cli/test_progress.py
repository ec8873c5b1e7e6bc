"""What a terminal shows of long work."""

from __future__ import annotations

from dockyard.cli._progress import chart


def test_a_chart_goes_from_the_least_value_to_the_greatest() -> None:
    assert chart([3.0, 2.0, 1.0]) == "█▅▁"
    assert chart([0.5]) == chart([0.5, 0.5])[:1] == "▁"


def test_a_long_run_is_drawn_as_means_of_its_parts() -> None:
    assert chart([float(100 - step) for step in range(100)], width=8) == "█▇▆▅▄▃▂▁"
    assert len(chart([1.0, 2.0] * 500)) == 24
