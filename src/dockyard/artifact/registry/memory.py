"""A whole OCI registry in memory, on a thread of this process: for tests of anything that pulls or pushes.

    with MemoryRegistry() as registry:
        pull(store, f"{registry.host}/ai/model", settings)

It speaks the distribution API: blobs with ranges, uploads in one piece and in chunks, mounts, manifests, tags and
catalogue in pages, referrers, deletes; no authentication, basic, or bearer tokens. ``fail`` makes it misbehave, and
``requests`` tells what was asked of it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
import threading
from collections.abc import Iterable
from http.server import ThreadingHTTPServer
from typing import Literal
from urllib.parse import parse_qs, quote, urlsplit

import msgspec

from dockyard.artifact import media
from dockyard.artifact.registry.faults import Fault, Faults

_NAME = r"(?P<name>[a-z0-9]+(?:[._/-]+[a-z0-9]+)*)"
_ROUTES = tuple(
    (re.compile(rf"/v2/{pattern}"), action)
    for pattern, action in (
        ("", "root"),
        ("_catalog", "catalog"),
        (_NAME + r"/blobs/uploads/", "uploads"),
        (_NAME + r"/blobs/uploads/(?P<key>[0-9a-f]+)", "upload"),
        (_NAME + r"/blobs/(?P<key>[a-z0-9]+:[0-9a-f]+)", "blob"),
        (_NAME + r"/manifests/(?P<key>[A-Za-z0-9_.:-]+)", "manifest"),
        (_NAME + r"/tags/list", "tags"),
        (_NAME + r"/referrers/(?P<key>[a-z0-9]+:[0-9a-f]+)", "referrers"),
    )
)


class Asked(msgspec.Struct, frozen=True):
    """One request as it came in; ``headers`` have lower-case names."""

    method: str
    path: str
    headers: dict[str, str]


class Answer(msgspec.Struct):
    """What to send back."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = {}


class Repository(msgspec.Struct):
    """Digests of blobs it may serve, manifests by digest as (type, bytes), and tags."""

    blobs: set[str] = set()
    manifests: dict[str, tuple[str, bytes]] = {}
    tags: dict[str, str] = {}


