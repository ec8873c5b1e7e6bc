"""Tags, catalogue, deletes and referrers, in memory and in Debian's registry, which has no referrers API."""

from __future__ import annotations

import pytest
from registry_samples import QUICK, digest_of, keep, noise, publish

from dockyard.artifact.registry.client import Registry
from dockyard.artifact.registry.memory import MemoryRegistry
from dockyard.artifact.registry.referrers import attach, detach, fallback_tag, referrers
from dockyard.artifact.registry.upload import Blob, upload
from dockyard.artifact.store import Store
from dockyard.artifact.transfer import push
from dockyard.errors import DigestMismatch, ModelNotFound, SourceError, TruncatedContent, UnsafeContent
from dockyard.settings import Settings

KIND = "application/vnd.oci.image.manifest.v1+json"


def test_listings_come_page_by_page() -> None:
    with MemoryRegistry(page=3) as memory, Registry(memory.host, policy=QUICK) as registry:
        for number in range(8):
            publish(memory, f"team/m{number}", "v1", b"x")
            publish(memory, "team/m0", f"t{number}", b"x")
        assert list(registry.catalog()) == [f"team/m{number}" for number in range(8)]
        assert list(registry.tags("team/m0")) == [*(f"t{number}" for number in range(8)), "v1"]
        assert len(memory.asked("_catalog")) == 3
        with pytest.raises(ModelNotFound, match="no/such"):
            list(registry.tags("no/such"))


def test_deletes() -> None:
    with MemoryRegistry() as memory, Registry(memory.host, policy=QUICK) as registry:
        digest = publish(memory, "a/b", "v1", b"x")
        assert registry.manifest_digest("a/b", "v1") == digest
        registry.delete_manifest("a/b", digest)
        assert registry.manifest_digest("a/b", "v1") is None
        registry.delete_blob("a/b", digest_of(b"x"))
        assert registry.blob_size("a/b", digest_of(b"x")) is None


def test_manifests_that_must_not_come_in() -> None:
    with MemoryRegistry() as memory, Registry(memory.host, policy=QUICK) as registry:
        memory.add_manifest("a/b", b" " * ((4 << 20) + 1), tag="big")
        with pytest.raises(UnsafeContent, match="4194305"):
            registry.manifest("a/b", "big")
        digest = publish(memory, "a/b", "v1", b"x")
        memory.fail(match="GET .*/manifests/", spoil=3)
        with pytest.raises(DigestMismatch):
            registry.manifest("a/b", digest)
        memory.fail(match="GET .*/manifests/", spoil=3)
        with pytest.raises(DigestMismatch):
            registry.manifest("a/b", "v1")
        memory.fail(match="GET .*/manifests/", cut=3)
        with pytest.raises(TruncatedContent):
            registry.manifest("a/b", "v1")
        with pytest.raises(ModelNotFound, match="MANIFEST_UNKNOWN"):
            registry.manifest("a/b", "v2")


def test_a_listing_may_not_lead_elsewhere() -> None:
    with MemoryRegistry(page=1) as memory, Registry(memory.host, policy=QUICK) as registry:
        publish(memory, "a/b", "v1", b"x")
        publish(memory, "a/c", "v1", b"x")
        elsewhere = Registry("127.0.0.1:9", policy=QUICK)
        with pytest.raises(SourceError):
            list(elsewhere.catalog())
        assert list(registry.catalog()) == ["a/b", "a/c"]


@pytest.mark.parametrize("api", [True, False])
def test_referrers_by_api_and_by_tag(store: Store, settings: Settings, api: bool) -> None:
    with MemoryRegistry(referrers_api=api, page=1) as memory:
        subject = push_model(store, settings, memory.host)
        with Registry(memory.host, policy=QUICK) as registry:
            attached = attach_two(store, registry, subject)
            assert {each.digest for each in referrers(registry, "team/model", subject)} == attached
            only = referrers(registry, "team/model", subject, "application/vnd.example.report")
            assert [each.annotations for each in only] == []
            kind = "application/vnd.cncf.model.manifest.v1+json"
            assert len(referrers(registry, "team/model", subject, kind)) == 2
            assert (fallback_tag(subject) in registry.tags("team/model")) == (not api)
            first = min(attached)
            detach(registry, "team/model", first)
            assert {each.digest for each in referrers(registry, "team/model", subject)} == attached - {first}
            assert referrers(registry, "team/model", digest_of(b"nothing")) == []


def test_referrers_of_debians_registry(docker_registry: str, store: Store, settings: Settings) -> None:
    subject = push_model(store, settings, docker_registry)
    with Registry(docker_registry, policy=QUICK) as registry:
        attached = attach_two(store, registry, subject)
        assert {each.digest for each in referrers(registry, "team/model", subject)} == attached
        assert "team/model" in list(registry.catalog(page=1))
        assert sorted(registry.tags("team/model", page=1)) == sorted(["v1", fallback_tag(subject)])
        first = min(attached)
        detach(registry, "team/model", first)
        assert {each.digest for each in referrers(registry, "team/model", subject)} == attached - {first}


def test_push_carries_what_is_attached(docker_registry: str, store: Store, settings: Settings) -> None:
    model = keep(store, "model", noise(1000, 3))
    report = keep(store, "", b"a report", subject=model, annotations={"score": "0.9"})
    push(store, "model", settings, to=f"{docker_registry}/with/report:v1")
    with Registry(docker_registry, policy=QUICK) as registry:
        found = referrers(registry, "with/report", model.digest)
        assert [each.digest for each in found] == [report.digest]
        assert found[0].annotations == {"score": "0.9"}


def push_model(store: Store, settings: Settings, host: str) -> str:
    keep(store, "model", noise(2000, 4))
    return push(store, "model", settings, to=f"{host}/team/model:v1").digest


def attach_two(store: Store, registry: Registry, subject: str) -> set[str]:
    model = store.resolve(subject)
    found = set()
    for number in range(2):
        kept = keep(store, "", f"report {number}".encode(), subject=model)
        for blob in store.parsed(kept.digest).blobs():  # type: ignore[union-attr]
            source = Blob(path=store.blob_path(blob.digest), digest=blob.digest, size=blob.size)
            upload(registry, "team/model", source)
        found.add(attach(registry, "team/model", store.manifest(kept.digest)).digest)
    return found
