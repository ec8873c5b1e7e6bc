"""The hub's manifests, tags, catalogue and referrers, over the names that the store keeps.

A repository is what the store's names say: ``docker.io/ai/smollm2:latest`` is tag ``latest`` of ``ai/smollm2`` where
docker.io is the store's default registry; names of other registries appear as ``host/repository``. One-word names
get the default namespace, as everywhere. Content is shared by all repositories, as it is in the store.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlencode

from dockyard.api._oci_wire import Ask, OciError, Reply, json_reply
from dockyard.artifact import digest as digests
from dockyard.artifact.document import Index, Manifest, parse_manifest
from dockyard.artifact.lookup import reach
from dockyard.artifact.media import MANIFESTS, OCI_INDEX
from dockyard.artifact.reference import check_tag
from dockyard.artifact.store import Entry, Store
from dockyard.errors import InvalidReference, ModelNotFound, NotFound
from dockyard.types import Descriptor, Reference

MOST = 1000
"""Entries of one page of the catalogue or of a list of tags."""


class Manifests:
    """Requests about manifests. Plain blocking functions: they run in threads."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def get(self, repository: str, name: str) -> Reply:
        """GET and HEAD by tag or digest."""
        found = self._find(repository, name)
        data = self.store.manifest(found.digest)
        return Reply(headers=_described(found), body=data)

    def put(self, ask: Ask, repository: str, name: str, data: bytes) -> Reply:
        """Keep a manifest whose blobs came before it, under a tag or by its digest alone."""
        media_type = ask.headers.get("content-type", "").partition(";")[0].strip() or None
        parsed = parse_manifest(data, media_type)
        self._check_blobs(parsed)
        if digests.valid(name):
            if digests.of_bytes(data, name.partition(":")[0]) != name:
                raise OciError(400, "DIGEST_INVALID", f"the manifest does not have the digest {name}")
            # A nameless manifest is kept while an index or a subject holds it; sha512 is only kept under a name.
            named = self._reference(repository, digest=name) if name.startswith("sha512:") else None
        else:
            named = self._reference(repository, tag=_tag(name, writing=True))
        found = self.store.put_manifest(data, media_type=media_type, reference=named)
        headers = {"location": f"/v2/{repository}/manifests/{found.digest}", "docker-content-digest": found.digest}
        if parsed.subject is not None:
            headers["oci-subject"] = parsed.subject.digest
        return Reply(status=201, headers=headers)

    def delete(self, repository: str, name: str) -> Reply:
        """Take a tag away, or a manifest with all of this repository's tags; other repositories' names stay."""
        found = self._find(repository, name)
        if not digests.valid(name):
            self.store.untag(self._reference(repository, tag=name))
            return Reply(status=202)
        if any(entry.pinned for entry in self.store.entries(everything=True) if entry.descriptor.digest == name):
            raise OciError(409, "DENIED", f"{name} is pinned in this store", {"hint": "unpin it there first"})
        names = self.store.names(found.digest)
        for each in names:
            if self.repository(each) == repository:
                self.store.delete(each)
        if not names:
            self.store.delete(found.digest)
        return Reply(status=202)

    def tags(self, ask: Ask, repository: str) -> Reply:
        """One page of a repository's tags in lexical order."""
        entries = [each for each in self._named() if self.repository(each[0]) == repository]
        if not entries:
            raise OciError(404, "NAME_UNKNOWN", f"there is no repository {repository!r}", {"name": repository})
        tags, more = _page(ask, sorted({reference.tag for reference, _ in entries if reference.tag is not None}))
        return json_reply({"name": repository, "tags": tags}, **_next(f"/v2/{repository}/tags/list", tags, more, ask))

    def catalog(self, ask: Ask) -> Reply:
        """One page of all repositories in lexical order."""
        known = {name for reference, _ in self._named() if (name := self.repository(reference)) is not None}
        names, more = _page(ask, sorted(known))
        return json_reply({"repositories": names}, **_next("/v2/_catalog", names, more, ask))

    def referrers(self, ask: Ask, repository: str, digest: str) -> Reply:
        """What is attached to a manifest, as an index; empty where nothing is, be the manifest here or not."""
        self._reference(repository, digest=_digest(digest))
        kind = ask.query.get("artifactType")
        found = [_plain(each) for each in self.store.referrers(digest, kind)]
        value = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}
        applied = {"oci_filters_applied": "artifactType"} if kind is not None else {}
        return json_reply(value, media_type=OCI_INDEX, **applied)

    def repository(self, reference: Reference) -> str | None:
        """The hub's name for a reference's repository; None if it can't have one, its registry having a port."""
        if reference.registry == self.store.registry:
            return reference.repository
        return None if ":" in reference.registry else f"{reference.registry}/{reference.repository}"

    def normal(self, repository: str) -> str:
        """A repository's full name: ``smollm2`` is ``ai/smollm2``. Raises NAME_INVALID."""
        return self.repository(self._reference(repository, tag="latest")) or repository

    def content(self, repository: str) -> set[str]:
        """The digests of all that a repository's names reach, and of what is attached to those."""
        roots = {each.descriptor.digest for name, each in self._named() if self.repository(name) == repository}
        attached = {each.descriptor.digest for each in self.store.entries(everything=True) if each.subject in roots}
        return reach(self.store, roots | attached)

    def _find(self, repository: str, name: str) -> Descriptor:
        wanted = {"digest": name} if digests.valid(name) else {"tag": _tag(name)}
        try:
            return self.store.resolve(self._reference(repository, **wanted))
        except (ModelNotFound, NotFound):
            detail = {"name": repository, **wanted}
            if any(self.repository(reference) == repository for reference, _ in self._named()):
                told = f"repository {repository!r} has no manifest {name!r}"
                raise OciError(404, "MANIFEST_UNKNOWN", told, detail) from None
            code = "MANIFEST_UNKNOWN" if "digest" in wanted else "NAME_UNKNOWN"
            raise OciError(404, code, f"there is no {repository}:{name} here", detail) from None

    def _reference(self, repository: str, *, tag: str | None = None, digest: str | None = None) -> Reference:
        try:
            return self.store.named(repository + (f":{tag}" if tag else "") + (f"@{digest}" if digest else ""))
        except InvalidReference as error:
            raise OciError(400, "NAME_INVALID", error.message, {"hint": error.hint}) from error

    def _named(self) -> list[tuple[Reference, Entry]]:
        entries = self.store.entries(everything=True)
        return [(entry.reference, entry) for entry in entries if entry.reference is not None]

    def _check_blobs(self, parsed: Manifest | Index) -> None:
        """Name every blob that is missing at once; ``put_manifest`` checks again under the store's lock."""
        children = parsed.manifests if isinstance(parsed, Index) else tuple(parsed.blobs())
        missing = [each.digest for each in children if not self.store.has(each.digest)]
        if missing:
            told = f"the manifest names {len(missing)} that are not here, {missing[0]} first"
            raise OciError(404, "MANIFEST_BLOB_UNKNOWN", told, {"digests": missing[:100]})


