"""``dockyard report``: what was measured of a model, attached to it; and the card and bill that are made of it."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from dockyard.cli._options import AsJson, Model
from dockyard.cli.proof import Key

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Attach evaluations to a model, and read what is attached."
)

Attach = Annotated[bool, typer.Option("--attach", help="Attach it to MODEL too, in the store.")]
Sign = Annotated[bool, typer.Option("--sign", help="Sign it, with --key or this home's own key.")]
Suite = Annotated[str | None, typer.Option("--suite", help="Which suite's; else the newest report.")]


@app.command("attach")
def attach(
    model: Model,
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", help="Runs of `dockyard eval run`, by id or file; else all of MODEL, by suite."),
    ] = None,
    sign: Sign = False,
    key: Key = None,
    although: Annotated[
        bool, typer.Option("--although", help="Attach a run whose server did not say which artifact answered.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Attach evaluations to the MODEL that they measured: JSON, Markdown and a chart, found from its digest.

    Without RUN the newest of each suite that this home has measured MODEL with.
    """
    from dockyard.cli._connect import open_store, read_settings
    from dockyard.cli._output import show_json
    from dockyard.cli.proof import own_key_or_none
    from dockyard.errors import NotFound
    from dockyard.ops.evaluate import shelf
    from dockyard.ops.report import attach_report

    settings = read_settings()
    store, signer = open_store(settings), own_key_or_none(settings, key, wanted=sign)
    found = [shelf.find(settings.home_path, name) for name in runs or ()]
    if not found:
        digest, newest = store.resolve(model).digest, {}
        for run in reversed(shelf.runs(settings.home_path)):
            if run.subject.digest == digest:
                newest[run.suite] = run
        found = list(newest.values())
    if not found:
        raise NotFound(f"{model} was not measured here", param="model", hint=f"`dockyard eval run SUITE {model}` first")
    made = [attach_report(store, model, run, key=signer, although=although) for run in found]
    if as_json:
        return show_json([{"suite": run.suite, "run": run.id, "digest": each.digest}
                          for run, each in zip(found, made, strict=True)])  # fmt: skip
    for run, each in zip(found, made, strict=True):
        print(f"{run.suite} {each.digest}")
    return None


@app.command("ls")
def ls(model: Model, as_json: AsJson = False) -> None:
    """List what is attached to MODEL: reports, gates' verdicts, signatures, cards, bills."""
    from dockyard.cli._connect import open_store
    from dockyard.cli._output import show_json, show_table, size
    from dockyard.ops.report.listing import everything

    found = everything(open_store(), model)
    if as_json:
        return show_json(found)
    rows = [(each.kind, each.told, each.digest[7:19], size(each.size)) for each in found]
    return show_table(("what", "says", "id", "size"), rows)


@app.command("show")
def show(
    model: Model,
    suite: Suite = None,
    form: Annotated[Literal["md", "json", "svg"], typer.Option("--format", help="Which of the report's files.")] = "md",
) -> None:
    """Print a report that is attached to MODEL."""
    from dockyard.artifact.lineage import attached
    from dockyard.cli._connect import open_store
    from dockyard.ops.evaluate.result import MEDIA_TYPE
    from dockyard.ops.report import MARKDOWN, SVG, report_of

    store = open_store()
    found = report_of(store, store.resolve(model).digest, suite)
    kind = {"md": MARKDOWN, "json": MEDIA_TYPE, "svg": SVG}[form]
    print(attached(store, found.descriptor, kind).decode(), end="")


@app.command("card")
def card(model: Model, attach: Attach = False) -> None:
    """Print MODEL's card: Markdown with the metadata that model hubs read, made of its facts and reports."""
    from dockyard.artifact.lineage import attach as attach_one
    from dockyard.cli._connect import open_store
    from dockyard.ops.report.card import CARD
    from dockyard.ops.report.card import card as write
    from dockyard.ops.report.facts import gather

    store = open_store()
    text = write(gather(store, model))
    if attach:
        attach_one(store, model, text.encode(), artifact_type=CARD, media_type="text/markdown")
    print(text, end="")


@app.command("bom")
def bom(model: Model, attach: Attach = False) -> None:
    """Print MODEL's bill of materials: CycloneDX 1.6 JSON with its model card, files, ancestors and figures."""
    from dockyard.artifact.lineage import attach as attach_one
    from dockyard.cli._connect import open_store
    from dockyard.ops.report.bom import BOM
    from dockyard.ops.report.bom import bom as write
    from dockyard.ops.report.facts import gather

    store = open_store()
    data = write(gather(store, model))
    if attach:
        attach_one(store, model, data, artifact_type=BOM, media_type=BOM)
    print(data.decode(), end="")
