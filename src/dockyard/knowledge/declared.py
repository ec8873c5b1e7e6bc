"""Bases that a stack file declares: made, changed and brought up to date until they are what it says.

An entry of ``knowledge`` with ``sources`` is such a base; one without names a base that somebody else looks after.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dockyard.errors import DockyardError, InvalidRequest, NotFound
from dockyard.knowledge.bases import Base, Bases
from dockyard.knowledge.making import NONE, Wishes, changed, recipe
from dockyard.knowledge.model import EVERYONE, Cut, Recipe, Source, Synced
from dockyard.knowledge.models import Models
from dockyard.knowledge.sources import choose
from dockyard.knowledge.sync import Options, Told, sync
from dockyard.settings import Settings
from dockyard.stack import Knowledge, Stack

if TYPE_CHECKING:
    from dockyard.artifact.store import Store

OWN = "stack"
"""Key in ``Source.about`` of what a stack file added: what it no longer names is taken out again."""


class Extras(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The ``options`` of an entry: how documents are cut, where vectors are kept, which paths count and who reads."""

    chunker: str = "structure"
    size: int = 1000
    overlap: int = 0
    store: str = "lancedb"
    url: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    readers: tuple[str, ...] = (EVERYONE,)


class Refreshed(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one entry: ``done``, or the ``error`` that left the index as it was."""

    name: str
    index: str
    done: Synced | None = None
    error: DockyardError | None = None


def extras(name: str, entry: Knowledge) -> tuple[Extras, Cut]:
    """An entry's options, checked. Raises InvalidRequest with the path of what is wrong."""
    at = f"knowledge.{name}.options"
    try:
        found = msgspec.convert(entry.options, Extras)
        return found, msgspec.convert({k: getattr(found, k) for k in ("chunker", "size", "overlap")}, Cut)
    except msgspec.ValidationError as error:
        hint = f"there are {', '.join(Extras.__struct_fields__)}"
        raise InvalidRequest(f"{at}: {error}", param=at, hint=hint) from None


def sources(name: str, entry: Knowledge, folder: str) -> list[Source]:
    """An entry's sources; paths are beside the stack file. Raises InvalidRequest for what is none."""
    wishes, _ = extras(name, entry)
    found = []
    for text in entry.sources:
        beside = Path(folder) / Path(text).expanduser()
        try:
            kind, place = choose(str(beside) if folder and beside.exists() else text)
        except InvalidRequest as error:
            at = f"knowledge.{name}.sources"
            raise InvalidRequest(f"{at}: {error.message}", param=at, hint=error.hint) from None
        found.append(
            Source(
                kind=kind, place=place, include=wishes.include, exclude=wishes.exclude, readers=wishes.readers,
                about={OWN: True},
            )
        )  # fmt: skip
    return found


def models_of(stack: Stack) -> list[str]:
    """The models that declared bases take, as the store knows them, each once."""
    named = [model for one in stack.knowledge.values() if one.sources for model in (one.embedding, one.rerank)]
    return list(dict.fromkeys(_source(stack, model) for model in named if model and model != NONE))


def _source(stack: Stack, name: str) -> str:
    """What a name stands for: the base keeps that, since it outlives the stack file."""
    model = stack.model(name)
    return model.source if model is not None else name


async def refresh(
    bases: Bases, models: Models, store: Store | None, settings: Settings, stack: Stack, told: Callable[[str], Told]
) -> AsyncIterator[Refreshed]:
    """Each declared base in turn. What goes wrong with one that has an index is told and leaves that; raises what goes
    wrong with one that has none, since nothing could be answered from it."""
    for name, entry in stack.knowledge.items():
        if not entry.sources:
            continue
        index = entry.index or name
        wanted = sources(name, entry, stack.folder)
        try:
            done = await _refresh(bases, models, store, settings, stack, (name, entry, index, wanted), told(name))
        except DockyardError as error:
            if not _has_index(bases, index):
                raise
            yield Refreshed(name=name, index=index, error=error)
        else:
            yield Refreshed(name=name, index=index, done=done)


async def _refresh(
    bases: Bases, models: Models, store: Store | None, settings: Settings, stack: Stack,
    what: tuple[str, Knowledge, str, list[Source]], told: Told,
) -> Synced:  # fmt: skip
    name, entry, index, wanted = what
    wishes, cut = extras(name, entry)
    embedder = _source(stack, entry.embedding)
    reranker = entry.rerank if entry.rerank in ("", NONE) else _source(stack, entry.rerank)
    rebuilt: Recipe | None = None
    try:
        base = bases.get(index)
    except NotFound:
        made = Wishes(name=index, embedder=embedder, reranker=reranker, cut=cut, store=wishes.store, url=wishes.url)
        base = bases.create(await recipe(made, models, store))
    else:
        rebuilt = await _changed(base, models, entry, cut, embedder, reranker)
    gone = _declare(base, wanted)
    for one in gone:
        await sync(base, models, settings, Options(sources=(), forget=one), told)
    old = base.recipe()
    anew = rebuilt is not None and (rebuilt.embedder, rebuilt.cut) != (old.embedder, old.cut)
    return await sync(base, models, settings, Options(rebuild=anew, recipe=rebuilt), told)


async def _changed(
    base: Base, models: Models, entry: Knowledge, cut: Cut, embedder: str, reranker: str
) -> Recipe | None:
    """The recipe that the entry asks for, where it is another; what the entry leaves open stays as it was."""
    old = base.recipe()
    given: dict[str, object] = {}
    if embedder and embedder != old.embedder:
        given["embedder"] = embedder
    if reranker and reranker != (old.reranker or NONE):
        given["reranker"] = reranker
    for key in ("chunker", "size", "overlap"):
        if key in entry.options and getattr(cut, key) != getattr(old.cut, key):
            given[key] = getattr(cut, key)
    return await changed(old, models, given) if given else None


def _declare(base: Base, wanted: list[Source]) -> list[int]:
    """Note the sources that are new or other than they were; the ids of those that the file no longer names."""
    with base.writing(), base.ledger() as ledger:
        known = {(one.kind, one.place): one for one in ledger.sources()}
        for one in wanted:
            same = known.pop((one.kind, one.place), None)
            if same is None:
                ledger.add_source(one)
            elif (same.include, same.exclude, same.readers) != (one.include, one.exclude, one.readers):
                kept = msgspec.structs.replace(one, id=same.id, synced=same.synced, attributes=same.attributes)
                ledger.note_source(kept)
        return [one.id for one in known.values() if one.about.get(OWN)]


def _has_index(bases: Bases, index: str) -> bool:
    try:
        with bases.get(index).ledger() as ledger:
            return bool(ledger.snapshot)
    except NotFound:
        return False
