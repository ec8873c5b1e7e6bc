"""``dockyard diff``: what changed between two models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dockyard.cli._complete import model_names
from dockyard.cli._options import AsJson

if TYPE_CHECKING:
    from dockyard.ops.diff import Diff, Side

First = Annotated[str, typer.Argument(metavar="FIRST", help="Name, digest or id.", autocompletion=model_names)]
Second = Annotated[str, typer.Argument(metavar="SECOND", help="What is held against it.", autocompletion=model_names)]


def diff(
    first: First,
    second: Second,
    weights: Annotated[bool, typer.Option(help="Compare weights, tensor by tensor; reads them all.")] = True,
    as_json: AsJson = False,
) -> None:
    """Hold SECOND against FIRST: weights, figures with intervals, size, speed, licence.

    Figures come from the reports that are attached to both, and are compared item by item.
    """
    from dockyard.cli._connect import open_store
    from dockyard.cli._output import note, show_json
    from dockyard.ops.diff import diff as compute

    def done(count: int, of: int) -> None:
        if not as_json and (count % 100 == 0 and of > 100):
            note(f"{count} of {of} tensors compared")

    found = compute(open_store(), first, second, weights=weights, done=done)
    if as_json:
        return show_json(found)
    _facts(found)
    _weights(found)
    _figures(found)
    return None


def _facts(found: Diff) -> None:
    from dockyard.cli._output import show_table, size

    def row(what: str, tell: str) -> tuple[str, str, str]:
        return what, _tell(found.first, tell), _tell(found.second, tell)

    share = (found.second.size - found.first.size) / found.first.size if found.first.size else 0.0
    show_table(
        ("", found.first.name, found.second.name),
        [
            ("digest", found.first.digest[7:19], found.second.digest[7:19]),
            ("size", size(found.first.size), f"{size(found.second.size)} ({share:+.1%})"),
            *(row(what, what) for what in ("format", "parameters", "quantization", "context", "operation")),
            row("licence", "licences"),
            row("inherited", "inherited"),
        ],
    )
    told = {"child": "the second was made from the first", "parent": "the first was made from the second",
            "siblings": "both have a common ancestor", "same": "they are one artifact"}  # fmt: skip
    print(f"\nRelation: {told.get(found.relation, 'none that is known')}")
    for each in found.files:
        change = " → ".join("-" if value is None else size(value) for value in (each.first, each.second))
        print(f"  {each.path}: {change}")


def _tell(side: Side, name: str) -> str:
    value = getattr(side, name)
    return ", ".join(value) or "-" if isinstance(value, tuple) else "-" if value is None else str(value)


def _weights(found: Diff) -> None:
    from dockyard.cli._output import show_table

    weights = found.weights
    if weights.why:
        print(f"\nWeights: {weights.why}")
        return
    print(f"\nWeights: {weights.same} of {weights.compared} tensors are the same; all together changed by "
          f"{weights.relative or 0.0:.2%} (L2)")  # fmt: skip
    if weights.most:
        print("  " + ", ".join(f"{part} {value:.2%}" for part, value in weights.parts.items()))
        show_table(
            ("most changed", "types", "change", "largest", "cosine"),
            [
                (each.name, f"{each.first_type} → {each.second_type}", f"{each.relative:.2%}", f"{each.largest:.3g}",
                 f"{each.cosine:.4f}")
                for each in weights.most
            ],
        )  # fmt: skip
    for what, names in (("first", weights.only_first), ("second", weights.only_second)):
        if names:
            print(f"  {len(names)} tensors only in the {what}: {', '.join(names[:5])}")
    if weights.reshaped:
        print(f"  {len(weights.reshaped)} tensors of another shape: {', '.join(weights.reshaped[:5])}")


def _figures(found: Diff) -> None:
    from dockyard.cli._output import show_table

    rows = []
    for each in found.figures:
        for one in each.metrics:
            if one.difference is None:
                rows.append((f"{each.suite}/{one.metric.name}", "-", "-", "-", one.why))
                continue
            d = one.difference
            within = f"{d.difference:+.4g} ({d.interval.low:+.4g} to {d.interval.high:+.4g})"
            rows.append((f"{each.suite}/{one.metric.name}", f"{d.first:.4g}", f"{d.second:.4g}", within, d.verdict))
    print()
    if rows:
        show_table(("figure", "first", "second", "difference", "verdict"), rows)
    else:
        print("Figures: no suite was put to both")
    for told in found.unmatched:
        print(f"  {told}")
    for speed in found.speed:
        share = f" ({speed.relative:+.1%})" if speed.relative is not None else ""
        print(f"Speed, {speed.what}: {speed.first:.4g} → {speed.second:.4g}{share}; one measurement each")
