"""Files of vector stores, one by one and in batches: each is a source of the store's knowledge base."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody

from dockyard.api._kept import Kept, caller
from dockyard.api._site import Site
from dockyard.api._vector_feed import feeds
from dockyard.api._vector_wire import (
    AddFile,
    AddFiles,
    Attributes,
    ChangeFile,
    file_id,
    file_told,
    page_told,
    refuse_chunking,
    state_of,
)
from dockyard.api.vector_stores import Asking, Limit, Order, opened
from dockyard.errors import Conflict, InvalidRequest, NotFound
from dockyard.gateway._fleet_models import FleetModels
from dockyard.knowledge.bases import Base
from dockyard.knowledge.filters import readable
from dockyard.knowledge.model import EVERYONE, Source
from dockyard.state.files import File

STATES = ("in_progress", "completed", "failed", "cancelled")


def file_routes(site: Site) -> list[Any]:
    return [*_changing(site), *_reading(site), *_batches(site)]


def sources_of(
    tables: Kept,
    files: Sequence[File],
    *,
    attributes: Sequence[Attributes | None] = (),
    readers: Sequence[list[str] | None] = (),
    batch: str = "",
) -> list[Source]:
    """Uploaded files as sources."""
    now = time.time()
    found = []
    for place, file in enumerate(files):
        own = attributes[place] if attributes else None
        who = readers[place] if readers else None
        found.append(
            Source(
                kind="file",
                place=str(tables.files.path(file.id)),
                named=file.name,
                attributes=dict(own or {}),
                readers=tuple(who or (EVERYONE,)),
                about={"file_id": file.id, "added": now, "batch": batch},
            )
        )
    return found


async def attach(site: Site, base: Base, sources: Sequence[Source]) -> list[Source]:
    """Add sources to a store and take them in soon."""
    added = await asyncio.to_thread(_attach, base, sources)
    feeds(site).add(base, [one.id for one in added])
    return added


def _attach(base: Base, sources: Sequence[Source]) -> list[Source]:
    with base.ledger() as ledger:
        return [ledger.add_source(one) for one in sources]


def _changing(site: Site) -> list[Any]:
    tagged: dict[str, Any] = {"guards": [site.require("infer")], "tags": ["OpenAI"], "status_code": 200}
    path = "/v1/vector_stores/{store_id:str}/files"

    @post(path, summary="Take a file into a vector store", **tagged)
    async def add(request: Asking, store_id: FromPath[str], data: JSONBody[AddFile]) -> dict[str, Any]:
        refuse_chunking(data.chunking_strategy)
        base, _ = await opened(site, request, store_id, change=True)
        tables, who = await caller(site, request)
        file = await tables.files.get(data.file_id, who.name)
        made = sources_of(tables, [file], attributes=[data.attributes], readers=[data.readers])
        (source,) = await attach(site, base, made)
        return await asyncio.to_thread(_told, site, base, source)

    @post(path + "/{file:str}", summary="Change a file's attributes", **tagged)
    async def change(
        request: Asking, store_id: FromPath[str], file: FromPath[str], data: JSONBody[ChangeFile]
    ) -> dict[str, Any]:
        base, _ = await opened(site, request, store_id, change=True)
        source = await asyncio.to_thread(_change, base, file, dict(data.attributes or {}))
        return await asyncio.to_thread(_told, site, base, source)

    @delete(path + "/{file:str}", summary="Take a file out of a vector store; the file stays", **tagged)
    async def remove(request: Asking, store_id: FromPath[str], file: FromPath[str]) -> dict[str, Any]:
        base, _ = await opened(site, request, store_id, change=True)
        source = await asyncio.to_thread(_source, base, file)
        await _forget(site, base, source)
        return {"id": file, "object": "vector_store.file.deleted", "deleted": True}

    return [add, change, remove]


def _change(base: Base, file: str, attributes: dict[str, Any]) -> Source:
    source = msgspec.structs.replace(_source(base, file), attributes=attributes)
    with base.ledger() as ledger:
        ledger.note_source(source)
        changed = [msgspec.structs.replace(one, attributes=attributes) for one in ledger.documents(source.id)]
        ledger.change_documents(changed)
    return source


async def _forget(site: Site, base: Base, source: Source) -> None:
    from dockyard.knowledge.sync import Options, sync

    feeds(site).cancel(base, {source.id})
    models = FleetModels(site.fleet, lane="batch")
    for _ in range(120):
        await feeds(site).settled(base)
        try:
            await sync(base, models, site.settings, Options(sources=(), forget=source.id))
        except Conflict as error:
            if "another sync" not in error.message:
                raise
            await asyncio.sleep(0.5)
        else:
            return
    raise Conflict(f"vector store {base.name!r} is being changed by another program")


def _source(base: Base, file: str) -> Source:
    with base.ledger() as ledger:
        for source in ledger.sources():
            if file_id(source) == file:
                return source
    raise NotFound(f"vector store {base.name!r} has no file {file!r:.80}", param="file_id")


def _told(site: Site, base: Base, source: Source) -> dict[str, Any]:
    with base.ledger() as ledger:
        fresh = next((one for one in ledger.sources() if one.id == source.id), source)
        return file_told(base, ledger.recipe, fresh, ledger, feeds(site).pending(base))


def _rows(site: Site, base: Base, batch: str | None = None) -> list[dict[str, Any]]:
    with base.ledger() as ledger:
        recipe, pending = ledger.recipe, feeds(site).pending(base)
        return [
            file_told(base, recipe, source, ledger, pending)
            for source in ledger.sources()
            if batch is None or source.about.get("batch") == batch
        ]


def _page(
    rows: list[dict[str, Any]], limit: int, order: str, after: str | None, before: str | None, state: str | None
) -> dict[str, Any]:
    if state is not None and state not in STATES:
        raise InvalidRequest(f"filter is one of {', '.join(STATES)}", param="filter")
    kept = [row for row in rows if state is None or row["status"] == state]
    return page_told(kept if order == "asc" else kept[::-1], limit=limit, after=after, before=before)


def _reading(site: Site) -> list[Any]:
    tagged: dict[str, Any] = {"guards": [site.require("infer")], "tags": ["OpenAI"]}
    path = "/v1/vector_stores/{store_id:str}/files"

    @get(path, summary="Files of a vector store", **tagged)
    async def files(
        request: Asking,
        store_id: FromPath[str],
        limit: Limit = 20,
        order: FromQuery[Order] = "desc",
        after: FromQuery[str | None] = None,
        before: FromQuery[str | None] = None,
        filter: FromQuery[str | None] = None,
    ) -> dict[str, Any]:
        base, _ = await opened(site, request, store_id)
        rows = await asyncio.to_thread(_rows, site, base)
        return _page(rows, limit, order, after, before, filter)

    @get(path + "/{file:str}", summary="How far a file is", **tagged)
    async def one(request: Asking, store_id: FromPath[str], file: FromPath[str]) -> dict[str, Any]:
        base, _ = await opened(site, request, store_id)
        source = await asyncio.to_thread(_source, base, file)
        return await asyncio.to_thread(_told, site, base, source)

    @get(path + "/{file:str}/content", summary="The text that was read from a file", **tagged)
    async def content(request: Asking, store_id: FromPath[str], file: FromPath[str]) -> dict[str, Any]:
        base, principal = await opened(site, request, store_id)
        reader = None if site.trusted or site.keyring.open else principal.name
        texts = await asyncio.to_thread(_texts, base, file, reader)
        return {
            "object": "vector_store.file_content.page",
            "data": [{"type": "text", "text": text} for text in texts],
            "has_more": False,
            "next_page": None,
        }

    return [files, one, content]


def _texts(base: Base, file: str, reader: str | None) -> list[str]:
    source = _source(base, file)
    with base.ledger() as ledger:
        documents = [one for one in ledger.documents(source.id) if readable(one, reader)]
        return [ledger.parsed(one.number).text for one in documents]


def _batches(site: Site) -> list[Any]:
    tagged: dict[str, Any] = {"guards": [site.require("infer")], "tags": ["OpenAI"]}
    path = "/v1/vector_stores/{store_id:str}/file_batches"

    @post(path, summary="Take several files into a vector store", status_code=200, **tagged)
    async def add(request: Asking, store_id: FromPath[str], data: JSONBody[AddFiles]) -> dict[str, Any]:
        if (data.file_ids is None) == (data.files is None):
            raise InvalidRequest("either 'file_ids' or 'files' is required", param="file_ids")
        refuse_chunking(data.chunking_strategy)
        wanted = data.files or [AddFile(file_id=id, attributes=data.attributes) for id in data.file_ids or ()]
        for one in wanted:
            refuse_chunking(one.chunking_strategy)
        base, _ = await opened(site, request, store_id, change=True)
        tables, who = await caller(site, request)
        files = [await tables.files.get(one.file_id, who.name) for one in wanted]
        batch = f"vsfb_{secrets.token_hex(12)}"
        made = sources_of(
            tables,
            files,
            attributes=[one.attributes for one in wanted],
            readers=[one.readers for one in wanted],
            batch=batch,
        )
        await attach(site, base, made)
        return await asyncio.to_thread(_batch, site, base, batch)

    @get(path + "/{batch:str}", summary="How far a batch of files is", **tagged)
    async def one(request: Asking, store_id: FromPath[str], batch: FromPath[str]) -> dict[str, Any]:
        base, _ = await opened(site, request, store_id)
        return await asyncio.to_thread(_batch, site, base, batch)

    @post(path + "/{batch:str}/cancel", summary="Leave out what has not begun", status_code=200, **tagged)
    async def cancel(request: Asking, store_id: FromPath[str], batch: FromPath[str]) -> dict[str, Any]:
        base, _ = await opened(site, request, store_id, change=True)
        await asyncio.to_thread(_cancel, site, base, batch)
        return await asyncio.to_thread(_batch, site, base, batch)

    @get(path + "/{batch:str}/files", summary="Files of a batch", **tagged)
    async def files(
        request: Asking,
        store_id: FromPath[str],
        batch: FromPath[str],
        limit: Limit = 20,
        order: FromQuery[Order] = "desc",
        after: FromQuery[str | None] = None,
        before: FromQuery[str | None] = None,
        filter: FromQuery[str | None] = None,
    ) -> dict[str, Any]:
        base, _ = await opened(site, request, store_id)
        rows = await asyncio.to_thread(_rows, site, base, batch)
        return _page(rows, limit, order, after, before, filter)

    return [add, one, cancel, files]


def _batch(site: Site, base: Base, batch: str) -> dict[str, Any]:
    with base.ledger() as ledger:
        sources = [one for one in ledger.sources() if one.about.get("batch") == batch]
        documents, pending = ledger.documents(), feeds(site).pending(base)
    if not sources:
        raise NotFound(f"vector store {base.name!r} has no batch {batch!r:.80}", param="batch_id")
    states = [state_of(one, documents, pending) for one in sources]
    counts = {state: states.count(state) for state in STATES}
    cancelled = any(one.about.get("cancelled") for one in sources)
    state = "in_progress" if counts["in_progress"] else "cancelled" if cancelled else "completed"
    return {
        "id": batch,
        "object": "vector_store.files_batch",
        "created_at": int(sources[0].about["added"]),
        "vector_store_id": base.name,
        "status": state,
        "file_counts": {**counts, "total": len(states)},
    }


def _cancel(site: Site, base: Base, batch: str) -> None:
    with base.ledger() as ledger:
        sources = {one.id: one for one in ledger.sources() if one.about.get("batch") == batch}
        for id in feeds(site).cancel(base, set(sources)):
            ledger.note_source(msgspec.structs.replace(sources[id], about={**sources[id].about, "cancelled": True}))
