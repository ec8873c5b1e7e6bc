"""Pull and push: what the command line and the server call."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from threading import Thread

import msgspec

from dockyard.artifact.document import Index, Manifest
from dockyard.artifact.packing import entry
from dockyard.artifact.progress import Meter
from dockyard.artifact.reference import parse
from dockyard.artifact.registry.client import Registry
from dockyard.artifact.registry.referrers import attach
from dockyard.artifact.registry.transport import is_loopback
from dockyard.artifact.registry.upload import Blob, upload
from dockyard.artifact.sources import Job, Source, choose
from dockyard.artifact.store import Entry, Store
from dockyard.errors import (
    Cancelled,
    DockyardError,
    InvalidRequest,
    ModelNotFound,
    RateLimited,
    SourceError,
    SourceUnreachable,
)
from dockyard.settings import Settings
from dockyard.types import Descriptor, OnProgress, Reference

STARTER = "smollm2"
STARTER_SECONDS = 8.0
"""How long the starter's registry may take to answer before the fallback is used."""
PARALLEL_UPLOADS = 4


def pull(
    store: Store, text: str, settings: Settings, *, attached: bool = False, on_progress: OnProgress | None = None
) -> Entry:
    """Fetch what ``text`` names into the store, from whichever source claims it, and name it.

    Says "up to date" where the registry has what is here. A registry that can't be reached is no failure if the name is
    here already; for the starter model it means the fallback ``settings.starter``. What ``on_progress`` raises, and
    KeyboardInterrupt, end the pull; the next one goes on where it stopped. ``attached`` fetches reports and signatures
    too, as ``settings.policy`` does; what does not satisfy that policy is Untrusted, and the name is as it was before.
    """
    meter = Meter(on_progress, "pull")
    source = choose(text)
    job = Job(store=store, text=text, reference=source.reference(text, settings), settings=settings, meter=meter)
    if not (attached or settings.policy):
        return _fetch(job, source)
    from dockyard.artifact.attachments import admit, fetch_attached

    before = _here(job)
    found = _fetch(job, source)
    if source.name == "oci":
        fetch_attached(job, found.descriptor.digest)
    admit(job, found.descriptor.digest, before)
    return found


def _here(job: Job) -> str | None:
    """What the name names now."""
    with suppress(ModelNotFound):
        return job.store.resolve(job.reference).digest
    return None


def _fetch(job: Job, source: Source) -> Entry:
    store, settings, meter = job.store, job.settings, job.meter
    starter = settings.starter if _is_starter(job.reference, settings) else ""
    try:
        if starter and not settings.offline:
            _probe(job)
        return source.pull(job)
    except (SourceUnreachable, RateLimited, SourceError) as error:
        with suppress(ModelNotFound):
            found = store.resolve(job.reference)
            meter.note(f"{error.message}; using what is here already")
            return entry(store, job.reference, found.digest)
        if not starter:
            raise
        meter.note(f"{error.message}; taking the starter model from {starter} instead")
        return _fall_back(job, starter, error)


def push(
    store: Store,
    text: str,
    settings: Settings,
    *,
    to: str | None = None,
    on_progress: OnProgress | None = None,
) -> Descriptor:
    """Send an artifact of the store, and what is attached to it, to the registry of its name or of the name ``to``.

    Blobs that are there already are skipped, those of neighbouring repositories mounted, the rest sent in parallel.
    """
    meter = Meter(on_progress, "push")
    found = store.resolve(text)
    target = parse(to or _own_name(store, text, found), registry=settings.default_registry,
                   namespace=settings.default_namespace)  # fmt: skip
    if target.digest is not None and target.digest != found.digest:
        raise InvalidRequest(f"{target} has another digest than {text}, which is {found.digest}")
    if settings.offline and not is_loopback(target.registry):
        raise SourceUnreachable(f"{target} is in a registry, and this Dockyard works offline")
    registry = Registry(target.registry, insecure=settings.insecure_registries, connections=PARALLEL_UPLOADS)
    with registry, store.lease():
        tree = list(_tree(store, found))
        _push_blobs(store, registry, target, [each for each, _ in tree], meter)
        for described, manifest in tree:
            last = described.digest == found.digest
            name = (target.tag or found.digest) if last else described.digest
            data = store.manifest(described.digest)
            if manifest.subject is not None:
                attach(registry, target.repository, data, reference=name)
            else:
                registry.put_manifest(target.repository, name, data, manifest.media_type)
        _push_referrers(store, registry, target, found, meter)
    meter.note(f"pushed {target} as {found.digest}")
    return found


