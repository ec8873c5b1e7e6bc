"""Verbs that make and keep knowledge bases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from dockyard.cli._knowledge import BaseName
from dockyard.cli._options import AsJson, Host

if TYPE_CHECKING:
    from dockyard.knowledge.model import Source, Synced

Names = Annotated[list[str] | None, typer.Option("--readers", metavar="KEY", help="Who may read it; else everyone.")]
Patterns = Annotated[list[str] | None, typer.Option("--include", metavar="PATTERN", help="Only such paths.")]
NotPatterns = Annotated[list[str] | None, typer.Option("--exclude", metavar="PATTERN", help="No such paths.")]


def create(
    name: BaseName,
    embedder: Annotated[
        str, typer.Option(metavar="MODEL", help="Embedding model; else the only one in the store.")
    ] = "",
    reranker: Annotated[
        str, typer.Option(metavar="MODEL", help="Reranker, or `none`; else the only one in the store.")
    ] = "",
    chunker: Annotated[str, typer.Option(metavar="NAME", help="structure, sentences or fixed.")] = "structure",
    size: Annotated[int, typer.Option(min=100, max=20_000, help="Characters of a passage, at most.")] = 1000,
    overlap: Annotated[int, typer.Option(min=0, help="Characters that neighbours share.")] = 0,
    store: Annotated[str, typer.Option(metavar="NAME", help="lancedb, pgvector or qdrant.")] = "lancedb",
    url: Annotated[str, typer.Option(metavar="URL", help="Where the vector store is, if it is no file.")] = "",
    as_json: AsJson = False,
    host: Host = None,
) -> None:
    """Make an empty knowledge base NAME. Its embedding model is asked once, to know its vectors."""
    from dockyard.cli._connect import open_store
    from dockyard.cli._knowledge import bases, with_models
    from dockyard.cli._output import show_json
    from dockyard.errors import Conflict, InvalidRequest
    from dockyard.knowledge.making import Wishes, recipe
    from dockyard.knowledge.model import Cut

    try:
        cut = Cut(chunker=chunker, size=size, overlap=overlap)
    except ValueError as error:
        raise InvalidRequest(str(error), param="overlap") from None
    wishes = Wishes(name=name, embedder=embedder, reranker=reranker, cut=cut, store=store, url=url)

    async def make(settings: Any, models: Any) -> Any:
        if (bases(settings).root / name).exists():
            raise Conflict(f"there is a knowledge base {name!r} already", param="name")
        return await recipe(wishes, models, open_store(settings))

    from dockyard.cli._connect import read_settings

    made = with_models(host, make)
    bases(read_settings()).create(made)
    if as_json:
        return show_json(_shown(made))
    reranked = f", reranked by {made.reranker}" if made.reranker else ""
    print(f"{name}: vectors of {made.dimension} numbers by {made.embedder}{reranked}")
    return None


def add(
    name: BaseName,
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE", help="Path, URL, git+https://… or s3://….")],
    include: Patterns = None,
    exclude: NotPatterns = None,
    readers: Names = None,
    attribute: Annotated[
        list[str] | None, typer.Option("--attribute", metavar="KEY=VALUE", help="Something to filter by.")
    ] = None,
    wait: Annotated[bool, typer.Option("--sync/--no-sync", help="Take the documents in now.")] = True,
    as_json: AsJson = False,
    host: Host = None,
) -> int:
    """Add sources to NAME and take their documents in; exit code 1 if one of them gave none."""
    from dockyard.cli._connect import read_settings
    from dockyard.cli._knowledge import bases
    from dockyard.cli._mcp import value_of
    from dockyard.errors import InvalidRequest
    from dockyard.knowledge.model import EVERYONE, Source
    from dockyard.knowledge.sources import choose

    base = bases(read_settings()).get(name)
    attributes: dict[str, Any] = {}
    for text in attribute or ():
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InvalidRequest(f"{text!r} is not KEY=VALUE", param="attribute")
        attributes[key] = value_of(value)
    chosen = [choose(text) for text in sources]
    added: list[Source] = []
    with base.writing(), base.ledger() as ledger:
        for kind, place in chosen:
            source = Source(
                kind=kind, place=place, include=tuple(include or ()), exclude=tuple(exclude or ()),
                readers=tuple(readers or (EVERYONE,)), attributes=attributes,
            )  # fmt: skip
            added.append(ledger.add_source(source))
    if not wait:
        _told_added(added, as_json=as_json)
        return 0
    return _sync(name, host, as_json=as_json, sources=tuple(one.id for one in added))


def _told_added(added: list[Source], *, as_json: bool) -> None:
    from dockyard.cli._output import show_json

    if as_json:
        return show_json(added)
    for one in added:
        print(f"added {one.kind} {one.place}")
    return None


def sync(
    name: BaseName,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Cut and embed everything again, as --embedder, --chunker… say.")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Believe a source that is empty where it had documents.")
    ] = False,
    embedder: Annotated[str | None, typer.Option(metavar="MODEL", help="With --rebuild: another model.")] = None,
    reranker: Annotated[str | None, typer.Option(metavar="MODEL", help="Another reranker, or `none`.")] = None,
    chunker: Annotated[str | None, typer.Option(metavar="NAME", help="With --rebuild: another chunker.")] = None,
    size: Annotated[int | None, typer.Option(min=100, max=20_000, help="With --rebuild: another size.")] = None,
    as_json: AsJson = False,
    host: Host = None,
) -> int:
    """Bring the index of NAME up to date with its sources; exit code 1 if it has nothing of one of them.

    The old index answers until the new one is whole.
    """
    from dockyard.errors import InvalidRequest

    changes = {"embedder": embedder, "reranker": reranker, "chunker": chunker, "size": size}
    given = {key: value for key, value in changes.items() if value is not None}
    if given.keys() - {"reranker"} and not rebuild:
        raise InvalidRequest("another model or chunker needs all of the index made again", hint="add --rebuild")
    return _sync(name, host, as_json=as_json, rebuild=rebuild, prune=prune, given=given)


def _sync(
    name: str, host: str | None, *, as_json: bool, sources: tuple[int, ...] | None = None, rebuild: bool = False,
    prune: bool = False, given: dict[str, Any] | None = None,
) -> int:  # fmt: skip
    from dockyard.cli._connect import read_settings
    from dockyard.cli._knowledge import bases, counting, with_models
    from dockyard.cli._output import show_json
    from dockyard.knowledge.sync import Options
    from dockyard.knowledge.sync import sync as run

    base = bases(read_settings()).get(name)

    async def work(settings: Any, models: Any) -> Synced:
        from dockyard.knowledge.making import changed

        recipe = await changed(base.recipe(), models, given or {}) if rebuild or given else None
        options = Options(sources=sources, rebuild=rebuild, prune=prune, recipe=recipe)
        with counting(quiet=as_json) as told:
            return await run(base, models, settings, options, told)

    done = with_models(host, work)
    if as_json:
        show_json(done)
    else:
        _told(done)
    return 1 if done.empty else 0


def _told(done: Synced) -> None:
    from dockyard.cli._knowledge import summary
    from dockyard.cli._output import note

    for one in done.problems:
        note(f"{one.path}: {one.message}" + (f" ({one.hint})" if one.hint else ""))
    print(summary(done))


def ls(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="List the documents of this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """List knowledge bases; with NAME its sources, documents and problems."""
    from dockyard.cli._connect import read_settings
    from dockyard.cli._knowledge import bases, moment
    from dockyard.cli._output import note, show_json, show_table, size

    found = bases(read_settings())
    if name is None:
        rows = [_row(base) for base in found.all()]
        if as_json:
            return show_json(rows)
        shown = [
            (
                r["name"],
                r["documents"],
                r["passages"],
                r["embedder"],
                r["reranker"] or "-",
                r["store"],
                moment(r["synced"]),
            )
            for r in rows
        ]
        return show_table(("name", "documents", "passages", "embedder", "reranker", "store", "synced"), shown)
    with found.get(name).ledger() as ledger:
        sources, documents, problems = ledger.sources(), ledger.documents(), ledger.problems()
    if as_json:
        return show_json({"sources": sources, "documents": documents, "problems": problems})
    show_table(
        ("document", "title", "size", "passages", "readers", "modified", "seen"),
        [
            (d.path, d.title[:50], size(d.size), d.chunks, ",".join(d.readers), moment(d.modified), moment(d.fetched))
            for d in documents
        ],
    )
    for one in problems:
        note(f"{one.path}: {one.message}")
    return None


def _row(base: Any) -> dict[str, Any]:
    with base.ledger() as ledger:
        recipe, (documents, passages) = ledger.recipe, ledger.count()
        synced = max((source.synced for source in ledger.sources()), default=0.0)
    return {**_shown(recipe), "documents": documents, "passages": passages, "synced": synced}


def _shown(recipe: Any) -> dict[str, Any]:
    import msgspec

    found: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(recipe, probe=b""))
    del found["probe"]
    return found


def rm(
    name: BaseName,
    source: Annotated[
        str | None, typer.Option("--source", metavar="SOURCE", help="Take out just this source and its documents.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Also where the server with its vectors can't be used.")
    ] = False,
    host: Host = None,
) -> None:
    """Remove a knowledge base, or one source of it."""
    from dockyard.cli._connect import read_settings
    from dockyard.cli._knowledge import bases, with_models
    from dockyard.cli._output import note
    from dockyard.errors import InvalidRequest, NotFound
    from dockyard.knowledge.sync import Options
    from dockyard.knowledge.sync import sync as run

    found = bases(read_settings())
    if source is None:
        remains = found.remove(name, force=force)
        print(f"removed {name}")
        if remains:
            note(remains)
        return
    if force:
        raise InvalidRequest("--force removes a whole knowledge base, not a source of it", param="force")
    base = found.get(name)
    with base.ledger() as ledger:
        known = ledger.sources()
    same = next((one for one in known if source in (one.place, str(one.id)) or one.place.endswith(f"/{source}")), None)
    if same is None:
        told = ", ".join(one.place for one in known) or "none"
        raise NotFound(f"{name} has no source {source!r}", param="source", hint=f"its sources: {told}")

    async def work(settings: Any, models: Any) -> Synced:
        return await run(base, models, settings, Options(sources=(), forget=same.id))

    done = with_models(host, work)
    print(f"removed {same.place}: {done.removed} documents")
