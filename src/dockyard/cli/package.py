"""Verbs between files and the store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dockyard.cli._options import AsJson, Models


def save(
    models: Models,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="The archive to write; `-` is standard output.")
    ],
) -> None:
    """Write MODELs, with what is attached to them, to a tar archive: an OCI layout that other tools read too."""
    from dockyard.artifact import archive
    from dockyard.cli._connect import open_store
    from dockyard.cli._output import note
    from dockyard.cli._progress import progress

    with progress() as show:
        saved = archive.save(
            open_store(), models, sys.stdout.buffer if output == "-" else Path(output), on_progress=show
        )
    for found in saved:
        note(f"saved {found.digest}")


def load(
    path: Annotated[str, typer.Argument(metavar="FILE", help="An archive or a folder; `-` is standard input.")],
    name: Annotated[str | None, typer.Option("--name", help="Name the artifact, where there is just one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Read artifacts from a tar archive, or from a folder with an OCI layout, into the store."""
    from dockyard.artifact import archive
    from dockyard.artifact.reference import parse
    from dockyard.cli._connect import open_store
    from dockyard.cli._output import show_json
    from dockyard.cli._progress import progress

    store = open_store()
    reference = parse(name, registry=store.registry, namespace=store.namespace) if name else None
    with progress(quiet=as_json) as show:
        source = sys.stdin.buffer if path == "-" else Path(path)
        found = archive.load(store, source, reference=reference, on_progress=show)
    if as_json:
        return show_json(
            [
                {
                    "reference": str(each.reference) if each.reference else None,
                    "digest": each.descriptor.digest,
                    "size": each.descriptor.size,
                }
                for each in found
            ]
        )
    for each in found:
        print(f"{each.reference or '<none>'} {each.descriptor.digest}")
    return None
