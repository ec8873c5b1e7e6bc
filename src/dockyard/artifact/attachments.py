"""What is attached to an artifact comes with it: reports, signatures and bills, fetched and held against the policy."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from dockyard.artifact.document import Index, Manifest, parse_manifest
from dockyard.artifact.proof.policy import enforce
from dockyard.artifact.reference import familiar
from dockyard.artifact.registry.client import Registry
from dockyard.artifact.registry.download import download
from dockyard.artifact.registry.flight import Wanted
from dockyard.artifact.registry.referrers import referrers
from dockyard.artifact.registry.transport import is_loopback
from dockyard.artifact.sources import Job
from dockyard.errors import ModelNotFound, SourceUnreachable, Untrusted
from dockyard.types import Descriptor

MOST = 256
"""Referrers of one artifact that are fetched; a hostile registry could list any number."""
MOST_BYTES = 256 << 20
"""Of the blobs of one of them."""


def fetch_attached(job: Job, digest: str) -> int:
    """Fetch what the artifact's registry lists as attached to it, and to the manifests of an index; how many those are.

    What is listed beyond ``MOST``, or is larger than ``MOST_BYTES``, is left where it is and told. A registry that
    can't be reached is no failure: what is here is here.
    """
    reference, store = job.reference, job.store
    if job.settings.offline and not is_loopback(reference.registry):
        return 0
    found = store.parsed(digest)
    subjects = [digest, *(each.digest for each in found.manifests)] if isinstance(found, Index) else [digest]
    count = 0
    try:
        with Registry(reference.registry, insecure=job.settings.insecure_registries) as registry, store.lease():
            listed = [each for subject in subjects for each in referrers(registry, reference.repository, subject)]
            if len(listed) > MOST:
                job.meter.note(f"{reference} has {len(listed)} attachments; the first {MOST} are fetched")
            for each in listed[:MOST]:
                count += _take(job, registry, each, subjects)
    except SourceUnreachable as error:
        job.meter.note(f"{error.message}; what is attached could not be asked for")
    return count


def admit(job: Job, digest: str, before: str | None) -> None:
    """Hold a pulled artifact against the policy of the settings; on Untrusted its name is as ``before`` again."""
    if not job.settings.policy:
        return
    path = Path(job.settings.policy).expanduser()
    try:
        enforce(job.store, digest, path, what=familiar(job.reference))
    except Untrusted:
        with suppress(ModelNotFound):
            if before is None:
                job.store.untag(job.reference)
            elif before != digest:
                job.store.tag(job.reference, before)
        raise


def _take(job: Job, registry: Registry, listed: Descriptor, subjects: list[str]) -> int:
    """Fetch one referrer, if it is not here; 1 if it now is. One of another subject is none of this artifact's: it
    would otherwise come to be attached to whatever in the store it names."""
    repository, store = job.reference.repository, job.store
    if any(each.descriptor.digest == listed.digest for each in store.entries(everything=True)):
        return 1
    fetched = registry.manifest(repository, listed.digest)
    manifest = parse_manifest(fetched.data, listed.media_type)
    if not isinstance(manifest, Manifest) or manifest.size > MOST_BYTES:
        job.meter.note(f"{listed.digest[:19]}, attached to {job.reference}, is no small artifact; it stays there")
        return 0
    if manifest.subject is None or manifest.subject.digest not in subjects:
        job.meter.note(f"{listed.digest[:19]} is listed as attached to {job.reference}, and is not; it stays there")
        return 0
    wanted = [_wanted(job, registry, blob) for blob in manifest.blobs()]
    download(store, wanted, registry.transport, connections=1, on_bytes=job.meter.bytes)
    store.put_manifest(fetched.data, media_type=manifest.media_type)
    return 1


def _wanted(job: Job, registry: Registry, blob: Descriptor) -> Wanted:
    repository = job.reference.repository
    return Wanted(
        digest=blob.digest,
        size=blob.size,
        open=lambda headers: registry.open_blob(repository, blob.digest, headers),
        where=f"blob {blob.digest[:19]}… attached to {job.reference}",
    )
