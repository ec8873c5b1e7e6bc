"""Verbs between files and the store."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from dockyard.cli._options import AsJson, Models

FORMATS = {"docker": "docker-v0.2", "cncf": "modelpack"}
"""What ``docker model package`` calls the packagings."""

Weights = Annotated[
    list[Path] | None, typer.Option("--gguf", "--safetensors-dir", metavar="PATH", help="The same as PATH.")
]
Licences = Annotated[
    list[Path] | None, typer.Option("--license", "-l", metavar="PATH", help="A licence file; may be repeated.")
]
Template = Annotated[Path | None, typer.Option("--chat-template", metavar="PATH", help="A Jinja chat template.")]
Projector = Annotated[Path | None, typer.Option("--mmproj", metavar="PATH", help="A vision projector (GGUF).")]
Adapters = Annotated[
    list[Path] | None, typer.Option("--adapter", metavar="PATH", help="A PEFT folder or a GGUF adapter.")
]


def package(
    words: Annotated[
        list[str], typer.Argument(metavar="PATH... NAME", help="Weights, or a model's folder; then the name to give.")
    ],
    base: Annotated[
        str | None, typer.Option("--from", metavar="MODEL", help="Start from this artifact, and share its layers.")
    ] = None,
    weights: Weights = None,
    licence: Licences = None,
    template: Template = None,
    projector: Projector = None,
    adapter: Adapters = None,
    form: Annotated[
        str, typer.Option("--format", help="modelpack (cncf), docker-v0.1, or docker-v0.2 (docker).")
    ] = "modelpack",
    context: Annotated[
        int | None, typer.Option("--context", "--context-size", metavar="TOKENS", help="Window to serve with.")
    ] = None,
    title: Annotated[str | None, typer.Option("--name", help="What the model is called, if not its own name.")] = None,
    description: Annotated[str | None, typer.Option(help="A sentence on what it is.")] = None,
    link: Annotated[
        bool,
        typer.Option("--link", help="Share the files with the store, not copy; never write to them then."),
    ] = False,
    push: Annotated[bool, typer.Option("--push", help="Send it to the registry of NAME.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make files an artifact in the store, named NAME: weights, licences, template. Same files, same digest."""
    from dockyard.artifact.reference import parse
    from dockyard.artifact.transfer import push as send
    from dockyard.cli._connect import open_store, read_settings
    from dockyard.cli._output import show_json, size
    from dockyard.cli._progress import progress
    from dockyard.ops import pack, read_params

    settings = read_settings()
    store = open_store(settings)
    *paths, name = words
    reference = parse(name, registry=store.registry, namespace=store.namespace)
    sources = pack.Sources(
        weights=(*(Path(path) for path in paths), *(weights or ())),
        licences=tuple(licence or ()),
        chat_template=template,
        projector=projector,
        adapters=tuple(adapter or ()),
    )
    given = {"format": FORMATS.get(form, form), "context": context, "name": title, "description": description}
    params = read_params(pack.PackParams, given)
    with progress(quiet=as_json) as show:
        done = pack.package(store, sources, params, base=base, reference=reference, link=link, on_progress=show)
        if push:
            send(store, str(reference), settings, on_progress=show)
    digest = done.entry.descriptor.digest
    if as_json:
        found = {"reference": str(reference), "digest": digest, "size": done.entry.size, "reused": done.reused}
        return show_json(found)
    return print(f"{reference} {digest} {size(done.entry.size)}{' (it was here already)' if done.reused else ''}")


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
