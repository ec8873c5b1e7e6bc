"""Changing the store, in Ollama's words: pull, push, create, copy, delete, blobs. Needs the scope "manage".

Long work answers with lines of progress; a client that hangs up ends the work.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any, TypeVar

import msgspec
from litestar import Request, Response, delete, head, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.response import Stream

from dockyard.api import _ollama_create
from dockyard.api._decode import BodyReader
from dockyard.api._ollama_errors import body as error_body
from dockyard.api._ollama_models import named
from dockyard.api._ollama_wire import Maybe, Name
from dockyard.api._openai import refuse
from dockyard.api._site import Site
from dockyard.artifact import digest as digests
from dockyard.errors import Cancelled, DigestMismatch, DockyardError, InvalidRequest, NotFound
from dockyard.settings import Settings
from dockyard.types import OnProgress, Progress

T = TypeVar("T")
Lines = AsyncGenerator[dict[str, Any], None]
PIECE = 1 << 20
CREDENTIALS = dict.fromkeys(("username", "password"), "`docker login` on the server keeps them")


class TransferRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of ``/api/pull`` and ``/api/push``; ``insecure`` lets a registry be spoken to without TLS."""

    model: Maybe | None = None
    name: Maybe | None = None
    insecure: bool | None = None
    stream: bool | None = True
    username: str | None = None
    password: str | None = None


class CopyRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of ``/api/copy``."""

    source: Name
    destination: Name


class DeleteRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of ``/api/delete``."""

    model: Maybe | None = None
    name: Maybe | None = None


def handlers(site: Site) -> list[HTTPRouteHandler]:
    return [*_transfers(site), *_entries(site), *_blobs(site)]


def _transfers(site: Site) -> list[HTTPRouteHandler]:
    options: dict[str, Any] = {"guards": [site.require("manage")], "tags": ["Ollama"], "status_code": 200}
    transfers, creations = BodyReader(TransferRequest), BodyReader(_ollama_create.CreateRequest)

    @post("/api/pull", summary="Fetch a model", **options)
    async def pull(request: Request[Any, Any, Any]) -> Response[Any]:
        asked, _ = transfers.read(await request.body())
        refuse(asked, CREDENTIALS)
        return await _answer(_pulled(site, asked), asked.stream)

    @post("/api/push", summary="Send a model to its registry", **options)
    async def push(request: Request[Any, Any, Any]) -> Response[Any]:
        asked, _ = transfers.read(await request.body())
        refuse(asked, CREDENTIALS)
        return await _answer(_pushed(site, asked), asked.stream)

    @post("/api/create", summary="Make a model of another one or of files", **options)
    async def create(request: Request[Any, Any, Any]) -> Response[Any]:
        asked, _ = creations.read(await request.body())
        _ollama_create.check(asked)
        return await _answer(_created(site, asked), asked.stream)

    return [pull, push, create]


def _entries(site: Site) -> list[HTTPRouteHandler]:
    options: dict[str, Any] = {"guards": [site.require("manage")], "tags": ["Ollama"], "status_code": 200}
    copies, deletions = BodyReader(CopyRequest), BodyReader(DeleteRequest)

    @post("/api/copy", summary="Give a model another name", **options)
    async def copy(request: Request[Any, Any, Any]) -> None:
        asked, _ = copies.read(await request.body())

        def work() -> None:
            target = site.store.named(asked.destination)
            site.store.tag(target, site.store.resolve(asked.source).digest)

        await asyncio.to_thread(work)

    @delete("/api/delete", summary="Remove a model", **options)
    async def remove(request: Request[Any, Any, Any]) -> None:
        asked, _ = deletions.read(await request.body())
        await asyncio.to_thread(site.store.delete, named(asked.model or asked.name))

    return [copy, remove]


def _blobs(site: Site) -> list[HTTPRouteHandler]:
    options: dict[str, Any] = {"guards": [site.require("manage")], "tags": ["Ollama"]}

    @head("/api/blobs/{digest:str}", summary="Whether a blob is here", sync_to_thread=False, **options)
    def present(digest: FromPath[str]) -> None:
        if not site.store.has(_digest(digest)):
            raise NotFound(f"blob {digest} is not in the store")

    @post(
        "/api/blobs/{digest:str}",
        summary="Keep a file's content",
        status_code=201,
        request_max_body_size=None,
        **options,
    )
    async def keep(digest: FromPath[str], request: Request[Any, Any, Any]) -> None:
        await _receive(site, _digest(digest), request)

    return [present, keep]


def _digest(text: str) -> str:
    """The digest itself; some clients write ``sha256-…``, which file names allow."""
    text = text.replace("sha256-", "sha256:", 1)
    digests.split(text)
    return text


