"""``dockyard judge``: how far a model that judges agrees with people."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dockyard.cli._options import AsJson, Host

if TYPE_CHECKING:
    from dockyard.ops.evaluate.calibrate import Calibration


def judge(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV or JSONL of answers that people have labelled.")],
    model: Annotated[list[str], typer.Option("--model", help="Who judges; several times for a panel.")],
    answer: Annotated[str, typer.Option(metavar="COLUMN", help="Column of the answers.")] = "answer",
    label: Annotated[
        str, typer.Option(metavar="COLUMN", help="Column of the labels; several people's, with commas between.")
    ] = "label",
    prompt: Annotated[str, typer.Option(metavar="COLUMN", help="Column of the questions.")] = "",
    rubric: Annotated[str, typer.Option(help="What is asked of the judge.")] = "",
    lowest: Annotated[int, typer.Option(help="Least label.")] = 1,
    scale: Annotated[int, typer.Option(help="Greatest label.")] = 5,
    reasons: Annotated[bool, typer.Option(help="Let the judge give a reason before its verdict.")] = True,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Rows to judge; else all.")] = None,
    as_json: AsJson = False,
    host: Host = None,
) -> None:
    """Measure a judge before it is believed: Cohen's kappa with people's labels, with its interval.

    Verdicts have a fixed form; what is none is counted as nonsense.
    """
    import asyncio

    from dockyard.cli._connect import fetch_missing, find_server, named_server, read_settings
    from dockyard.cli._output import note, show_json
    from dockyard.cli.bench import _in_process
    from dockyard.ops.evaluate.calibrate import Judges, calibrate, check_scale, read
    from dockyard.scorers import Chosen, build

    settings = read_settings()
    labelled = read(file, answer=answer, label=label, prompt=prompt)[:limit]
    options = {"judges": model, "rubric": rubric, "lowest": lowest, "scale": scale, "reasons": reasons}
    build(Chosen(name="judge", options=options))  # a wrong option is told before a model is loaded
    check_scale(file, labelled, lowest, scale)
    if named_server(host) is None:
        for name in model:
            fetch_missing(name, settings, quiet=as_json)

    def done(count: int) -> None:
        if not as_json and (count % 10 == 0 or count == len(labelled)):
            note(f"{count} of {len(labelled)} judged")

    async def run() -> Calibration:
        async with find_server(host, settings) or _in_process(settings) as client:
            scorer = build(Chosen(name="judge", options=options), Judges(client))
            return await calibrate(scorer, "judge", labelled, done=done)

    found = asyncio.run(run())
    if as_json:
        return show_json(found)
    within = f" ({found.interval.low:.2f} to {found.interval.high:.2f})" if found.interval else ""
    kappa = (
        "cannot be said: one of both gave the same label throughout" if found.kappa is None else f"{found.kappa:.2f}"
    )
    print(f"kappa {kappa}{within if found.kappa is not None else ''}")
    print(f"equal labels {found.agreement:.0%} of {found.n}; always the commonest label: {found.chance:.0%}")
    print(f"nonsense {found.nonsense}; {found.seconds:.0f} s")
    return None
