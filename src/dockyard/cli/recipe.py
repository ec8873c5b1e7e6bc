"""``dockyard recipe``: models changed step by step, judged, and named only if they pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dockyard.cli._options import AsJson

if TYPE_CHECKING:
    from dockyard.ops.evaluate.result import Run
    from dockyard.ops.recipe import Opened
    from dockyard.settings import Settings

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, add_completion=False, help="Change models step by step, by a file."
)

File = Annotated[str, typer.Argument(metavar="RECIPE", help="A YAML file, or a recipe that comes along.")]
Base = Annotated[str | None, typer.Option("--base", metavar="MODEL", help="Start from this model instead.")]
Named = Annotated[str | None, typer.Option("--name", help="Call what is made so instead.")]
Data = Annotated[
    list[str] | None,
    typer.Option("--data", metavar="NAME=FILE", help="Take the recipe's data NAME from this file or data set."),
]


@app.command("run")
def run(recipe: File, base: Base = None, name: Named = None, data: Data = None, as_json: AsJson = False) -> int:
    """Do what RECIPE says, from wherever it was stopped; exit code 5 if what it made does not pass its gate.

    Steps that were made before are found and not made again. The published name is given on a pass alone.
    """
    from dockyard.cli._connect import fetch_missing, open_store, read_settings
    from dockyard.cli._output import show_json
    from dockyard.cli._progress import progress
    from dockyard.ops.recipe.run import run as cook

    settings = read_settings()
    opened = _opened(recipe, base, name, data)
    fetch_missing(opened.recipe.base, settings, quiet=as_json)
    store = open_store(settings)
    with store.lease(), progress(quiet=as_json) as show:
        found = cook(store, opened, _evaluator(settings), on_progress=show)
    if as_json:
        show_json(found)
        return 0 if found.passed else 5
    for step in found.steps:
        print(f"{step.step:24} {step.digest}{' (it was here already)' if step.reused else ''}")
    for each in found.decision.outcomes if found.decision else ():
        print(f"{'passed' if each.passed else 'FAILED'}  {each.rule}: {each.told}")
    if found.published:
        print(f"published as {found.published}")
    elif not found.passed:
        print("it does not pass: no name was given")
    return 0 if found.passed else 5


@app.command("plan")
def plan(
    recipe: File,
    base: Base = None,
    name: Named = None,
    data: Data = None,
    graph: Annotated[bool, typer.Option("--graph", help="Print it as a Mermaid graph.")] = False,
    as_json: AsJson = False,
) -> int:
    """Say what a run of RECIPE would do and cost: memory, disk, minutes; nothing is made."""
    from dockyard.cli._connect import fetch_missing, open_store, read_settings
    from dockyard.cli._output import note, show_json, show_table, size
    from dockyard.ops.recipe.graph import mermaid
    from dockyard.ops.recipe.run import plan as look

    settings = read_settings()
    opened = _opened(recipe, base, name, data)
    fetch_missing(opened.recipe.base, settings, quiet=as_json)
    store = open_store(settings)
    with store.lease():
        found = look(store, opened)
    refused = [each for each in found if each.refusal]
    if graph:
        print(mermaid(opened, found), end="")
    elif as_json:
        show_json(found)
    else:
        rows = [
            (
                each.step,
                each.state,
                size(each.cost.memory) if each.cost else "-",
                size(each.cost.disk) if each.cost else "-",
                f"{each.cost.minutes:.1f}" if each.cost and each.state != "made" else "-",
            )
            for each in found
        ]
        show_table(("step", "state", "memory", "disk", "minutes"), rows)
    for each in refused:
        note(f"error: step {each.step} does not fit: {each.refusal}")
    return 6 if refused else 0


@app.command("ls")
def ls(as_json: AsJson = False) -> None:
    """List the recipes that come along."""
    from dockyard.cli._output import show_json, show_table
    from dockyard.ops.recipe import shipped

    found = shipped()
    if as_json:
        return show_json(found)
    return show_table(
        ("name", "data", "what it does"), [(k, ", ".join(v.data), v.description) for k, v in found.items()]
    )


@app.command("show")
def show(recipe: File) -> None:
    """Print RECIPE, to start one of your own from."""
    from dockyard.ops.recipe import SHIPPED, read

    read(recipe)
    path = SHIPPED / f"{recipe}.yaml"
    print((path if path.is_file() else Path(recipe)).read_text(encoding="utf-8"), end="")


def _opened(recipe: str, base: str | None, name: str | None, data: list[str] | None) -> Opened:
    from dockyard.errors import InvalidRequest
    from dockyard.ops.recipe import changed, read

    pairs = [text.partition("=") for text in data or []]
    wrong = next((key for key, equals, _ in pairs if not equals), None)
    if wrong is not None:
        raise InvalidRequest(f"--data {wrong}: NAME=FILE is wanted", param="data")
    return changed(read(recipe), base=base, name=name, data={key: path for key, _, path in pairs})


def _evaluator(settings: Settings) -> Callable[[str, str], Run]:
    """Puts suites to models as they are served: by a running server, or in this process."""

    def measure(suite: str, model: str) -> Run:
        import asyncio

        from dockyard.cli._connect import find_server, open_store
        from dockyard.cli._progress import progress
        from dockyard.cli.run import in_process
        from dockyard.ops.evaluate import artifact
        from dockyard.ops.evaluate.run import evaluate
        from dockyard.ops.evaluate.subject import subject_of

        store = open_store(settings)
        loaded = artifact.find(store, suite, settings.home_path / "evaluations" / "suites")

        async def asked() -> Run:
            async with find_server(None, settings) or in_process(settings) as client:
                subject = await subject_of(client, model, store)
                with progress(quiet=True) as show:
                    return await evaluate(loaded, subject, client, settings.home_path, on_progress=show)

        return asyncio.run(asked())

    return measure
