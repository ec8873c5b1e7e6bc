"""The hub: this machine's store over the OCI Distribution API (``/v2/``), for any OCI client.

    GET    /v2/                                    is it a registry, and is the key good
    GET    /v2/_catalog                            repositories, paged with n and last
    GET    /v2/<name>/tags/list                    tags, paged likewise
    GET    /v2/<name>/manifests/<tag or digest>    also HEAD; PUT and DELETE
    GET    /v2/<name>/blobs/<digest>               also HEAD, with Range; DELETE of what no manifest needs
    POST   /v2/<name>/blobs/uploads/               begin; ?digest= takes the body whole, ?mount= what is here already
    GET    /v2/<name>/blobs/uploads/<id>           how far it came; PATCH goes on, PUT ?digest= ends, DELETE gives up
    GET    /v2/<name>/referrers/<digest>           what is attached, by artifactType if asked

Reading needs the scope "infer", changing needs "manage". A key is a bearer token, or the password of basic
authentication with any user name. Uploads go to disk as they come, and downloads from it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
from collections.abc import Awaitable, Callable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from dockyard.api._oci_manifests import Manifests
from dockyard.api._oci_uploads import Uploads, held
from dockyard.api._oci_wire import Ask, OciError, Receive, Reply, Send, ask_of, error_reply, send_reply, translated
from dockyard.artifact import digest as digests
from dockyard.artifact.document import MAX_MANIFEST
from dockyard.artifact.lookup import reach
from dockyard.artifact.registry.headers import byte_range
from dockyard.errors import DockyardError, Forbidden, InvalidReference, StoreFull
from dockyard.types import Principal

if TYPE_CHECKING:
    from litestar.handlers import ASGIRouteHandler

    from dockyard.artifact.gc import Lease
    from dockyard.artifact.store import Store

Authorize = Callable[[str | None], Awaitable[Principal]]
"""Who a key belongs to; raises Unauthorized. ``gateway.keyring.Keyring.authenticate`` is one."""

QUIET_SECONDS = 300.0
"""A push shields its blobs from garbage collection until nobody has written for so long."""

_ROUTES = (
    ("manifests", re.compile(r"(?P<name>.+)/manifests/(?P<what>[^/]+)")),
    ("tags", re.compile(r"(?P<name>.+)/tags/list")),
    ("referrers", re.compile(r"(?P<name>.+)/referrers/(?P<what>[^/]+)")),
    ("uploads", re.compile(r"(?P<name>.+)/blobs/uploads/?")),
    ("upload", re.compile(r"(?P<name>.+)/blobs/uploads/(?P<what>[^/]+)")),
    ("blobs", re.compile(r"(?P<name>.+)/blobs/(?P<what>[^/]+)")),
)
_READING = frozenset({"GET", "HEAD"})

log = logging.getLogger(__name__)


def oci_handlers(store: Store, authorize: Authorize) -> list[ASGIRouteHandler]:
    """The hub as handlers of a Litestar app; they take no part in its OpenAPI page."""
    from litestar.handlers import asgi

    return [asgi("/v2", is_mount=True, copy_scope=False)(Hub(store, authorize).serve)]


class Hub:
    """An ASGI app over one store."""

    def __init__(self, store: Store, authorize: Authorize) -> None:
        self.store = store
        self.manifests = Manifests(store)
        self.uploads = Uploads(store)
        self._authorize = authorize
        self._lease: Lease | None = None
        self._release: asyncio.TimerHandle | None = None

    async def serve(self, scope: Any, receive: Receive, send: Send) -> None:
        """Answer one request; whatever goes wrong comes back in the spec's error shape."""
        ask = ask_of(scope, receive)
        try:
            reply = await self.answer(ask)
        except OciError as error:
            reply = error_reply(error)
        except DockyardError as error:
            reply = error_reply(translated(error))
        except ConnectionResetError:
            return
        except Exception:
            log.exception("the hub failed at %s %s", ask.method, ask.path)
            reply = error_reply(OciError(500, "UNKNOWN", "the hub failed; its log says how"))
        if ask.method not in _READING and not await ask.drain():
            reply.headers["connection"] = "close"
        await send_reply(ask, reply, send)

    async def answer(self, ask: Ask) -> Reply:
        """The reply to a request, before anything is sent."""
        principal = await self._authorize(_credential(ask.headers.get("authorization")))
        if "infer" not in principal.scopes and "manage" not in principal.scopes:
            raise Forbidden(f"key {principal.name!r} may not pull")
        if ask.method not in _READING and "manage" not in principal.scopes:
            raise Forbidden(f"key {principal.name!r} may not push", hint="use a key with the scope `manage`")
        if ask.path == "":
            _allow(ask, "GET", "HEAD")
            return Reply(headers={"content-type": "application/json"}, body=b"{}")
        if ask.path == "_catalog":
            _allow(ask, "GET", "HEAD")
            if principal.models:
                raise Forbidden(f"key {principal.name!r} may not list all models")
            return await asyncio.to_thread(self.manifests.catalog, ask)
        for kind, pattern in _ROUTES:
            found = pattern.fullmatch(ask.path)
            if found:
                name = self.manifests.normal(found["name"])
                parts = {key: value for key, value in found.groupdict().items() if key != "name"}
                if principal.models:
                    ask.query.pop("mount", None)
                    wanted = parts.get("what", "") if ask.method in _READING else ""
                    await asyncio.to_thread(self._check_models, principal, name, wanted)
                if ask.method not in _READING:
                    self._shield()
                return await _HANDLERS[kind](self, ask, name, **parts)
        raise OciError(404, "UNSUPPORTED", f"there is no /v2/{ask.path}")

    def _check_models(self, principal: Principal, name: str, what: str) -> None:
        """Hold a key that is for some models to those: their repositories, and what is reached from there."""
        names = (name, name.removeprefix(f"{self.store.namespace}/"))
        if not any(fnmatchcase(each, allowed) for each in names for allowed in principal.models):
            raise Forbidden(f"key {principal.name!r} may not use {name!r}")
        # Content is shared between repositories, so a digest must be shown to belong to this one.
        if digests.valid(what) and what not in self.manifests.content(name):
            raise _no_blob(name, what)

    async def _tags(self, ask: Ask, name: str) -> Reply:
        _allow(ask, "GET", "HEAD")
        return await asyncio.to_thread(self.manifests.tags, ask, name)

    async def _referrers(self, ask: Ask, name: str, what: str) -> Reply:
        _allow(ask, "GET", "HEAD")
        return await asyncio.to_thread(self.manifests.referrers, ask, name, what)

    async def _manifests(self, ask: Ask, name: str, what: str) -> Reply:
        _allow(ask, "GET", "HEAD", "PUT", "DELETE")
        if ask.method == "PUT":
            data = await ask.read(MAX_MANIFEST)
            return await asyncio.to_thread(self.manifests.put, ask, name, what, data)
        if ask.method == "DELETE":
            return await asyncio.to_thread(self.manifests.delete, name, what)
        return await asyncio.to_thread(self.manifests.get, name, what)

    async def _blobs(self, ask: Ask, name: str, what: str) -> Reply:
        _allow(ask, "GET", "HEAD", "DELETE")
        digest = _digest(what)
        path = self.store.blob_path(digest)
        if ask.method == "DELETE":
            return await asyncio.to_thread(self._delete_blob, name, digest)
        try:
            size = (await asyncio.to_thread(path.stat)).st_size
        except FileNotFoundError:
            raise _no_blob(name, digest) from None
        headers = {
            "content-type": "application/octet-stream",
            "docker-content-digest": digest,
            "etag": f'"{digest}"',
            "accept-ranges": "bytes",
            "cache-control": "max-age=31536000, immutable",
        }
        if f'"{digest}"' in ask.headers.get("if-none-match", ""):
            return Reply(status=304, headers=headers)
        only_if = ask.headers.get("if-range")
        wanted = byte_range(ask.headers.get("range"), size) if only_if in (None, f'"{digest}"') else None
        if wanted is None:
            return Reply(headers=headers, file=path, span=size)
        first, last = wanted
        if first > last:
            told = f"blob {digest} has {size} bytes"
            raise OciError(416, "RANGE_INVALID", told, {"size": size}, content_range=f"bytes */{size}")
        headers["content-range"] = f"bytes {first}-{last}/{size}"
        return Reply(status=206, headers=headers, file=path, start=first, span=last - first + 1)

    def _delete_blob(self, name: str, digest: str) -> Reply:
        with self.store.lock():
            if not self.store.has(digest):
                raise _no_blob(name, digest)
            if digest in reach(self.store, [row.digest for row in self.store.index.read()]):
                raise OciError(405, "UNSUPPORTED", f"blob {digest} is part of a manifest", {"hint": "delete that"})
            self.store.blob_path(digest).unlink(missing_ok=True)
        return Reply(status=202)

    async def _uploads(self, ask: Ask, name: str) -> Reply:
        """Begin an upload; the body of ``?digest=`` is the whole blob, and ``?mount=`` may find it here already."""
        _allow(ask, "POST")
        mount, digest = ask.query.get("mount"), ask.query.get("digest")
        if mount and self.store.has(_digest(mount)):
            return _made(name, mount)
        if digest is not None:
            _digest(digest)
        session = await self.uploads.begin()
        if digest is None:
            return Reply(status=202, headers=_session(name, session, "0-0"))
        try:
            async with self.uploads.hold(session) as upload:
                await self.uploads.extend(upload, ask)
                await self.uploads.finish(session, upload, digest)
        except BaseException:
            self.uploads.cancel(session)
            raise
        return _made(name, digest)

    async def _upload(self, ask: Ask, name: str, what: str) -> Reply:
        _allow(ask, "GET", "PATCH", "PUT", "DELETE")
        if ask.method == "GET":
            return Reply(status=204, headers=_session(name, what, held(self.uploads.find(what))))
        async with self.uploads.hold(what) as upload:
            if ask.method == "DELETE":
                self.uploads.cancel(what)
                return Reply(status=204)
            digest = _digest(ask.query.get("digest", "")) if ask.method == "PUT" else None
            try:
                await self.uploads.extend(upload, ask)
            except StoreFull:
                self.uploads.cancel(what)
                raise
            if digest is None:
                return Reply(status=202, headers=_session(name, what, held(upload)))
            await self.uploads.finish(what, upload, digest)
        return _made(name, digest)

    def _shield(self) -> None:
        """Hold a lease on the store while somebody pushes: blobs come long before the manifest that names them."""
        if self._release is not None:
            self._release.cancel()
        if self._lease is None:
            self._lease = self.store.lease()
            self._lease.__enter__()
        self._release = asyncio.get_running_loop().call_later(QUIET_SECONDS, self._unshield)

    def _unshield(self) -> None:
        if self._lease is not None:
            self._lease.__exit__(None, None, None)
            self._lease = None


