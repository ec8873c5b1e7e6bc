"""Verbs that send and fetch indexes."""

from __future__ import annotations

from typing import Annotated

import typer

from dockyard.cli._knowledge import BaseName
from dockyard.cli._options import AsJson


def push(
    name: BaseName,
    to: Annotated[str, typer.Argument(metavar="REFERENCE", help="Where to: host/repository:tag.")],
    local: Annotated[bool, typer.Option("--local", help="Into the store of this machine, and no further.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make the index of NAME an artifact and send it to a registry; without --local it takes its documents along."""
    from dockyard.artifact.transfer import push as send
    from dockyard.cli._connect import open_store, read_settings
    from dockyard.cli._knowledge import bases
    from dockyard.cli._output import show_json
    from dockyard.cli._progress import progress
    from dockyard.knowledge.portable import pack

    settings = read_settings()
    store = open_store(settings)
    with progress(quiet=as_json) as show:
        entry = pack(store, bases(settings).get(name), store.named(to), on_progress=show)
        if not local:
            send(store, to, settings, on_progress=show)
    if as_json:
        return show_json({"reference": to, "digest": entry.descriptor.digest, "size": entry.size})
    print(f"{to} {entry.descriptor.digest}")
    return None


def pull(
    reference: Annotated[str, typer.Argument(metavar="REFERENCE", help="host/repository:tag, or one of the store.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What to call it here; else as it was.")] = "",
    replace: Annotated[bool, typer.Option("--replace", help="In the place of the one that has the name.")] = False,
    local: Annotated[bool, typer.Option("--local", help="Only from the store of this machine.")] = False,
    as_json: AsJson = False,
) -> None:
    """Fetch an index and open it here; nothing is embedded again."""
    from dockyard.artifact.transfer import pull as fetch
    from dockyard.cli._connect import open_store, read_settings
    from dockyard.cli._knowledge import bases
    from dockyard.cli._output import show_json
    from dockyard.cli._progress import progress
    from dockyard.knowledge.portable import unpack

    settings = read_settings()
    store = open_store(settings)
    if not local:
        with progress(quiet=as_json) as show:
            fetch(store, reference, settings, on_progress=show)
    base = unpack(store, reference, bases(settings), named=name, replace=replace)
    with base.ledger() as ledger:
        documents, passages = ledger.count()
        embedder = ledger.recipe.embedder
    if as_json:
        return show_json({"name": base.name, "documents": documents, "passages": passages, "embedder": embedder})
    print(f"{base.name}: {documents} documents, {passages} passages; questions are embedded by {embedder}")
    return None