class MemoryRegistry:
    """A registry at ``host`` ("127.0.0.1:port") for as long as the context lasts.

    ``ranges`` and ``referrers_api`` False leave those out, as some registries do; ``chunked`` False refuses PATCH.
    ``blobs_at`` redirects blob downloads to that base URL. ``users`` (name to password) with ``auth`` "basic" or
    "token" closes it; ``anonymous_pull`` then still hands out pull tokens. ``page`` bounds every listing.
    """

    def __init__(
        self,
        *,
        auth: Literal["", "basic", "token"] = "",
        users: dict[str, str] | None = None,
        anonymous_pull: bool = False,
        ranges: bool = True,
        chunked: bool = True,
        referrers_api: bool = True,
        blobs_at: str = "",
        page: int = 1000,
    ) -> None:
        self.auth = auth
        self.users = dict(users or {})
        self.anonymous_pull = anonymous_pull
        self.ranges = ranges
        self.chunked = chunked
        self.referrers_api = referrers_api
        self.blobs_at = blobs_at
        self.page = page
        self.blobs: dict[str, bytes] = {}
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Asked] = []
        self.faults = Faults()
        self.tokens: dict[str, set[str]] = {}
        self.refresh_tokens: dict[str, str] = {}
        self._uploads: dict[str, bytearray] = {}
        self._lock = threading.RLock()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> MemoryRegistry:
        from dockyard.artifact.registry.memory_http import serve

        self._server = serve(self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    @property
    def host(self) -> str:
        if self._server is None:
            raise RuntimeError("the registry is not started: use it as a context manager")
        return f"127.0.0.1:{self._server.server_address[1]}"

    # for tests

    def fail(self, **fault: object) -> None:
        """Misbehave as ``Fault`` describes: ``fail(match="GET .*/blobs/", cut=1000, times=3)``."""
        self.faults.add(msgspec.convert(fault, Fault))

    def asked(self, pattern: str) -> list[Asked]:
        """The requests so far whose "METHOD path" fits the regular expression."""
        with self._lock:
            return [one for one in self.requests if re.search(pattern, f"{one.method} {one.path}")]

    def add_blob(self, name: str, data: bytes) -> str:
        """Put a blob into a repository; returns its digest."""
        digest = _digest(data)
        with self._lock:
            self.blobs[digest] = data
            self._repository(name).blobs.add(digest)
        return digest

    def add_manifest(self, name: str, data: bytes, *, tag: str | None = None, kind: str = media.OCI_MANIFEST) -> str:
        """Put a manifest into a repository; returns its digest."""
        digest = _digest(data)
        with self._lock:
            repository = self._repository(name)
            repository.manifests[digest] = (kind, data)
            if tag is not None:
                repository.tags[tag] = digest
        return digest

    # the protocol

    def answer(self, asked: Asked, body: bytes) -> Answer:
        """What the registry says to a request; holds no connection."""
        parts = urlsplit(asked.path)
        query = {key: values[0] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        with self._lock:
            self.requests.append(asked)
            if parts.path == "/token":
                return self._issue(asked, parse_qs(parts.query), body)
            for pattern, action in _ROUTES:
                found = pattern.fullmatch(parts.path)
                if found:
                    fields = found.groupdict()
                    refused = self._refuse(asked, fields.get("name"), query)
                    if refused is not None:
                        return refused
                    return self._act(action, asked, fields, query, body)
        return _error(404, "NAME_UNKNOWN", parts.path)

    def _act(self, action: str, asked: Asked, fields: dict[str, str], query: dict[str, str], body: bytes) -> Answer:
        name, key = fields.get("name", ""), fields.get("key", "")
        if action == "root":
            return Answer(200, b"{}")
        if action == "catalog":
            return self._listing("/v2/_catalog", "repositories", self.repositories, query)
        if action == "uploads":
            return self._begin(name, query, body)
        if action == "upload":
            return self._continue(asked, name, key, query, body)
        repository = self.repositories.get(name)
        if action == "manifest" and asked.method == "PUT":
            return self._put_manifest(name, key, asked.headers.get("content-type", media.OCI_MANIFEST), body)
        if repository is None:
            return _error(404, "NAME_UNKNOWN", name)
        if action == "tags":
            return self._listing(f"/v2/{name}/tags/list", "tags", repository.tags, query, name=name)
        if action == "referrers":
            return self._referrers(name, repository, key, query)
        if action == "blob":
            return self._blob(asked, repository, key)
        return self._manifest(asked, repository, key)

    def _blob(self, asked: Asked, repository: Repository, digest: str) -> Answer:
        if digest not in repository.blobs:
            return _error(404, "BLOB_UNKNOWN", digest)
        if asked.method == "DELETE":
            repository.blobs.discard(digest)
            return Answer(202)
        if self.blobs_at and asked.method == "GET":
            return Answer(307, headers={"Location": f"{self.blobs_at}{urlsplit(asked.path).path}?signature=x"})
        kind = {"Content-Type": "application/octet-stream", "Docker-Content-Digest": digest}
        return Answer(200, self.blobs[digest], kind | ({"Accept-Ranges": "bytes"} if self.ranges else {}))

    def _begin(self, name: str, query: dict[str, str], body: bytes) -> Answer:
        repository = self._repository(name)
        neighbour = self.repositories.get(query.get("from", ""))
        mounted = query.get("mount", "")
        if neighbour is not None and mounted in neighbour.blobs:
            repository.blobs.add(mounted)
            return Answer(201, headers={"Location": f"/v2/{name}/blobs/{mounted}", "Docker-Content-Digest": mounted})
        if "digest" in query:
            return self._commit(name, query["digest"], body)
        key = secrets.token_hex(16)
        self._uploads[key] = bytearray()
        return self._standing(202, name, key)

    def _continue(self, asked: Asked, name: str, key: str, query: dict[str, str], body: bytes) -> Answer:
        held = self._uploads.get(key)
        if held is None:
            return _error(404, "BLOB_UPLOAD_UNKNOWN", key)
        if asked.method == "GET":
            return self._standing(204, name, key)
        if asked.method == "DELETE":
            del self._uploads[key]
            return Answer(204)
        if asked.method == "PATCH" and not self.chunked:
            return _error(405, "UNSUPPORTED", "no chunks here")
        begins = re.match(r"(\d+)-", asked.headers.get("content-range", ""))
        if begins and int(begins[1]) != len(held):
            return self._standing(416, name, key)
        held += body
        if asked.method == "PATCH":
            return self._standing(202, name, key)
        del self._uploads[key]
        return self._commit(name, query.get("digest", ""), bytes(held))

    def arrived(self, path: str, part: bytes) -> None:
        """What came of a request's body before the connection broke: kept, as registries do, for a resumed upload."""
        found = re.fullmatch(rf"/v2/{_NAME}/blobs/uploads/(?P<key>[0-9a-f]+)", urlsplit(path).path)
        with self._lock:
            if found and found["key"] in self._uploads:
                self._uploads[found["key"]] += part

    def _standing(self, status: int, name: str, key: str) -> Answer:
        last = max(0, len(self._uploads[key]) - 1)
        return Answer(status, headers={"Location": f"/v2/{name}/blobs/uploads/{key}", "Range": f"0-{last}"})

    def _commit(self, name: str, digest: str, data: bytes) -> Answer:
        if _digest(data) != digest:
            return _error(400, "DIGEST_INVALID", f"{digest} is not the digest of these {len(data)} bytes")
        self.add_blob(name, data)
        return Answer(201, headers={"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest})

    def _manifest(self, asked: Asked, repository: Repository, key: str) -> Answer:
        digest = key if ":" in key else repository.tags.get(key, "")
        if digest not in repository.manifests:
            return _error(404, "MANIFEST_UNKNOWN", key)
        if asked.method == "DELETE":
            if ":" in key:
                del repository.manifests[digest]
            repository.tags = {tag: one for tag, one in repository.tags.items() if tag != key and one != key}
            return Answer(202)
        kind, data = repository.manifests[digest]
        return Answer(200, data, {"Content-Type": kind, "Docker-Content-Digest": digest})

    def _put_manifest(self, name: str, key: str, kind: str, data: bytes) -> Answer:
        try:
            document = json.loads(data)
            needed = [document["config"], *document["layers"]] if "layers" in document else []
            digests = [one["digest"] for one in needed]
            children = [one["digest"] for one in document.get("manifests", [])]
        except (ValueError, KeyError, TypeError):
            return _error(400, "MANIFEST_INVALID", "not a manifest")
        repository = self._repository(name)
        digest = _digest(data)
        missing = [one for one in digests if one not in repository.blobs]
        listed = "subject" not in document and not key.startswith("sha256-")
        missing += [one for one in children if listed and one not in repository.manifests]
        if missing:
            return _error(400, "MANIFEST_BLOB_UNKNOWN", missing[0])
        if ":" in key and key != digest:
            return _error(400, "DIGEST_INVALID", key)
        self.add_manifest(name, data, tag=None if ":" in key else key, kind=kind)
        headers = {"Location": f"/v2/{name}/manifests/{digest}", "Docker-Content-Digest": digest}
        subject = document.get("subject", {}).get("digest")
        if subject and self.referrers_api:
            headers["OCI-Subject"] = subject
        return Answer(201, headers=headers)

    def _referrers(self, name: str, repository: Repository, digest: str, query: dict[str, str]) -> Answer:
        if not self.referrers_api:
            return _error(404, "UNSUPPORTED", "no referrers here")
        rows = []
        for key, (kind, data) in sorted(repository.manifests.items()):
            document = json.loads(data)
            if document.get("subject", {}).get("digest") != digest:
                continue
            what = document.get("artifactType") or document.get("config", {}).get("mediaType")
            row = {"mediaType": kind, "digest": key, "size": len(data), "artifactType": what}
            row |= {"annotations": document["annotations"]} if document.get("annotations") else {}
            rows.append(row)
        wanted = query.get("artifactType")
        rows = [row for row in rows if wanted is None or row["artifactType"] == wanted]
        start = int(query.get("start", "0"))
        headers = {"Content-Type": media.OCI_INDEX} | ({"OCI-Filters-Applied": "artifactType"} if wanted else {})
        if len(rows) > start + self.page:
            extra = f"&artifactType={quote(wanted)}" if wanted else ""
            target = f"/v2/{name}/referrers/{digest}?start={start + self.page}{extra}"
            headers["Link"] = f'<{target}>; rel="next"'
        index = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": rows[start : start + self.page]}
        return Answer(200, json.dumps(index).encode(), headers)

    def _listing(
        self, path: str, field: str, names: Iterable[str], query: dict[str, str], name: str | None = None
    ) -> Answer:
        asked = query.get("n", "")
        count = min(self.page, int(asked)) if asked.isdigit() and int(asked) else self.page
        rest = [one for one in sorted(names) if one > query.get("last", "")]
        body: dict[str, object] = {field: rest[:count]} | ({"name": name} if name else {})
        headers = {"Content-Type": "application/json"}
        if len(rest) > count:
            headers["Link"] = f'<{path}?last={quote(rest[count - 1], safe="")}&n={count}>; rel="next"'
        return Answer(200, json.dumps(body).encode(), headers)

    def _repository(self, name: str) -> Repository:
        return self.repositories.setdefault(name, Repository())

    # who may

    def _refuse(self, asked: Asked, name: str | None, query: dict[str, str]) -> Answer | None:
        if not self.auth:
            return None
        scheme, _, value = asked.headers.get("authorization", "").partition(" ")
        if self.auth == "basic":
            if scheme.lower() == "basic" and self._user(value) is not None:
                return None
            return _error(401, "UNAUTHORIZED", "log in", {"WWW-Authenticate": 'Basic realm="memory"'})
        action = "pull" if asked.method in ("GET", "HEAD") else "delete" if asked.method == "DELETE" else "push"
        needed = {f"repository:{name}:{action}"} if name else set()
        if name is None and "_catalog" in asked.path:
            needed = {"registry:catalog:*"}
        if "from" in query:
            needed.add(f"repository:{query['from']}:pull")
        if scheme.lower() == "bearer" and value in self.tokens and needed <= self.tokens[value]:
            return None
        told = f'Bearer realm="http://{self.host}/token",service="memory"'
        told += "".join(f',scope="{one}"' for one in sorted(needed)[:1])
        if scheme.lower() == "bearer" and value in self.tokens:
            told += ',error="insufficient_scope"'
        return _error(401, "UNAUTHORIZED", "a token is needed", {"WWW-Authenticate": told})

    def _issue(self, asked: Asked, query: dict[str, list[str]], body: bytes) -> Answer:
        """The token server: GET anonymous or with basic credentials, POST with a refresh token."""
        scopes = query.get("scope", [])
        if asked.method == "POST":
            form = parse_qs(body.decode())
            user = self.refresh_tokens.get(form.get("refresh_token", [""])[0])
            if user is None:
                return _error(401, "UNAUTHORIZED", "unknown refresh token")
            scopes = form.get("scope", [""])[0].split()
        else:
            scheme, _, value = asked.headers.get("authorization", "").partition(" ")
            user = self._user(value) if scheme.lower() == "basic" else None
            if user is None and (scheme or not self.anonymous_pull):
                return _error(401, "UNAUTHORIZED", "wrong name or password")
        granted = set()
        for scope in scopes:
            head, _, actions = scope.rpartition(":")
            allowed = {"pull"} if user is None else {"pull", "push", "delete", "*"}
            granted |= {f"{head}:{one}" for one in actions.split(",") if one in allowed}
        token = secrets.token_urlsafe(24)
        self.tokens[token] = granted
        return Answer(200, json.dumps({"token": token, "expires_in": 300}).encode())

    def _user(self, encoded: str) -> str | None:
        try:
            name, _, password = base64.b64decode(encoded).decode().partition(":")
        except ValueError:
            return None
        return name if name in self.users and self.users[name] == password else None


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Answer:
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return Answer(status, body, {"Content-Type": "application/json"} | (headers or {}))
