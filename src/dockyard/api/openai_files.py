"""``/v1/files``: what callers hand in for batches and prompts, and the files that batches end in."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, BinaryIO, Literal

from litestar import Request, Response, delete, get, post
from litestar.params import FromPath, FromQuery, QueryParameter
from litestar.response import Stream

from dockyard.api._form import Form, read_form
from dockyard.api._further import Routes
from dockyard.api._kept import caller, page_of
from dockyard.api._site import Site
from dockyard.artifact.partial import full
from dockyard.errors import Conflict, InvalidRequest
from dockyard.state.files import File

Asking = Request[Any, Any, Any]
Limit = Annotated[int, QueryParameter(ge=1, le=10_000)]

PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
FORM_BYTES = 64 << 10
"""What a form may hold beside the file."""
PIECE = 1 << 20
EXPIRY = (3600, 30 * 24 * 3600)
"""Least and most seconds that a file may be asked to live."""


def routes(site: Site) -> Routes:
    """What the dialect answers."""
    return Routes(handlers=[_upload(site), *_reading(site), _delete(site)])


def _upload(site: Site) -> Any:
    most = site.settings.max_file

    @post(
        "/v1/files",
        summary="Upload a file: a form with `file`, `purpose` and, if it is to end by itself, `expires_after`",
        guards=[site.require("infer")],
        tags=["OpenAI"],
        status_code=200,
        request_max_body_size=most + FORM_BYTES,
    )
    async def upload(request: Asking) -> dict[str, Any]:
        tables, who = await caller(site, request)
        id = f"file-{secrets.token_hex(12)}"
        part = tables.files.part(id)
        try:
            with part.open("wb") as sink:
                form = await read_form(request, lambda piece: asyncio.to_thread(_append, sink, piece), most)
            made = _made(form, id, who.name)
            await tables.files.add(made)
        except OSError as error:
            raise full(error, part) from error
        finally:
            part.unlink(missing_ok=True)
        return told(made)

    return upload


def _append(sink: BinaryIO, piece: bytes) -> None:
    sink.write(piece)


def _made(form: Form, id: str, key: str) -> File:
    """The file that a form describes. Raises InvalidRequest naming the field."""
    if form.name is None:
        raise InvalidRequest("'file' is required, with a file name", param="file")
    purpose = form.fields.get("purpose")
    if purpose is None:
        raise InvalidRequest("'purpose' is required", param="purpose")
    if purpose not in PURPOSES:
        raise InvalidRequest(f"purpose is one of {', '.join(PURPOSES)}, not {purpose!r:.40}", param="purpose")
    unknown = set(form.fields) - {"purpose", "expires_after[anchor]", "expires_after[seconds]"}
    if unknown:
        name = min(unknown)
        raise InvalidRequest(f"there is no field {name!r:.80} here", param=name[:80])
    now = time.time()
    made = File(id=id, key=key, name=form.name[:512], purpose=purpose, bytes=form.size, created=now)
    if "expires_after[anchor]" not in form.fields and "expires_after[seconds]" not in form.fields:
        return made
    if form.fields.get("expires_after[anchor]") != "created_at":
        raise InvalidRequest("expires_after.anchor is 'created_at'", param="expires_after.anchor")
    seconds = form.fields.get("expires_after[seconds]", "")
    if not (seconds.isascii() and seconds.isdigit() and EXPIRY[0] <= int(seconds[:12]) <= EXPIRY[1]):
        raise InvalidRequest(
            f"expires_after.seconds is a number from {EXPIRY[0]} to {EXPIRY[1]}", param="expires_after.seconds"
        )
    return File(
        id=id, key=key, name=made.name, purpose=purpose, bytes=form.size, created=now, expires=now + int(seconds)
    )


def _reading(site: Site) -> list[Any]:
    tagged: dict[str, Any] = {"guards": [site.require("infer")], "tags": ["OpenAI"]}

    @get("/v1/files", summary="Files of this key", **tagged)
    async def files(
        request: Asking,
        purpose: FromQuery[str | None] = None,
        limit: Limit = 10_000,
        order: FromQuery[Literal["asc", "desc"]] = "desc",
        after: FromQuery[str | None] = None,
    ) -> dict[str, Any]:
        tables, who = await caller(site, request)
        page = await tables.files.page(
            who.name, purpose=purpose, limit=limit, after=after, newest_first=order == "desc"
        )
        return page_of([told(file) for file in page.rows], more=page.more)

    @get("/v1/files/{file_id:str}", summary="What is known of a file", **tagged)
    async def file(request: Asking, file_id: FromPath[str]) -> dict[str, Any]:
        tables, who = await caller(site, request)
        return told(await tables.files.get(file_id, who.name))

    @get("/v1/files/{file_id:str}/content", summary="The content of a file", **tagged)
    async def content(request: Asking, file_id: FromPath[str]) -> Response[Any]:
        tables, who = await caller(site, request)
        found = await tables.files.get(file_id, who.name)
        source = await asyncio.to_thread(tables.files.path(found.id).open, "rb")
        kind = "application/jsonl" if found.name.endswith(".jsonl") else "application/octet-stream"
        # Whatever was uploaded must not be taken for a page of this server by a browser.
        headers = {
            "content-length": str(found.bytes),
            "content-disposition": "attachment",
            "x-content-type-options": "nosniff",
        }
        return Stream(_pieces(source), media_type=kind, headers=headers)

    return [files, file, content]


def _delete(site: Site) -> Any:
    @delete(
        "/v1/files/{file_id:str}",
        summary="Delete a file",
        guards=[site.require("infer")],
        tags=["OpenAI"],
        status_code=200,
    )
    async def remove(request: Asking, file_id: FromPath[str]) -> dict[str, Any]:
        tables, who = await caller(site, request)
        await tables.files.get(file_id, who.name)
        if (batch := await tables.batches.reads(file_id)) is not None:
            raise Conflict(f"{batch!r} still reads this file", param="file_id", hint="cancel the batch first")
        await tables.files.delete(file_id, who.name)
        return {"id": file_id, "object": "file", "deleted": True}

    return remove


async def _pieces(source: BinaryIO) -> AsyncIterator[bytes]:
    try:
        while piece := await asyncio.to_thread(source.read, PIECE):
            yield piece
    finally:
        source.close()


def told(file: File) -> dict[str, Any]:
    """A file in OpenAI's shape."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.bytes,
        "created_at": int(file.created),
        "expires_at": None if file.expires is None else int(file.expires),
        "filename": file.name,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }
