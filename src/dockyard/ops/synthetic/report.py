"""What is to be said of synthetic data: how it came about, how like the seeds it is, and whether it gives them away."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """A column's likeness: ``distance`` is Kolmogorov-Smirnov's for numbers, total variation for words; 0 to 1."""

    name: str
    kind: str
    distance: float


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """``fidelity`` and ``privacy`` are figures by name, which ``meanings`` puts into words."""

    method: str
    made: int
    seeds: int
    attempts: int = 0
    left_out: dict[str, int] = {}
    fidelity: dict[str, float] = {}
    privacy: dict[str, float] = {}
    columns: tuple[Column, ...] = ()


MEANINGS = {
    "distinct_2": "different word pairs, of all word pairs: how varied the text is",
    "seed_distinct_2": "the same of the seeds",
    "mean_words": "words of a record",
    "seed_mean_words": "words of a seed",
    "nearest_seed": "mean similarity to the nearest seed (Jaccard of word 5-grams): 1 would be copies",
    "copied": "records that share 13 words with a seed",
    "mean_distance": "mean distance of the columns' distributions: 0 is the same",
    "correlation_difference": "mean absolute difference of rank correlations between columns",
    "detected": "area under the curve of a nearest-neighbour test that tells real rows from made: 0.5 is not at all",
    "exact_copies": "rows that are real ones",
    "closer_than_real": "made rows nearer to a training row than to a held-out one: 0.5 is what strangers have",
    "closest_record": "median distance to the nearest real row",
    "closest_held_out": "the same for real rows that were held out",
}


def markdown(report: Report) -> str:
    """The report for people."""
    lines = [
        f"# Synthetic data: {report.method}",
        "",
        f"{report.made} records from {report.seeds} seeds"
        + (f", in {report.attempts} attempts" if report.attempts else "")
        + ".",
    ]
    if report.left_out:
        lines += [
            "",
            "Left out: " + ", ".join(f"{count} {why}" for why, count in sorted(report.left_out.items())) + ".",
        ]
    for title, figures in (("Fidelity", report.fidelity), ("Privacy", report.privacy)):
        lines += _table(title, figures) if figures else []
    if report.columns:
        lines += ["", "| column | kind | distance |", "|---|---|---|"]
        lines += [f"| {each.name} | {each.kind} | {each.distance:.3f} |" for each in report.columns]
    return "\n".join(lines) + "\n"


def _table(title: str, figures: Mapping[str, float]) -> list[str]:
    rows = [f"| {name} | {value:.3f} | {MEANINGS.get(name, '')} |" for name, value in figures.items()]
    return ["", f"## {title}", "", "| figure | value | what it is |", "|---|---|---|", *rows]
