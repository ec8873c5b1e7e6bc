"""An OCI registry."""

from __future__ import annotations

from collections.abc import Iterator

from dockyard.artifact.document import Index, Manifest, parse_manifest
from dockyard.artifact.packing import entry
from dockyard.artifact.reference import parse
from dockyard.artifact.registry.client import Fetched, Registry
from dockyard.artifact.registry.download import download
from dockyard.artifact.registry.flight import Wanted
from dockyard.artifact.registry.transport import is_loopback
from dockyard.artifact.sources import Job, Source
from dockyard.artifact.store import Entry
from dockyard.errors import ModelNotFound, SourceUnreachable, UnsafeContent
from dockyard.hardware import cores
from dockyard.settings import Settings
from dockyard.types import Descriptor, Reference

MAX_DEPTH = 4
MAX_MANIFESTS = 256


class Oci:
    """Pulls by tag or digest; an index comes with all the manifests that it lists."""

    name = "oci"

    def claims(self, text: str) -> bool:
        return bool(text.strip())

    def reference(self, text: str, settings: Settings) -> Reference:
        return parse(text, registry=settings.default_registry, namespace=settings.default_namespace)

    def pull(self, job: Job) -> Entry:
        reference, store = job.reference, job.store
        if job.settings.offline and not is_loopback(reference.registry):
            raise SourceUnreachable(
                f"{reference} is in a registry, and this Dockyard works offline", hint="unset the setting `offline`"
            )
        connections = _connections(job)
        registry = Registry(reference.registry, insecure=job.settings.insecure_registries, connections=connections)
        with registry, store.lease():
            root = registry.manifest(reference.repository, reference.digest or reference.tag or "latest")
            before = _digest_of(job)
            tree = list(_tree(registry, reference.repository, root, 0))
            if len(tree) > MAX_MANIFESTS:
                raise UnsafeContent(f"{reference} names more than {MAX_MANIFESTS} manifests")
            blobs = [blob for _, manifest in tree if isinstance(manifest, Manifest) for blob in manifest.blobs()]
            wanted = [_wanted(registry, reference, blob) for blob in blobs]
            for blob in blobs:
                if store.has(blob.digest, blob.size):
                    job.meter.bytes(blob.digest, blob.size, blob.size)
            download(
                store,
                wanted,
                registry.transport,
                connections=connections,
                on_bytes=job.meter.bytes,
            )
            for fetched, manifest in tree[:-1]:
                store.put_manifest(fetched.data, media_type=manifest.media_type)
            store.put_manifest(root.data, media_type=tree[-1][1].media_type, reference=reference)
        if before == root.digest:
            job.meter.note(f"{reference} is up to date")
        return entry(store, reference, root.digest)


def _connections(job: Job) -> int:
    """As many as the settings allow; from this machine itself no more than leave a core to the registry for each."""
    most = job.settings.parallel_downloads
    return max(1, min(most, cores() // 2)) if is_loopback(job.reference.registry) else most


def _digest_of(job: Job) -> str | None:
    try:
        return job.store.resolve(job.reference).digest
    except ModelNotFound:
        return None


def _wanted(registry: Registry, reference: Reference, blob: Descriptor) -> Wanted:
    return Wanted(
        digest=blob.digest,
        size=blob.size,
        open=lambda headers: registry.open_blob(reference.repository, blob.digest, headers),
        where=f"blob {blob.digest[:19]}… of {reference}",
    )


def _tree(
    registry: Registry, repository: str, fetched: Fetched, depth: int
) -> Iterator[tuple[Fetched, Manifest | Index]]:
    """A manifest and all below it, children first."""
    if depth > MAX_DEPTH:
        raise UnsafeContent(f"{registry.host}/{repository}: indexes are nested too deep")
    manifest = parse_manifest(fetched.data, fetched.media_type)
    if isinstance(manifest, Index):
        for child in manifest.manifests[: MAX_MANIFESTS + 1]:
            yield from _tree(registry, repository, registry.manifest(repository, child.digest), depth + 1)
    yield fetched, manifest


PLUGIN: Source = Oci()