def _described(found: Descriptor) -> dict[str, str]:
    return {
        "content-type": found.media_type,
        "docker-content-digest": found.digest,
        "etag": f'"{found.digest}"',
    }


def _plain(found: Descriptor) -> dict[str, Any]:
    """A descriptor of the referrers list; one without artifactType is left without, as the spec has it for indexes."""
    value: dict[str, Any] = {"mediaType": found.media_type, "digest": found.digest, "size": found.size}
    if found.artifact_type and (found.media_type in MANIFESTS or found.artifact_type != found.media_type):
        value["artifactType"] = found.artifact_type
    if found.annotations:
        value["annotations"] = found.annotations
    return value


def _tag(name: str, *, writing: bool = False) -> str:
    try:
        return check_tag(name)
    except InvalidReference as error:
        if ":" in name:
            raise OciError(400, "DIGEST_INVALID", f"{name!r} is neither a tag nor a digest") from error
        if writing:
            raise OciError(400, "TAG_INVALID", error.message, {"hint": error.hint}) from error
        raise OciError(404, "MANIFEST_UNKNOWN", error.message, {"tag": name}) from error


def _digest(text: str) -> str:
    try:
        digests.split(text)
    except InvalidReference as error:
        raise OciError(400, "DIGEST_INVALID", error.message, {"hint": error.hint}) from error
    return text


def _page(ask: Ask, names: list[str]) -> tuple[list[str], bool]:
    """The names after ``last``, at most ``n`` of them, and whether there are more."""
    text = ask.query.get("n")
    if text is not None and not (text.isascii() and text.isdigit()):
        raise OciError(400, "PAGINATION_NUMBER_INVALID", f"n={text!r} is not a number")
    most = min(int(text[:9]), MOST) if text is not None else MOST
    last = ask.query.get("last")
    if last is not None:
        names = [name for name in names if name > last]
    return names[:most], len(names) > most


def _next(path: str, page: list[str], more: bool, ask: Ask) -> dict[str, str]:
    if not more or not page:
        return {}
    query = urlencode({"n": ask.query.get("n", MOST), "last": page[-1]})
    return {"link": f'<{quote(path)}?{query}>; rel="next"'}
