"""``dockyard eval``: what runs found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dockyard.cli._options import AsJson

if TYPE_CHECKING:
    from dockyard.ops.evaluate.result import Record

Run = Annotated[str, typer.Argument(metavar="RUN", help="A run's id or its beginning, or its file.")]


def ls(as_json: AsJson = False) -> None:
    """List runs, the newest first, and those that were stopped."""
    from dockyard.cli._connect import read_settings
    from dockyard.cli._evaluation import brief
    from dockyard.cli._output import ago, note, show_json, show_table
    from dockyard.ops.evaluate import shelf

    home = read_settings().home_path
    found, stopped = shelf.runs(home), shelf.under_way(home)
    if as_json:
        keys = ("id", "suite", "subject", "aggregates", "errors", "began", "seconds")
        runs = [{key: getattr(each, key) for key in keys} | {"items": len(each.records)} for each in found]
        return show_json({"runs": runs, "stopped": stopped})
    rows = [
        (each.id, each.suite, each.subject.name, len(each.records), brief(each.aggregates), ago(each.began))
        for each in found
    ]
    show_table(("run", "suite", "model", "items", "figures", "when"), rows)
    if stopped:
        note(f"stopped, or under way: {', '.join(stopped)}; the same `dockyard eval run` goes on with them")
    return None


def show(
    run: Run,
    items: Annotated[bool, typer.Option("--items", help="Each item's answer and scores too.")] = False,
    failed: Annotated[bool, typer.Option("--failed", help="Only items that could not be measured.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a run's figures; with --items what was asked and answered."""
    from dockyard.cli._connect import read_settings
    from dockyard.cli._evaluation import print_run
    from dockyard.cli._output import show_json
    from dockyard.ops.evaluate import shelf

    found = shelf.find(read_settings().home_path, run)
    if as_json:
        return show_json(found)
    print_run(found)
    if items or failed:
        for record in found.records:
            if not failed or record.error or record.failures:
                _print_item(record)
    return None


def _print_item(record: Record) -> None:
    scores = ", ".join(f"{name} {values[0]:.4g}" for name, values in record.scores.items() if len(values) == 1)
    print(f"\n{record.id} (line {record.line})  {scores}")
    if record.error:
        print(f"  error: {record.error}")
    if record.answer is not None and record.answer.text:
        print(f"  answer: {record.answer.text.strip()}")
    if record.references:
        print(f"  right: {' | '.join(record.references)}")
    for name, text in {**record.notes, **record.failures}.items():
        print(f"  {name}: {text}")


def compare(
    run: Run,
    other: Annotated[
        str | None, typer.Argument(metavar="OTHER", help="What to compare with; else the parent's newest run.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare RUN with OTHER, item by item: better, worse, or not to be told apart."""
    from dockyard.cli._connect import read_settings
    from dockyard.cli._evaluation import print_comparison
    from dockyard.cli._output import show_json
    from dockyard.errors import NotFound
    from dockyard.ops.evaluate import shelf
    from dockyard.ops.evaluate.compare import compare as paired

    home = read_settings().home_path
    second = shelf.find(home, run)
    first = shelf.find(home, other) if other is not None else shelf.of_parent(second, shelf.runs(home))
    if first is None:
        raise NotFound(
            f"no run of {second.suite} on a model that {second.subject.name} was made from",
            param="OTHER",
            hint="name a run to compare with; `dockyard eval ls` lists them",
        )
    found = paired(first, second)
    if as_json:
        return show_json(found)
    return print_comparison(found)


def export(
    run: Run,
    file: Annotated[Path, typer.Argument(metavar="FILE.json", help="The log to write.")],
    as_json: AsJson = False,
) -> None:
    """Write RUN as an evaluation log of inspect-ai, for its viewer and its analysis."""
    from dockyard.cli._connect import read_settings
    from dockyard.cli._output import show_json
    from dockyard.ops.evaluate import shelf
    from dockyard.ops.evaluate.inspect_log import write

    found = shelf.find(read_settings().home_path, run)
    write(found, file)
    if as_json:
        return show_json({"run": found.id, "file": str(file)})
    print(f"wrote {file}")
    return None


def scorers(as_json: AsJson = False) -> None:
    """List scorers, and the options that suites give them."""
    import sys

    from dockyard import plugins
    from dockyard.cli._output import show_json, show_table

    rows: list[dict[str, Any]] = []
    for name, plugin in plugins.find("scorers").items():
        kind: Any = None if plugin.error is not None else plugin.load()
        fields = getattr(getattr(kind, "options", None), "__struct_fields__", ())
        rows.append(
            {
                "name": name,
                "options": list(fields),
                "about": (getattr(sys.modules.get(kind.__module__), "__doc__", None) or "").partition("\n")[0],
                "error": plugin.error,
            }
        )
    if as_json:
        return show_json(rows)
    return show_table(
        ("scorer", "options", "says"),
        [(each["name"], ", ".join(each["options"]) or "-", each["error"] or each["about"]) for each in rows],
    )
