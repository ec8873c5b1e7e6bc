"""One OCI registry as the client sees it: manifests, blobs, tags, catalogue, deletes.

Every failure names the registry and what was asked of it. The classes and functions that need more than one request
(``download``, ``upload``, ``referrers``) build on ``Registry.send``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from urllib.parse import quote, urlencode, urljoin, urlsplit

import msgspec

from dockyard.artifact import digest as digests
from dockyard.artifact import media
from dockyard.artifact.manifest import MAX_MANIFEST
from dockyard.artifact.registry import credentials as stored
from dockyard.artifact.registry import headers as parse
from dockyard.artifact.registry.auth import Authorizer
from dockyard.artifact.registry.credentials import Credentials
from dockyard.artifact.registry.transport import Body, Policy, Response, Transport, is_loopback
from dockyard.errors import (
    DigestMismatch,
    DockyardError,
    ModelNotFound,
    RateLimited,
    SourceError,
    TruncatedContent,
    UnsafeContent,
)

ACCEPT = ", ".join((*media.MANIFESTS, *media.INDEXES))
DOCKER_HUB = "registry-1.docker.io"
_MAX_PAGES = 10_000
_MAX_PAGE_BYTES = 32 << 20


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest's exact bytes, the type the registry said, and the digest that we computed."""

    data: bytes
    media_type: str | None
    digest: str


