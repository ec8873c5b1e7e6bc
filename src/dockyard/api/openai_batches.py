"""``/v1/batches``: files of requests, answered within a day in what interactive work leaves of the machine."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, get, post
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter
from msgspec import Meta

from dockyard.api._batch_doors import KINDS, doors
from dockyard.api._further import Routes
from dockyard.api._kept import Kept, caller, kept, page_of
from dockyard.api._responses_wire import Metadata
from dockyard.api._site import Site
from dockyard.errors import Conflict, InvalidRequest, NotFound
from dockyard.gateway.batch import Runner
from dockyard.state.batches import OPEN, About, Batch

Asking = Request[Any, Any, Any]
Limit = Annotated[int, QueryParameter(ge=1, le=100)]

WINDOW_SECONDS = 24 * 3600.0
MOST_BYTES = 200 << 20
MOMENTS = (
    "in_progress_at", "finalizing_at", "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at"
)  # fmt: skip


class OutputExpires(msgspec.Struct, forbid_unknown_fields=True):
    """When the files that a batch ends in are deleted."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Meta(ge=3600, le=2_592_000)]


class BatchBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A batch to run."""

    input_file_id: Annotated[str, Meta(min_length=1, max_length=64)]
    endpoint: Annotated[str, Meta(max_length=64)]
    completion_window: Literal["24h"]
    metadata: Metadata | None = None
    output_expires_after: OutputExpires | None = None


def routes(site: Site) -> Routes:
    """What the dialect answers."""
    tagged: dict[str, Any] = {"guards": [site.require("infer")], "tags": ["OpenAI"]}

    @post("/v1/batches", summary="Run a file of requests", status_code=200, **tagged)
    async def create(request: Asking, data: JSONBody[BatchBody]) -> dict[str, Any]:
        tables, who = await caller(site, request)
        made = await _checked(tables, data, who.name)
        await tables.batches.add(made)
        await start(site)
        return told(made)

    @get("/v1/batches", summary="Batches of this key, newest first", **tagged)
    async def batches(request: Asking, limit: Limit = 20, after: FromQuery[str | None] = None) -> dict[str, Any]:
        tables, who = await caller(site, request)
        page = await tables.batches.page(who.name, limit=limit, after=after)
        return page_of([told(batch) for batch in page.rows], more=page.more)

    @get("/v1/batches/{batch_id:str}", summary="How far a batch is", **tagged)
    async def batch(request: Asking, batch_id: FromPath[str]) -> dict[str, Any]:
        tables, who = await caller(site, request)
        return told(await tables.batches.get(batch_id, who.name))

    @post(
        "/v1/batches/{batch_id:str}/cancel", summary="End a batch; what is finished is kept", status_code=200, **tagged
    )
    async def cancel(request: Asking, batch_id: FromPath[str]) -> dict[str, Any]:
        tables, who = await caller(site, request)
        found = await tables.batches.get(batch_id, who.name)
        now = {"cancelling_at": int(time.time())}
        if await tables.batches.change(found.id, ("validating", "in_progress"), "cancelling", times=now):
            await start(site)
            found = await tables.batches.get(batch_id, who.name)
        elif found.status not in OPEN:
            raise Conflict(f"batch {batch_id!r} has ended: it is {found.status}", param="batch_id")
        return told(found)

    return Routes(handlers=[create, batches, batch, cancel])


async def start(site: Site) -> None:
    """Run what there is to run, from now until the application ends. May be called again: then it looks at once."""
    tables = await kept(site).opened()
    if tables.runner is None:
        tables.runner = Runner(
            tables.batches,
            doors(site),
            lock=None if site.state is None else site.settings.home_path / "batches.lock",
            most=site.settings.batch_parallel,
            longest=site.settings.max_body,
        )
        tables.spawn(tables.runner.run())
    tables.runner.wake()


async def _checked(tables: Kept, asked: BatchBody, key: str) -> Batch:
    """A batch that can be looked at. Raises InvalidRequest and NotFound naming the field."""
    if asked.endpoint not in KINDS:
        raise InvalidRequest(f"endpoint is one of {', '.join(KINDS)}, not {asked.endpoint!r}", param="endpoint")
    try:
        file = await tables.files.get(asked.input_file_id, key)
    except NotFound as error:
        raise NotFound(error.message, param="input_file_id", hint="upload it with the purpose `batch`") from None
    if file.purpose != "batch":
        raise InvalidRequest(
            f"file {file.id!r} was uploaded for {file.purpose!r}", param="input_file_id", hint="upload it for `batch`"
        )
    if file.bytes > MOST_BYTES:
        raise InvalidRequest(f"the input has more than {MOST_BYTES} bytes", param="input_file_id")
    if not await asyncio.to_thread(tables.files.path(file.id).exists):
        raise NotFound(f"the content of file {file.id!r} is gone", param="input_file_id")
    now, expiry = time.time(), asked.output_expires_after
    about = About(metadata=asked.metadata, output_seconds=None if expiry is None else float(expiry.seconds))
    return Batch(
        id=f"batch_{secrets.token_hex(12)}",
        key=key,
        endpoint=asked.endpoint,
        input=file.id,
        created=now,
        expires=now + WINDOW_SECONDS,
        about=about,
    )


def told(batch: Batch) -> dict[str, Any]:
    """A batch in OpenAI's shape."""
    about = batch.about
    errors = {"object": "list", "data": about.errors} if about.errors else None
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": about.model,
        "errors": errors,
        "input_file_id": batch.input,
        "completion_window": "24h",
        "status": batch.status,
        "output_file_id": about.output,
        "error_file_id": about.failures,
        "created_at": int(batch.created),
        "expires_at": int(batch.expires),
        **{name: about.times.get(name) for name in MOMENTS},
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "usage": about.usage,
        "metadata": about.metadata,
    }