def _is_starter(reference: Reference, settings: Settings) -> bool:
    meant = parse(STARTER, registry=settings.default_registry, namespace=settings.default_namespace)
    return reference == meant


def _fall_back(job: Job, starter: str, cause: DockyardError) -> Entry:
    source = choose(starter)
    try:
        return source.pull(msgspec.structs.replace(job, text=starter))
    except Cancelled:
        raise
    except DockyardError as error:
        raise SourceUnreachable(
            f"neither {job.reference.registry} nor {starter} gave a model: {cause.message}; {error.message}",
            hint=error.hint or cause.hint,
        ) from error


def _probe(job: Job) -> None:
    """Find out soon whether the starter's registry answers: name look-ups without a network can take very long."""
    registry = Registry(job.reference.registry, insecure=job.settings.insecure_registries)
    outcome: Future[None] = Future()

    def ask() -> None:
        try:
            registry.ping()
            outcome.set_result(None)
        except DockyardError as error:
            outcome.set_exception(error)

    Thread(target=ask, name="dockyard-probe", daemon=True).start()
    try:
        outcome.result(STARTER_SECONDS)
    except TimeoutError:
        raise SourceUnreachable(f"registry {registry.host} did not answer in {STARTER_SECONDS:g} seconds") from None
    finally:
        registry.close()


def _own_name(store: Store, text: str, found: Descriptor) -> str:
    """The name to push under, for an artifact that may have been given by its id."""
    with suppress(DockyardError):
        return str(msgspec.structs.replace(parse(text), digest=None)) if "/" in text or ":" in text else text
    names = store.names(found.digest)
    if not names:
        raise InvalidRequest(f"{text} has no name to push it under", hint="give one: `dockyard tag` it first")
    return str(names[0])


def _tree(store: Store, found: Descriptor) -> Iterator[tuple[Descriptor, Manifest | Index]]:
    """A manifest and all below it, children first."""
    manifest = store.parsed(found.digest)
    if isinstance(manifest, Index):
        for child in manifest.manifests:
            yield from _tree(store, child)
    yield found, manifest


def _push_blobs(store: Store, registry: Registry, target: Reference, manifests: list[Descriptor], meter: Meter) -> None:
    blobs: dict[str, Descriptor] = {}
    for described in manifests:
        manifest = store.parsed(described.digest)
        if isinstance(manifest, Manifest):
            blobs |= {blob.digest: blob for blob in manifest.blobs()}
    neighbours = _neighbours(store, target, set(blobs))

    def send(blob: Descriptor) -> None:
        key = hashlib.sha256(f"{target.registry}/{target.repository}@{blob.digest}".encode()).hexdigest()[:32]
        upload(
            registry,
            target.repository,
            Blob(path=store.blob_path(blob.digest), digest=blob.digest, size=blob.size),
            mount_from=neighbours.get(blob.digest, ()),
            ticket=store.incoming / f"upload-{key}.json",
            on_bytes=meter.bytes,
        )

    with ThreadPoolExecutor(PARALLEL_UPLOADS, thread_name_prefix="dockyard-upload") as pool:
        running = [pool.submit(send, blob) for blob in blobs.values()]
        try:
            while running:
                done, waiting = wait(running, return_when="FIRST_EXCEPTION")
                for each in done:
                    each.result()
                running = list(waiting)
        except BaseException:
            registry.transport.abort()
            for each in running:
                each.cancel()
            raise


def _neighbours(store: Store, target: Reference, digests: set[str]) -> dict[str, list[str]]:
    """Repositories of the same registry that, as far as the store's names tell, have these blobs."""
    found: dict[str, list[str]] = {}
    for each in store.entries():
        name = each.reference
        if name is None or name.registry != target.registry or name.repository == target.repository:
            continue
        for described, manifest in _tree(store, each.descriptor):
            if not isinstance(manifest, Manifest):
                continue
            for blob in manifest.blobs():
                if blob.digest in digests and described and len(found.setdefault(blob.digest, [])) < 2:
                    found[blob.digest].append(name.repository)
    return found


def _push_referrers(store: Store, registry: Registry, target: Reference, found: Descriptor, meter: Meter) -> None:
    for each in store.referrers(found.digest):
        if isinstance(store.parsed(each.digest), Manifest):
            _push_blobs(store, registry, target, [each], meter)
            attach(registry, target.repository, store.manifest(each.digest))
