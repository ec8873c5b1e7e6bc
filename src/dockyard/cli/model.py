"""Verbs about single artifacts in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dockyard.cli._options import AsJson, Host, Model, Models

if TYPE_CHECKING:
    from dockyard.artifact.manifest import Artifact, Layer
    from dockyard.artifact.store import Entry, Store
    from dockyard.settings import Settings
    from dockyard.types import Descriptor


def ls(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only ids.")] = False,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Also attached reports and signatures.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the artifacts in the store; one that has several names has a line for each."""
    from dockyard.artifact.reference import familiar
    from dockyard.cli._connect import open_store
    from dockyard.cli._output import ago, show_json, show_table, size

    store = open_store()
    entries = store.entries(everything=everything)
    digests = list(dict.fromkeys(entry.descriptor.digest for entry in entries))
    if quiet:
        for digest in digests:
            print(digest)
        return None
    known = {digest: _known(store, digest) for digest in digests}
    if as_json:
        return show_json([_listed(digest, known[digest], entries) for digest in digests])
    rows = []
    for entry in entries:
        about = known[entry.descriptor.digest]
        rows.append(
            (
                familiar(entry.reference) if entry.reference else "<none>",
                about.get("architecture") or "-",
                about.get("parameters") or "-",
                about.get("quantization") or "-",
                entry.descriptor.digest.split(":")[1][:12],
                ago(entry.created or None),
                size(entry.size) + (" pinned" if entry.pinned else ""),
            )
        )
    return show_table(("model", "architecture", "parameters", "quantization", "id", "created", "size"), rows)


def tag(source: Model, target: Annotated[str, typer.Argument(metavar="NAME", help="The further name.")]) -> None:
    """Give MODEL the further name NAME; a name that was in use moves."""
    from dockyard.artifact.reference import parse
    from dockyard.cli._connect import open_store

    store = open_store()
    reference = parse(target, registry=store.registry, namespace=store.namespace)
    store.tag(reference, store.resolve(source).digest)
    print(reference)


def rm(
    models: Models,
    force: Annotated[bool, typer.Option("--force", "-f", help="Unload it first; ignore pins.")] = False,
    as_json: AsJson = False,
    host: Host = None,
) -> None:
    """Remove models. One that is loaded is refused, unless --force unloads it first."""
    from dockyard.cli._connect import open_store, read_settings
    from dockyard.cli._output import show_json, size

    settings = read_settings()
    store, results = open_store(settings), []
    for name in models:
        _release(host, settings, name, store.resolve(name).digest, force=force)
        deleted = store.delete(name, force=force)
        results.append(deleted)
        if not as_json:
            for untagged in deleted.untagged:
                print(f"untagged {untagged}")
            for digest in deleted.deleted:
                print(f"deleted {digest}, freed {size(deleted.freed.bytes)}")
    if as_json:
        show_json(results)


def inspect(model: Model, as_json: AsJson = False) -> None:
    """Show what MODEL is: the parts of its network with their sizes, its layers, and what it was made from."""
    import msgspec

    from dockyard.artifact import anatomy
    from dockyard.artifact.manifest import read_artifact
    from dockyard.artifact.materialize import model_files
    from dockyard.cli._connect import open_store
    from dockyard.cli._output import show_json
    from dockyard.errors import UnsupportedFormat

    store = open_store()
    digest = store.resolve(model).digest
    artifact = read_artifact(store, digest)
    try:
        facts = model_files(store, model, only_look=True).facts
    except UnsupportedFormat:
        facts = None  # a dataset, a report: an artifact without weights
    parts = anatomy.describe(facts) if facts is not None else None
    names = [str(name) for name in store.names(digest)]
    attached = store.referrers(digest)
    if not as_json:
        return _show_artifact(artifact, names, anatomy.lines(parts) if parts else [], attached)
    return show_json(
        {
            "id": digest,
            "tags": names,
            "packaging": artifact.packaging,
            "size": artifact.manifest.size,
            "context": artifact.context,
            "facts": facts,
            "anatomy": parts,
            "layers": [_layer(layer) for layer in artifact.layers],
            "about": msgspec.to_builtins(artifact.about),
            "lineage": artifact.lineage,
            "annotations": artifact.manifest.annotations,
            "referrers": attached,
        }
    )


