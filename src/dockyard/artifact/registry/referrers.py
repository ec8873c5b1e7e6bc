"""What is attached to a manifest in a registry: by the referrers API, or by the tag that stands in for it.

A registry without the API keeps, by convention of the distribution spec, an index under the tag ``sha256-<hex>`` that
lists the referrers; whoever attaches something updates it. Both are read alike here.
"""

from __future__ import annotations

from urllib.parse import quote, urljoin

import msgspec

from dockyard.artifact import digest as digests
from dockyard.artifact import media
from dockyard.artifact.document import Index, Manifest, encode, parse_manifest
from dockyard.artifact.registry import headers as parse
from dockyard.artifact.registry.client import Registry, pull_scope
from dockyard.errors import ArtifactError, ModelNotFound, SourceError
from dockyard.types import Descriptor

_MAX_PAGES = 1000
_MAX_BYTES = 32 << 20


def fallback_tag(digest: str) -> str:
    """The tag of the list for a subject: algorithm and at most 64 digits of its digest."""
    algorithm, text = digests.split(digest)
    return f"{algorithm[:32]}-{text[:64]}"


def referrers(registry: Registry, repository: str, digest: str, artifact_type: str | None = None) -> list[Descriptor]:
    """Descriptors of what is attached to ``digest``, with their artifactType and annotations; [] for nothing."""
    found = _by_api(registry, repository, digest, artifact_type)
    if found is None:
        found = list(_listed(registry, repository, digest))
    unique = {each.digest: each for each in found}
    return [each for each in unique.values() if artifact_type is None or each.artifact_type == artifact_type]


def attach(registry: Registry, repository: str, data: bytes, *, reference: str | None = None) -> Descriptor:
    """Push a manifest that has a ``subject`` so that it can be found from there. Its blobs must be there already."""
    manifest = parse_manifest(data)
    digest = digests.of_bytes(data)
    answered = registry.put_manifest(repository, reference or digest, data, manifest.media_type)
    described = Descriptor(
        media_type=manifest.media_type,
        digest=digest,
        size=len(data),
        artifact_type=manifest.kind if isinstance(manifest, Manifest) else manifest.artifact_type,
        annotations=dict(manifest.annotations),
    )
    subject = manifest.subject.digest if manifest.subject else None
    if subject is not None and answered != subject and _by_api(registry, repository, subject, None) is None:
        rows = [each for each in _listed(registry, repository, subject) if each.digest != digest]
        _write(registry, repository, subject, [*rows, described])
    return described


def detach(registry: Registry, repository: str, digest: str) -> None:
    """Delete a referrer, and its row in its subject's list where that stands in for the API."""
    manifest = parse_manifest(registry.manifest(repository, digest).data)
    registry.delete_manifest(repository, digest)
    subject = manifest.subject.digest if manifest.subject else None
    if subject is not None and _by_api(registry, repository, subject, None) is None:
        rows = _listed(registry, repository, subject)
        kept = [each for each in rows if each.digest != digest]
        if len(kept) < len(rows):
            _write(registry, repository, subject, kept)


def _by_api(registry: Registry, repository: str, digest: str, artifact_type: str | None) -> list[Descriptor] | None:
    """The API's answer over all its pages, perhaps unfiltered; None where the registry has no such API."""
    query = f"?artifactType={quote(artifact_type, safe='')}" if artifact_type else ""
    url: str | None = urljoin(registry.base, f"{repository}/referrers/{digest}{query}")
    found: list[Descriptor] = []
    for _ in range(_MAX_PAGES):
        if url is None:
            return found
        if not url.startswith(registry.base):
            raise SourceError(f"registry {registry.host} sends the list of referrers to another host")
        with registry.send("GET", url, scope=pull_scope(repository), headers={"Accept": media.OCI_INDEX}) as reply:
            kind = (reply.headers.get("Content-Type") or "").partition(";")[0].strip()
            if reply.status in (400, 404, 405, 501) or (reply.status == 200 and kind != media.OCI_INDEX):
                return None
            if reply.status != 200:
                raise registry.failure(reply, f"the referrers of {repository}@{digest}")
            following = parse.next_link(reply.headers.get("Link"))
            url = urljoin(url, following) if following else None
            found.extend(_rows(reply.body(_MAX_BYTES), f"the referrers of {repository}@{digest}"))
    return found


def _listed(registry: Registry, repository: str, digest: str) -> tuple[Descriptor, ...]:
    """The rows of the list that stands in for the API; () where there is none."""
    try:
        data = registry.manifest(repository, fallback_tag(digest)).data
    except ModelNotFound:
        return ()
    return _rows(data, f"the list of referrers of {repository}@{digest}")


def _rows(data: bytes, what: str) -> tuple[Descriptor, ...]:
    parsed = parse_manifest(data, media.OCI_INDEX)
    if not isinstance(parsed, Index):
        raise ArtifactError(f"{what} is not an index")
    return parsed.manifests


def _write(registry: Registry, repository: str, subject: str, rows: list[Descriptor]) -> None:
    bare = tuple(msgspec.structs.replace(row, data=None, urls=()) for row in rows)
    index = Index(media_type=media.OCI_INDEX, manifests=bare)
    registry.put_manifest(repository, fallback_tag(subject), encode(index), media.OCI_INDEX)