_HANDLERS: dict[str, Callable[..., Awaitable[Reply]]] = {
    "manifests": Hub._manifests,
    "tags": Hub._tags,
    "referrers": Hub._referrers,
    "uploads": Hub._uploads,
    "upload": Hub._upload,
    "blobs": Hub._blobs,
}


def _credential(header: str | None) -> str | None:
    """The API key of an ``Authorization`` header: a bearer token or a basic password; None without one."""
    scheme, _, rest = (header or "").partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip() or None
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(rest.strip(), validate=True).decode().partition(":")[2] or None
    except (binascii.Error, UnicodeDecodeError):
        return None


def _allow(ask: Ask, *methods: str) -> None:
    if ask.method not in methods:
        raise OciError(405, "UNSUPPORTED", f"{ask.method} is not possible here", allow=", ".join(methods))


def _digest(text: str) -> str:
    try:
        digests.split(text)
    except InvalidReference as error:
        raise OciError(400, "DIGEST_INVALID", error.message, {"hint": error.hint}) from error
    return text


def _no_blob(name: str, digest: str) -> OciError:
    return OciError(404, "BLOB_UNKNOWN", f"blob {digest} is not here", {"name": name, "digest": digest})


def _made(name: str, digest: str) -> Reply:
    headers = {"location": f"/v2/{name}/blobs/{digest}", "docker-content-digest": digest}
    return Reply(status=201, headers=headers)


def _session(name: str, session: str, held_range: str) -> dict[str, str]:
    return {
        "location": f"/v2/{name}/blobs/uploads/{session}",
        "range": held_range,
        "docker-upload-uuid": session,
        "oci-chunk-min-length": "0",
    }