class Registry:
    """A client of one registry; threads may share it. Close it, or use it as a context manager.

    ``plain_http`` None speaks HTTP to this machine and to hosts in ``insecure``, and HTTPS to all others.
    ``credentials`` None looks into Docker's configuration when the registry asks.
    """

    def __init__(
        self,
        host: str,
        *,
        plain_http: bool | None = None,
        insecure: Iterable[str] = (),
        credentials: Credentials | None = None,
        connections: int = 4,
        policy: Policy | None = None,
    ) -> None:
        self.host = host
        plain = {*insecure, *((host,) if plain_http else ())}
        self.transport = Transport(connections=connections, policy=policy, plain_hosts=plain)
        if plain_http is None:
            plain_http = is_loopback(host) or self.transport.plain_allowed(host)
        self.base = f"{'http' if plain_http else 'https'}://{DOCKER_HUB if host == 'docker.io' else host}/v2/"
        find: Callable[[], Credentials | None] = (lambda: credentials) if credentials else lambda: stored.find(host)
        self._authorizer = Authorizer(host, self.transport, find)

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.transport.close()

    def send(
        self,
        method: str,
        url: str,
        *,
        scope: str = "",
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        retry: bool = True,
    ) -> Response:
        """A request with whatever authorization the registry wants for ``scope``; ``url`` may be relative to /v2/.

        Credentials go to the registry's own origin only, wherever ``url`` points.
        """
        url = urljoin(self.base, url)
        ours = _origin(url) == _origin(self.base)
        value = self._authorizer.header(scope) if ours else None
        reply = self.transport.request(method, url, headers=headers, body=body, authorization=value, retry=retry)
        for _ in range(2):
            if reply.status != 401 or not ours or _origin(reply.url) != _origin(self.base):
                break
            challenge = ", ".join(reply.headers.getlist("WWW-Authenticate"))
            reply.drain()
            fresh = self._authorizer.challenged(challenge, scope, value)
            if fresh is None:
                raise self._refused(reply, f"{method} {urlsplit(url).path}")
            value = fresh
            reply = self.transport.request(method, url, headers=headers, body=body, authorization=value, retry=retry)
        return reply

    def ping(self) -> None:
        """Raise SourceUnreachable or SourceError unless the registry answers as one."""
        with self.transport.request("GET", self.base) as reply:
            if reply.status not in (200, 401, 403):
                raise self.failure(reply, "its version check")

    def manifest(self, repository: str, reference: str) -> Fetched:
        """The manifest of a tag or digest. Raises ModelNotFound, UnsafeContent over 4 MiB, DigestMismatch."""
        told = f"{self.host}/{repository}{'@' if ':' in reference else ':'}{reference}"
        url = f"{repository}/manifests/{quote(reference, safe=':')}"
        with self.send("GET", url, scope=pull_scope(repository), headers={"Accept": ACCEPT}) as reply:
            if reply.status != 200:
                raise self.failure(reply, told)
            length = reply.headers.get("Content-Length") or "0"
            if length.isdigit() and int(length) > MAX_MANIFEST:
                raise UnsafeContent(
                    f"the manifest of {told} has {length} bytes", hint=f"at most {MAX_MANIFEST} are taken"
                )
            try:
                data = reply.body(MAX_MANIFEST)
            except SourceError as error:
                if type(error) is SourceError:
                    raise UnsafeContent(f"the manifest of {told} has more than {MAX_MANIFEST} bytes") from error
                raise TruncatedContent(f"the manifest of {told} was cut short") from error
            kind = reply.headers.get("Content-Type")
            said = reply.headers.get("Docker-Content-Digest")
        wanted = reference if ":" in reference else said if said and digests.valid(said) else None
        digest = digests.of_bytes(data, wanted.partition(":")[0] if wanted else "sha256")
        if wanted is not None and digest != wanted:
            raise DigestMismatch(f"the manifest of {told} has the digest {digest}, not {wanted}")
        return Fetched(data=data, media_type=kind.partition(";")[0].strip() if kind else None, digest=digest)

    def manifest_digest(self, repository: str, reference: str) -> str | None:
        """The digest that the registry says a tag has (HEAD); None if it has no such manifest or does not say."""
        url = f"{repository}/manifests/{quote(reference, safe=':')}"
        with self.send("HEAD", url, scope=pull_scope(repository), headers={"Accept": ACCEPT}) as reply:
            if reply.status == 404:
                return None
            if reply.status != 200:
                raise self.failure(reply, f"{self.host}/{repository}:{reference}")
            said = reply.headers.get("Docker-Content-Digest") or ""
            return said if digests.valid(said) else None

    def put_manifest(self, repository: str, reference: str, data: bytes, media_type: str) -> str | None:
        """Store a manifest under a tag or its digest. Returns the registry's ``OCI-Subject``, if it sent one."""
        url = f"{repository}/manifests/{quote(reference, safe=':')}"
        sent = {"Content-Type": media_type}
        with self.send("PUT", url, scope=push_scope(repository), headers=sent, body=data) as reply:
            if reply.status not in (200, 201, 202):
                raise self.failure(reply, f"the manifest of {self.host}/{repository}:{reference}")
            said = reply.headers.get("Docker-Content-Digest")
            if said and said.startswith("sha256:") and said != digests.of_bytes(data):
                raise DigestMismatch(f"{self.host} stored the manifest of {repository} as {said}")
            return reply.headers.get("OCI-Subject")

    def delete_manifest(self, repository: str, digest: str) -> None:
        self._delete(f"{repository}/manifests/{digest}", repository, digest)

    def delete_blob(self, repository: str, digest: str) -> None:
        self._delete(f"{repository}/blobs/{digest}", repository, digest)

    def blob_size(self, repository: str, digest: str, *, scope: str | None = None) -> int | None:
        """Bytes of a blob; None if the repository does not have it."""
        url = f"{repository}/blobs/{digest}"
        with self.send("HEAD", url, scope=scope or pull_scope(repository)) as reply:
            if reply.status == 404:
                return None
            if reply.status != 200:
                raise self.failure(reply, f"blob {digest} of {self.host}/{repository}")
            length = reply.headers.get("Content-Length") or ""
            return int(length) if length.isdigit() else 0

    def open_blob(self, repository: str, digest: str, headers: Mapping[str, str] | None = None) -> Response:
        """The GET of a blob, with a ``Range`` if ``headers`` say so; redirects are followed."""
        return self.send("GET", f"{repository}/blobs/{digest}", scope=pull_scope(repository), headers=headers)

    def tags(self, repository: str, page: int = 1000) -> Iterator[str]:
        """All tags of a repository, page by page."""
        yield from self._pages(f"{repository}/tags/list?n={page}", "tags", pull_scope(repository), repository)

    def catalog(self, page: int = 1000) -> Iterator[str]:
        """All repositories, page by page; many public registries refuse this."""
        yield from self._pages(f"_catalog?n={page}", "repositories", "registry:catalog:*", "the catalogue")

    def failure(self, reply: Response, what: str) -> DockyardError:
        """The error that a reply stands for, with the registry's own words; closes the reply."""
        try:
            told = _told(reply.body(1 << 16))
        except DockyardError:
            told = ""
        text = f"{what}: registry {self.host} answered {reply.status}" + (f" ({told})" if told else "")
        if reply.status == 404:
            return ModelNotFound(f"{what} is not in the registry {self.host}" + (f" ({told})" if told else ""))
        if reply.status in (401, 403):
            return self._refused(reply, what)
        if reply.status == 429:
            wait = parse.retry_after(reply.headers.get("Retry-After"))
            return RateLimited(text, hint="wait, or log in for a higher limit", retry_after=wait)
        return SourceError(text)

    def _refused(self, reply: Response, what: str) -> SourceError:
        return SourceError(
            f"{what}: registry {self.host} refused access ({reply.status})",
            hint=f"check the name; if it is private, log in with `docker login {self.host}` "
            "or set DOCKER_USERNAME and DOCKER_PASSWORD",
        )

    def _delete(self, url: str, repository: str, what: str) -> None:
        with self.send("DELETE", url, scope=f"repository:{repository}:delete,pull,push") as reply:
            if reply.status == 405:
                raise SourceError(f"registry {self.host} does not allow deletes")
            if reply.status not in (200, 202):
                raise self.failure(reply, f"{repository}@{what}")

    def _pages(self, url: str | None, field: str, scope: str, what: str) -> Iterator[str]:
        here = self.base
        for _ in range(_MAX_PAGES):
            if url is None:
                return
            here = urljoin(here, url)
            if _origin(here) != _origin(self.base):
                raise SourceError(f"registry {self.host} sends the listing of {what} to another host")
            with self.send("GET", here, scope=scope) as reply:
                if reply.status != 200:
                    raise self.failure(reply, what)
                following = parse.next_link(reply.headers.get("Link"))
                data = reply.body(_MAX_PAGE_BYTES)
            try:
                names = msgspec.json.decode(data, type=dict[str, object]).get(field) or []
            except msgspec.DecodeError as error:
                raise SourceError(f"registry {self.host}: the listing of {what} is not JSON") from error
            if not isinstance(names, list):
                raise SourceError(f"registry {self.host}: the listing of {what} has no {field}")
            yield from (name for name in names if isinstance(name, str))
            url = following
        raise SourceError(f"registry {self.host}: the listing of {what} does not end")


def pull_scope(repository: str) -> str:
    return f"repository:{repository}:pull"


def push_scope(repository: str) -> str:
    return f"repository:{repository}:pull,push"


def with_query(url: str, **query: str) -> str:
    """``url`` with parameters added to those it has."""
    return f"{url}{'&' if urlsplit(url).query else '?'}{urlencode(query)}"


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc


def _told(body: bytes) -> str:
    """The messages of an OCI error document, or the first words of what came instead."""
    try:
        errors = msgspec.json.decode(body, type=dict[str, list[dict[str, object]]])["errors"]
        words = [f"{one.get('code', '')}: {one.get('message', '')}".strip(": ") for one in errors]
        return "; ".join(words)[:300]
    except (msgspec.DecodeError, KeyError):
        text = body[:200].decode(errors="replace").strip()
        return text if text.isprintable() and "<" not in text else ""
