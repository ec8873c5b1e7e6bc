"""``dockyard data``: data sets to train on and to judge with, as artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dockyard.cli._complete import model_names
from dockyard.cli._options import AsJson

if TYPE_CHECKING:
    from dockyard.ops.data import DataParams

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, add_completion=False, help="Make, check and look at data sets."
)

KIND = "messages, completion, text, preference, unpaired, prompts or table; told by the columns if not said."
Against = Annotated[
    list[str] | None,
    typer.Option("--against", metavar="EVALUATION", help="A file or artifact that must not overlap; may be repeated."),
]
Near = Annotated[
    float | None, typer.Option(min=0.01, max=1, help="Also leave out records this similar to an earlier one.")
]
Private = Annotated[str, typer.Option(help="Personal data: report, redact, drop or refuse.")]


@app.command("create")
def create(
    words: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE... NAME", help="JSONL, CSV, Parquet or data sets; then the name to give."),
    ],
    kind: Annotated[str | None, typer.Option(help=KIND)] = None,
    validation: Annotated[float, typer.Option(min=0, max=0.9, help="Share held out for choosing.")] = 0.0,
    test: Annotated[float, typer.Option(min=0, max=0.9, help="Share held out for judging.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Which records are held out.")] = 0,
    dedupe: Annotated[bool, typer.Option(help="Leave out records whose words occurred before.")] = True,
    near: Near = None,
    private: Private = "report",
    against: Against = None,
    overlapping: Annotated[str, typer.Option(help="Records an evaluation has too: refuse, drop or report.")] = "refuse",
    limit: Annotated[int | None, typer.Option(min=1, help="Keep only the first so many records.")] = None,
    title: Annotated[str | None, typer.Option("--name", help="What the data set is called.")] = None,
    licence: Annotated[str | None, typer.Option("--license", help="SPDX identifier of its licence.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a data set named NAME: every record checked, cleaned, split, with a card that says what was done."""
    from dockyard.artifact.reference import parse
    from dockyard.cli._connect import open_store
    from dockyard.cli._progress import progress
    from dockyard.errors import InvalidRequest
    from dockyard.ops import read_params
    from dockyard.ops.data import DataParams
    from dockyard.ops.data import create as make
    from dockyard.ops.dataset.artifact import open_dataset

    if len(words) < 2:
        raise InvalidRequest("a source and a name are wanted", hint="dockyard data create FILE... NAME")
    store = open_store()
    *sources, name = words
    reference = parse(name, registry=store.registry, namespace=store.namespace)
    given = {
        "kind": kind, "validation": validation, "test": test, "seed": seed, "dedupe": dedupe, "near": near,
        "private": private, "overlapping": overlapping, "limit": limit, "name": title, "licence": licence,
    }  # fmt: skip
    params: DataParams = read_params(DataParams, given)
    with progress(quiet=as_json) as show:
        done = make(store, sources, params, against=against or (), reference=reference, on_progress=show)
    digest = done.entry.descriptor.digest
    _show(str(reference), digest, open_dataset(store, digest).card, as_json=as_json)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set.", autocompletion=model_names)],
    records: Annotated[int, typer.Option("--records", "-n", min=0, help="So many records of the part too.")] = 0,
    part: Annotated[str, typer.Option(help="train, validation or test.")] = "train",
    report: Annotated[bool, typer.Option("--report", help="How like its seeds a data set of `synthesize` is.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a data set holds, and show some of it, as JSONL."""
    import msgspec

    from dockyard.cli._connect import open_store
    from dockyard.errors import InvalidRequest
    from dockyard.ops.dataset.artifact import open_dataset

    found = open_dataset(open_store(), name)
    shown = found.part(part)[:records] if records else []
    if report and not found.report:
        raise InvalidRequest(f"{name} has no report: `synthesize` did not make it", param="report")
    _show(name, found.digest, found.card, as_json=as_json, records=shown, report=found.report if report else "")
    if not as_json:
        for record in shown:
            print(msgspec.json.encode(record).decode())


@app.command("check")
def check(
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE...", help="Files or data sets.")],
    kind: Annotated[str | None, typer.Option(help=KIND)] = None,
    near: Annotated[float, typer.Option(min=0.01, max=1, help="Similarity that counts as nearly the same.")] = 0.8,
    against: Against = None,
    as_json: AsJson = False,
) -> int:
    """Read SOURCEs and say what is wrong with them: form, repeats, overlap, personal data. Nothing is kept.

    Exit code 0 if nothing was found, 1 if something was, and as for other failures for a record that is wrong.
    """
    from dockyard.cli._connect import open_store
    from dockyard.cli._output import show_json
    from dockyard.ops.dataset.check import inspect

    found = inspect(open_store(), sources, kind=kind, least=near, against=against or ())
    if as_json:
        show_json(found)
    else:
        print(f"{found.records} {found.kind} records")
        for finding in found.findings:
            print(f"record {finding.record}: {finding.what}")
        print("nothing found" if not found.findings else f"{len(found.findings)} findings")
    return 1 if found.findings else 0


@app.command("export")
def export(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A data set.", autocompletion=model_names)],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write its files.")],
) -> None:
    """Write a data set's parts to FOLDER as JSONL files."""
    from dockyard.cli._connect import open_store
    from dockyard.ops.dataset.artifact import open_dataset
    from dockyard.ops.dataset.records import write

    found = open_dataset(open_store(), name)
    folder.mkdir(parents=True, exist_ok=True)
    for part, records in found.parts.items():
        write(folder / f"{part}.jsonl", records)
        print(folder / f"{part}.jsonl")


def _show(name: str, digest: str, card: Any, *, as_json: bool, records: Any = (), report: str = "") -> None:
    import msgspec

    from dockyard.cli._output import show_json

    if as_json:
        told = {"name": name, "digest": digest, **msgspec.to_builtins(card)}
        return show_json({**told, **({"shown": records} if records else {}), **({"report": report} if report else {})})
    print(f"{name} {digest}")
    print(f"{card.kind} records: " + ", ".join(f"{count} {part}" for part, count in card.records.items()))
    for title, counts in (("left out", card.removed), (f"personal data ({card.how})", card.private)):
        if counts:
            print(f"{title}: " + ", ".join(f"{count} {what}" for what, count in counts.items()))
    if card.overlapping:
        print(f"in an evaluation too: {card.overlapping}")
    if report:
        print(f"\n{report}")
    return None