def history(model: Model, as_json: AsJson = False) -> None:
    """Show what MODEL was made from: its parents, and theirs."""
    from dockyard.artifact import lineage
    from dockyard.cli._connect import open_store
    from dockyard.cli._output import ago, show_json, show_table

    found = lineage.history(open_store(), model)
    if as_json:
        return show_json(found)
    rows = [
        (
            "  " * each.depth + each.digest.split(":")[1][:12],
            each.role or "-",
            ", ".join(each.names) or "-",
            each.operation or "-",
            ago(each.created or None) if each.here else "not in the store",
        )
        for each in found
    ]
    return show_table(("id", "as", "names", "made by", "created"), rows)


def pin(models: Models) -> None:
    """Keep MODELs from `gc` and `rm`."""
    from dockyard.cli._connect import open_store

    store = open_store()
    for name in models:
        print(f"pinned {store.pin(name).digest}")


def unpin(models: Models) -> None:
    """Let `gc` and `rm` take MODELs again."""
    from dockyard.cli._connect import open_store

    store = open_store()
    for name in models:
        print(f"unpinned {store.unpin(name).digest}")


def _known(store: Store, digest: str) -> dict[str, Any]:
    """What an artifact's config says of the model, in the words of ``docker model ls --json``."""
    from dockyard.artifact.manifest import read_artifact
    from dockyard.errors import DockyardError

    try:
        artifact = read_artifact(store, digest)
    except DockyardError as error:
        return {"error": error.message}
    said = artifact.spec
    found = {
        "format": said.format,
        "architecture": said.architecture,
        "parameters": said.param_size,
        "quantization": said.quantization,
        "context_size": artifact.context,
    }
    return {name: value for name, value in found.items() if value is not None}


def _listed(digest: str, known: dict[str, Any], entries: list[Entry]) -> dict[str, Any]:
    same = [entry for entry in entries if entry.descriptor.digest == digest]
    return {
        "id": digest,
        "tags": [str(entry.reference) for entry in same if entry.reference is not None],
        "created": int(max(entry.created for entry in same)),
        "size": same[0].size,
        "pinned": any(entry.pinned for entry in same),
        "kind": same[0].descriptor.artifact_type,
        "subject": same[0].subject,
        "config": known,
    }


def _layer(layer: Layer) -> dict[str, Any]:
    found = layer.descriptor
    return {
        "path": layer.path,
        "role": layer.role,
        "packed": layer.packed,
        "media_type": found.media_type,
        "size": found.size,
        "digest": found.digest,
    }


def _show_artifact(artifact: Artifact, names: list[str], drawn: list[str], attached: list[Descriptor]) -> None:
    from dockyard.cli._output import show_table, size

    print(f"id         {artifact.digest}")
    for name in names:
        print(f"name       {name}")
    print(f"packaging  {artifact.packaging}, {size(artifact.manifest.size)}")
    if artifact.about.licenses:
        print(f"licence    {', '.join(artifact.about.licenses)}")
    if artifact.context:
        print(f"context    {artifact.context} tokens advised")
    for parent in artifact.lineage.parents if artifact.lineage else ():
        print(f"{parent.role:10} {parent.reference or ''} {parent.digest}".rstrip())
    for line in ["", *drawn] if drawn else ():
        print(line)
    print()
    layers = artifact.layers
    show_table(
        ("file", "role", "size", "digest"),
        [(each.path, each.role, size(each.descriptor.size), each.descriptor.digest) for each in layers],
    )
    if attached:
        print()
        show_table(("attached", "size", "digest"), [(e.artifact_type, size(e.size), e.digest) for e in attached])


def _release(host: str | None, settings: Settings, name: str, digest: str, *, force: bool) -> None:
    """Refuse to pull a model from under a server that has it loaded, or unload it."""
    import asyncio

    from dockyard.cli._connect import find_server
    from dockyard.errors import Conflict

    client = find_server(host, settings)
    if client is None:
        return

    async def exchange() -> None:
        async with client:
            loaded = [model for model in await client.ps() if model["digest"] == digest]
            if loaded and not force:
                raise Conflict(f"{name} is loaded", hint=f"`dockyard unload {name}` first, or use --force")
            for model in loaded:
                await client.unload(model["reference"])

    asyncio.run(exchange())
