"""``/models…``: the store, as Model Runner's clients manage it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import msgspec
from litestar import MediaType, Request, Response, delete, get, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, FromQuery
from litestar.response import Stream

from dockyard.api import _runner_wire as wire
from dockyard.api._decode import BodyReader
from dockyard.api._runner_stream import Body, Sink, after_first, lines
from dockyard.api._site import Site
from dockyard.artifact.manifest import read_artifact
from dockyard.artifact.reference import is_source
from dockyard.artifact.store import Entry, Store
from dockyard.errors import Conflict, DockyardError, InvalidRequest, ModelNotFound, NotFound, UnsupportedParameter
from dockyard.types import OnProgress

if TYPE_CHECKING:
    from dockyard.artifact.registry.client import Registry

TAGS = ["Model Runner"]


LOADED = "Model loaded successfully"


class CreateBody(msgspec.Struct, forbid_unknown_fields=True):
    """What to pull. ``bearer-token`` is Model Runner's; here keys of registries are the server's own business."""

    model: str = msgspec.field(name="from")
    token: str | None = msgspec.field(name="bearer-token", default=None)


class PushBody(msgspec.Struct, forbid_unknown_fields=True):
    """May be left out."""

    token: str | None = msgspec.field(name="bearer-token", default=None)


class RepackageBody(msgspec.Struct, forbid_unknown_fields=True):
    """The new name, and the window in tokens to serve with."""

    target: str
    context_size: int | None = None


def handlers(site: Site) -> list[HTTPRouteHandler]:
    """All routes below ``/models``; they need the scope "manage"."""
    guards = [site.require("manage")]

    @get("/models", guards=guards, summary="Models in the store", tags=TAGS)
    async def models() -> list[dict[str, Any]]:
        return await asyncio.to_thread(listed, site.store)

    @post("/models/create", guards=guards, status_code=200, summary="Pull a model; progress, a line each", tags=TAGS)
    async def create(request: Request[Any, Any, Any]) -> Stream:
        asked, _ = BodyReader(CreateBody).read(await request.body())
        return await _pull(site, request, asked)

    @post(
        "/models/load",
        guards=guards,
        status_code=200,
        summary="Take a model from a tar archive",
        request_max_body_size=None,
        tags=TAGS,
    )
    async def load(request: Request[Any, Any, Any]) -> Response[bytes]:
        from dockyard.artifact import archive

        body: Body[list[archive.Loaded]] = Body()
        await body.feed(request.stream(), lambda file: archive.load(site.store, file))
        return Response(_lines(request, "pull").success(LOADED), media_type=_media(request))

    @delete("/models/purge", guards=guards, status_code=200, summary="Remove every model", tags=TAGS)
    async def purge() -> None:
        for digest in {model["id"] for model in await asyncio.to_thread(listed, site.store)}:
            await _remove(site, digest, force=True)

    return [models, create, load, *_single(site), purge]


def _single(site: Site) -> list[HTTPRouteHandler]:
    """Those about one model by its name."""
    guards = [site.require("manage")]

    @get("/models/{name:path}", guards=guards, summary="One model, or with `/export` its tar archive", tags=TAGS)
    async def inspect(name: FromPath[str], remote: FromQuery[str | None] = None) -> Response[Any] | Stream:
        name, verb = _split(name, "export")
        if verb:
            found = await asyncio.to_thread(_find, site, name)
            return Stream(await after_first(Sink().pieces(lambda file: _save(site, found, file))), media_type=TAR)
        model = await asyncio.to_thread(_remote if remote == "true" else _one, site, name)
        return Response(model, media_type=MediaType.JSON)

    @post(
        "/models/{name:path}", guards=guards, status_code=201, summary="`/tag`, `/push` or `/repackage` it", tags=TAGS
    )
    async def change(
        request: Request[Any, Any, Any],
        name: FromPath[str],
        repo: FromQuery[str | None] = None,
        tag: FromQuery[str | None] = None,
    ) -> Response[Any] | Stream:
        name, verb = _split(name, "tag", "push", "repackage")
        if verb == "tag":
            return Response(await asyncio.to_thread(_tag, site, name, repo, tag), status_code=201)
        if verb == "push":
            return await _push(site, request, name)
        if verb == "repackage":
            asked, _ = BodyReader(RepackageBody).read(await request.body())
            return Response(await asyncio.to_thread(_repackage, site, name, asked), status_code=201)
        raise NotFound(f"there is nothing at /models/{name}", hint="POST to its /tag, /push or /repackage")

    @delete("/models/{name:path}", guards=guards, status_code=200, summary="Remove a name, or a model", tags=TAGS)
    async def remove(name: FromPath[str], force: FromQuery[str | None] = None) -> list[dict[str, str]]:
        forced = force is not None and force.lower() not in ("false", "0")
        return await _remove(site, name.removeprefix("/"), force=forced)

    return [inspect, change, remove]


TAR = "application/x-tar"


def _split(path: str, *verbs: str) -> tuple[str, str]:
    """A model's name and what to do with it, which is its path's last part if it is one of the verbs."""
    path = path.removeprefix("/")
    name, _, last = path.rpartition("/")
    return (name, last) if name and last in verbs else (path, "")


def listed(store: Store) -> list[dict[str, Any]]:
    """The models of a store, as ``GET /models`` has them; blocks."""
    by_digest: dict[str, list[Entry]] = {}
    for entry in store.entries():
        by_digest.setdefault(entry.descriptor.digest, []).append(entry)
    found = []
    for digest, same in by_digest.items():
        tags = [str(entry.reference) for entry in same if entry.reference is not None]
        if (model := wire.model(store, digest, tags, max(entry.created for entry in same))) is not None:
            found.append(model)
    return found


def _find(site: Site, name: str) -> str:
    """The digest of a model; by its name, its id, or the last part of a name that only one model has."""
    try:
        return site.store.resolve(name).digest
    except ModelNotFound:
        wanted, _, tag = name.partition(":")
        named = [entry for entry in site.store.entries() if entry.reference is not None]
        found = {
            entry.descriptor.digest
            for entry in named
            if entry.reference is not None
            and entry.reference.repository.rpartition("/")[2] == wanted
            and (entry.reference.tag or "latest") == (tag or "latest")
        }
        if len(found) != 1:
            raise
        return found.pop()


def _one(site: Site, name: str) -> dict[str, Any]:
    digest = _find(site, name)
    entries = [entry for entry in site.store.entries() if entry.descriptor.digest == digest]
    tags = [str(entry.reference) for entry in entries if entry.reference is not None]
    created = max((entry.created for entry in entries), default=0.0)
    found = wire.model(site.store, digest, tags, created, headers=True)
    if found is None:
        raise ModelNotFound(f"{name} is not a model", hint="`dockyard inspect` shows other artifacts")
    return found


def _remote(site: Site, name: str) -> dict[str, Any]:
    """What a registry says of a model; nothing is kept."""
    from dockyard.artifact.registry.client import Registry

    reference = site.store.named(name)
    with Registry(reference.registry, insecure=site.settings.insecure_registries) as registry:
        root = registry.manifest(reference.repository, reference.digest or reference.tag or "latest")

        def fetch(digest: str) -> bytes:
            if digest == root.digest:
                return root.data
            try:
                return registry.manifest(reference.repository, digest).data
            except ModelNotFound:
                return _blob(registry, reference.repository, digest)

        return wire.described(read_artifact(fetch, root.digest), None, [str(reference)], 0)


def _blob(registry: Registry, repository: str, digest: str) -> bytes:
    with registry.open_blob(repository, digest, {}) as reply:
        return b"".join(iter(lambda: reply.read(1 << 16), b""))


def _save(site: Site, name: str, file: BinaryIO) -> None:
    from dockyard.artifact import archive

    archive.save(site.store, [name], file)


def _tag(site: Site, name: str, repo: str | None, tag: str | None) -> dict[str, str]:
    if not repo:
        raise InvalidRequest("'repo' is required", param="repo", hint="POST /models/NAME/tag?repo=REPOSITORY&tag=TAG")
    target = site.store.named(f"{repo}:{tag}" if tag else repo)
    site.store.tag(target, _find(site, name))
    return {"message": f"Model {name!r} tagged successfully with {str(target)!r}", "target": str(target)}


def _repackage(site: Site, name: str, asked: RepackageBody) -> dict[str, str]:
    from dockyard.artifact.lookup import Entry as Found
    from dockyard.ops import pack

    digest = _find(site, name)
    form = read_artifact(site.store, digest).packaging
    target = site.store.named(asked.target)
    if asked.context_size is not None and asked.context_size < 1:
        raise InvalidRequest(f"context_size is {asked.context_size}", param="context_size", hint="a count of tokens")
    kept: Literal["modelpack", "docker-v0.1", "docker-v0.2"] = (
        form if form in ("docker-v0.1", "docker-v0.2") else "modelpack"
    )
    done: Found = pack.package(
        site.store, pack.Sources(), pack.PackParams(format=kept, context=asked.context_size), base=digest,
        reference=target,
    ).entry  # fmt: skip
    return {"message": "Model repackaged successfully", "source": name, "target": str(done.reference)}


async def _remove(site: Site, name: str, *, force: bool) -> list[dict[str, str]]:
    """Delete, after unloading what is idle. Raises Conflict for a model in use."""
    digest = await asyncio.to_thread(_find, site, name)
    loaded = [one for one in site.fleet.models() if one.digest == digest]
    if any(one.active or one.queued for one in loaded) and not force:
        raise Conflict(f"{name} is in use", hint="try again later, or force")
    gone = await asyncio.to_thread(_names_left, site, name, digest)
    if loaded and not gone:
        await site.fleet.unload(digest)
    try:
        done = await asyncio.to_thread(site.store.delete, name, force=force)
    except ModelNotFound:
        done = await asyncio.to_thread(site.store.delete, digest, force=force)
    return [*({"Untagged": one} for one in done.untagged), *({"Deleted": one} for one in done.deleted)]


def _names_left(site: Site, name: str, digest: str) -> bool:
    """Whether the model keeps a name when this one is taken away."""
    if name.startswith("sha256:") or digest.removeprefix("sha256:").startswith(name):
        return False
    return len(site.store.names(digest)) > 1


def _media(request: Request[Any, Any, Any]) -> str:
    return "application/json" if _json(request) else "text/plain"


def _json(request: Request[Any, Any, Any]) -> bool:
    return "application/json" in request.headers.get("accept", "")


def _lines(request: Request[Any, Any, Any], mode: str) -> wire.Lines:
    return wire.Lines(mode, escaped=not _json(request))


def _refuse_token(token: str | None) -> None:
    if token:
        raise UnsupportedParameter(
            "'bearer-token' is not taken",
            param="bearer-token",
            hint="log in with `docker login` on the server's machine, or set HF_TOKEN in the server's environment",
        )


async def _pull(site: Site, request: Request[Any, Any, Any], asked: CreateBody) -> Stream:
    from dockyard.artifact.transfer import pull

    _refuse_token(asked.token)
    name = asked.model
    if is_source(name) == "path":
        raise InvalidRequest(f"{name!r} is a path on the server", param="from", hint="`dockyard package` takes files")
    site.store.named(name)
    before = await asyncio.to_thread(_digest_of, site, name)
    wired = _lines(request, "pull")
    if site.settings.offline and before is None:
        raise InvalidRequest("this server is set to stay offline", hint="unset `offline`")

    def done(entry: Entry) -> str:
        if entry.descriptor.digest == before:
            return f"Using cached model: {wire.binary(entry.size)}"
        return "Model pulled successfully"

    def work(on_progress: OnProgress) -> Entry:
        return pull(site.store, name, site.settings, on_progress=on_progress)

    return Stream(await after_first(lines(work, wired, done)), media_type=_media(request))


async def _push(site: Site, request: Request[Any, Any, Any], name: str) -> Stream:
    from dockyard.artifact.transfer import push

    body = await request.body()
    if body.strip():
        _refuse_token(BodyReader(PushBody).read(body)[0].token)
    await asyncio.to_thread(_find, site, name)

    def work(on_progress: OnProgress) -> object:
        return push(site.store, name, site.settings, on_progress=on_progress)

    source: AsyncIterator[bytes] = await after_first(
        lines(work, _lines(request, "push"), lambda _: "Model pushed successfully")
    )
    return Stream(source, media_type=_media(request))


def _digest_of(site: Site, name: str) -> str | None:
    try:
        return site.store.resolve(name).digest
    except DockyardError:
        return None