async def _receive(site: Site, digest: str, request: Request[Any, Any, Any]) -> None:
    store = site.store
    # Sessions of this name that nobody writes to any more are swept by the hub.
    path = store.incoming / f"upload-{uuid.uuid4().hex}"
    waiting = bytearray()

    def write() -> None:
        store.check_room(len(waiting))
        with path.open("ab") as file:
            file.write(waiting)

    def place() -> None:
        with store.lease(), store.partial(digest, resume=False) as blob:
            if not blob.complete:
                path.replace(blob.path)
                blob.commit()

    try:
        async for part in request.stream():
            waiting += part
            if len(waiting) >= PIECE:
                await asyncio.to_thread(write)
                waiting.clear()
        await asyncio.to_thread(write)
        await asyncio.to_thread(place)
    except DigestMismatch as error:
        raise InvalidRequest(error.message, param="digest", hint=error.hint) from error
    finally:
        path.unlink(missing_ok=True)


async def _answer(lines: Lines, stream: bool | None) -> Response[Any]:
    """The lines as they come, or only the last; the first is waited for, so that what fails at once has a status."""
    first = await anext(lines)
    if stream is not False:
        return Stream(_encoded(first, lines), media_type="application/x-ndjson")
    last = first
    async for line in lines:
        last = line
    return Response(msgspec.json.encode(last), media_type="application/json")


async def _encoded(first: dict[str, Any], lines: Lines) -> AsyncGenerator[bytes, None]:
    try:
        yield msgspec.json.encode(first) + b"\n"
        async for line in lines:
            yield msgspec.json.encode(line) + b"\n"
    except DockyardError as error:
        yield error_body(error) + b"\n"
    finally:
        await lines.aclose()


async def _pulled(site: Site, asked: TransferRequest) -> Lines:
    from dockyard.artifact.transfer import pull

    name = named(asked.model or asked.name)
    if site.settings.offline:
        raise InvalidRequest("this server is set to stay offline", hint="unset `offline`")
    settings = _insecure(site, name) if asked.insecure else site.settings
    yield {"status": "pulling manifest"}
    async for line in _told(lambda tell: pull(site.store, name, settings, on_progress=tell), "pulling"):
        yield line
    for status in ("verifying sha256 digest", "writing manifest", "success"):
        yield {"status": status}


async def _pushed(site: Site, asked: TransferRequest) -> Lines:
    from dockyard.artifact.transfer import push

    name = named(asked.model or asked.name)
    settings = _insecure(site, name) if asked.insecure else site.settings
    await asyncio.to_thread(site.store.resolve, name)
    yield {"status": "retrieving manifest"}
    async for line in _told(lambda tell: push(site.store, name, settings, on_progress=tell), "pushing"):
        yield line
    yield {"status": "pushing manifest"}
    yield {"status": "success"}


async def _created(site: Site, asked: _ollama_create.CreateRequest) -> Lines:
    async for line in _told(lambda tell: _ollama_create.create(site.store, asked, tell), "using"):
        yield line
    yield {"status": "writing manifest"}
    yield {"status": "success"}


async def _told(work: Callable[[OnProgress], T], verb: str) -> Lines:
    """Lines on work in a thread. It is cancelled where the iterator is closed; what it raises is raised here."""
    loop = asyncio.get_running_loop()
    # One entry for each item: a slow reader sees fewer updates, not an ever longer queue.
    news: dict[str, Progress] = {}
    changed = asyncio.Event()
    gone = False

    def tell(progress: Progress) -> None:
        if gone:
            raise Cancelled("nobody waits for it any more")
        loop.call_soon_threadsafe(note, progress)

    def note(progress: Progress) -> None:
        news[progress.item or progress.message] = progress
        changed.set()

    running = asyncio.ensure_future(asyncio.to_thread(work, tell))
    running.add_done_callback(lambda _: changed.set())
    try:
        while not running.done() or news:
            await changed.wait()
            changed.clear()
            waiting = list(news.values())
            news.clear()
            for line in _lines(waiting, verb):
                yield line
        running.result()
    finally:
        gone = True
        if not running.done():
            running.add_done_callback(lambda done: done.cancelled() or done.exception())


def _lines(news: Iterable[Progress], verb: str) -> Iterable[dict[str, Any]]:
    for one in news:
        if not one.item:
            yield {"status": one.message}
            continue
        name = one.item.partition(":")[2][:12] if one.item.startswith("sha256:") else one.item
        yield {"status": f"{verb} {name}", "digest": one.item, "total": one.total, "completed": one.current}


def _insecure(site: Site, name: str) -> Settings:
    host = site.store.named(name).registry
    return msgspec.structs.replace(site.settings, insecure_registries=(*site.settings.insecure_registries, host))
