"""Damage on disk is found, named and, where possible, mended."""

from __future__ import annotations

from artifact_samples import Keep

from dockyard.artifact.digest import of_bytes
from dockyard.artifact.store import Store

FILES = {"model.gguf": b"weights", "LICENSE": b"MIT"}


def damage(store: Store, digest: str, data: bytes | None) -> None:
    path = store.blob_path(digest)
    path.chmod(0o644)
    path.unlink()
    if data is not None:
        path.write_bytes(data)


def faults(store: Store, *, repair: bool = False) -> list[tuple[str, str, bool]]:
    return [(each.fault, each.where, each.repaired) for each in store.fsck(repair=repair)]


def test_a_sound_store_has_no_problems(store: Store, keep: Keep) -> None:
    assert store.fsck() == []
    keep(FILES, "a")
    assert store.fsck() == []


def test_a_corrupt_blob_goes_to_quarantine_and_is_then_missing(store: Store, keep: Keep) -> None:
    keep(FILES, "a")
    digest = of_bytes(b"weights")
    damage(store, digest, b"wEights")
    assert faults(store) == [("corrupt-blob", digest, False)]
    found = store.fsck(repair=True)
    assert [(each.fault, each.repaired) for each in found] == [("corrupt-blob", True), ("missing-blob", False)]
    assert found[1].artifact == "docker.io/ai/a:latest"
    assert store.df().quarantine > 0
    assert store.gc().partials == 0
    assert store.gc(grace=0).partials == 1
    assert store.df().quarantine == 0
    assert faults(store) == [("missing-blob", digest, False)]
    store.add_bytes(b"weights")
    assert store.fsck() == []


def test_a_shortened_blob_is_found_twice(store: Store, keep: Keep) -> None:
    keep(FILES, "a")
    digest = of_bytes(b"weights")
    damage(store, digest, b"")
    assert {each.fault for each in store.fsck()} == {"corrupt-blob", "missing-blob"}


def test_a_name_without_a_manifest_is_dropped(store: Store, keep: Keep) -> None:
    lost, kept = keep(FILES, "lost"), keep({"model.gguf": b"kept"}, "kept")
    damage(store, lost.digest, None)
    assert faults(store) == [("missing-manifest", lost.digest, False)]
    store.fsck(repair=True)
    assert [each.descriptor.digest for each in store.entries()] == [kept.digest]
    assert store.fsck() == []


def test_a_corrupt_manifest_is_quarantined_and_its_name_dropped(store: Store, keep: Keep) -> None:
    lost = keep(FILES, "lost")
    damage(store, lost.digest, b"{}")
    assert {each[0] for each in faults(store)} == {"corrupt-blob", "missing-manifest"}
    store.fsck(repair=True)
    assert store.fsck() == []
    assert store.entries() == []


def test_stray_files_and_a_broken_layout_are_mended(store: Store) -> None:
    (store.root / "blobs" / "sha256" / "notes.txt").write_text("x")
    (store.root / "oci-layout").write_text("?")
    assert {each[0] for each in faults(store)} == {"stray-file", "layout"}
    assert all(repaired for _, _, repaired in faults(store, repair=True))
    assert store.fsck() == []


def test_what_is_written_again_mends_itself(store: Store, keep: Keep) -> None:
    described = keep(FILES, "a")
    damage(store, described.digest, b"x" * described.size)
    damage(store, of_bytes(b"MIT"), b"TIM")
    keep(FILES, "a")
    assert store.fsck() == []
    damage(store, of_bytes(b"weights"), b"wei")
    with store.partial(of_bytes(b"weights"), 7) as blob:
        assert not blob.complete
        blob.append(b"weights")
        blob.commit()
    assert store.fsck() == []
