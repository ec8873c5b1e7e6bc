"""Archives: out of one store and into another, and to and from other tools."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest
from artifact_samples import Keep, package_into

from dockyard.artifact import media
from dockyard.artifact.archive import load, save
from dockyard.artifact.digest import of_bytes
from dockyard.artifact.lineage import attach
from dockyard.artifact.manifest import Index, encode
from dockyard.artifact.reference import parse
from dockyard.artifact.store import Store
from dockyard.errors import (
    ArtifactError,
    Cancelled,
    DigestMismatch,
    ModelNotFound,
    NotFound,
    StoreFull,
    TruncatedContent,
    UnsafeContent,
    UnsupportedFormat,
)
from dockyard.types import Progress

FILES = {"model.gguf": b"weights" * 1000, "LICENSE": b"MIT"}


@pytest.fixture
def other(tmp_path: Path) -> Store:
    return Store(tmp_path / "other" / "store")


def tar(entries: list[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in entries:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def state(store: Store) -> tuple[set[str], bytes]:
    files = {str(path) for path in (store.root / "blobs").rglob("*")}
    index = store.index.path.read_bytes() if store.index.path.exists() else b""
    return files, index


def test_artifacts_travel_with_what_is_attached(store: Store, keep: Keep, other: Store, tmp_path: Path) -> None:
    one, two = keep(FILES, "one"), keep({"model.gguf": b"two"}, "hub:5000/two:v2")
    report = attach(store, "one", b'{"score": 1}', artifact_type="x/report")
    save(store, ["one", "hub:5000/two:v2"], tmp_path / "a.tar")
    loaded = load(other, tmp_path / "a.tar")
    assert {(str(each.reference), each.descriptor.digest) for each in loaded} == {
        ("docker.io/ai/one:latest", one.digest),
        ("hub:5000/two:v2", two.digest),
    }
    assert [each.digest for each in other.referrers(one.digest)] == [report.digest]
    assert other.fsck() == []
    assert load(other, tmp_path / "a.tar") == loaded, "twice is once"


def test_the_same_artifacts_give_the_same_bytes(store: Store, keep: Keep, other: Store, tmp_path: Path) -> None:
    keep(FILES, "one")
    package_into(other, FILES, "one")
    save(store, ["one"], tmp_path / "a.tar")
    with (tmp_path / "b.tar").open("wb") as stream:
        save(other, ["one"], stream)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_a_failed_save_leaves_no_file(store: Store, keep: Keep, tmp_path: Path) -> None:
    keep(FILES, "one")
    with pytest.raises(ModelNotFound):
        save(store, ["one", "none"], tmp_path / "a.tar")
    store.blob_path(of_bytes(b"MIT")).unlink()
    with pytest.raises(NotFound):
        save(store, ["one"], tmp_path / "a.tar")
    assert [path.name for path in tmp_path.iterdir() if "tar" in path.name] == []


@pytest.mark.parametrize("pack", ["plain", "gzip", "folder", "stream"])
def test_archives_come_in_several_wrappings(store: Store, keep: Keep, other: Store, tmp_path: Path, pack: str) -> None:
    described = keep(FILES, "one")
    path = tmp_path / "a.tar"
    save(store, ["one"], path)
    if pack == "gzip":
        path.write_bytes(gzip.compress(path.read_bytes()))
    if pack == "stream":
        with path.open("rb") as stream:
            load(other, stream)
    else:
        load(other, store.root if pack == "folder" else path)
    assert other.resolve("one").digest == described.digest


def test_an_index_travels_with_its_children(store: Store, keep: Keep, other: Store, tmp_path: Path) -> None:
    children = tuple(keep({"model.gguf": bytes([each])}) for each in range(3))
    store.put_manifest(encode(Index(media_type=media.OCI_INDEX, manifests=children)), reference=parse("many"))
    save(store, ["many"], tmp_path / "a.tar")
    assert len(load(other, tmp_path / "a.tar")) == 1
    other.gc(grace=0)
    assert other.resolve(children[2].digest)


def test_skopeo_reads_what_is_saved_and_we_read_what_it_writes(
    store: Store, keep: Keep, other: Store, tmp_path: Path
) -> None:
    described = keep(FILES, "smollm2")
    save(store, ["smollm2"], tmp_path / "a.tar")
    source = f"oci-archive:{tmp_path}/a.tar:docker.io/ai/smollm2:latest"
    raw = subprocess.run(["skopeo", "inspect", "--raw", source], check=True, capture_output=True).stdout
    assert of_bytes(raw) == described.digest
    for target in ("b.tar:tag", "c.tar:hub.local/named:v1"):
        subprocess.run(["skopeo", "copy", "-q", source, f"oci-archive:{tmp_path}/{target}"], check=True)
    (bare,) = load(other, tmp_path / "b.tar")
    assert (bare.descriptor.digest, bare.reference) == (described.digest, None)
    (given,) = load(other, tmp_path / "b.tar", reference=parse("mine"))
    assert str(given.reference) == "docker.io/ai/mine:latest"
    (told,) = load(other, tmp_path / "c.tar")
    assert str(told.reference) == "hub.local/named:v1"


def test_a_model_runner_export_is_read(store: Store, keep: Keep, other: Store, tmp_path: Path) -> None:
    described = keep(FILES, "one")
    manifest = store.manifest(described.digest)
    parsed = store.parsed(described.digest)
    blobs = [(f"blobs/sha256/{each.digest[7:]}", store.read(each.digest)) for each in (*parsed.layers, parsed.config)]  # type: ignore[union-attr]
    (tmp_path / "export.tar").write_bytes(tar([*blobs, ("manifest.json", manifest)]))
    (found,) = load(other, tmp_path / "export.tar", reference=parse("runner"))
    assert found.descriptor.digest == described.digest
    assert other.resolve("runner").digest == described.digest


def test_a_single_artifact_is_also_a_model_runner_archive(
    store: Store, keep: Keep, other: Store, tmp_path: Path
) -> None:
    described = keep(FILES, "one")
    save(store, ["one"], tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as archive:
        parts = [(each.name, archive.extractfile(each).read()) for each in archive]  # type: ignore[union-attr]
    seen = [part for part in parts if part[0] == "manifest.json" or part[0].startswith("blobs/")]
    (tmp_path / "seen.tar").write_bytes(tar(seen))
    (found,) = load(other, tmp_path / "seen.tar", reference=parse("one"))
    assert found.descriptor.digest == described.digest


def test_an_artifact_is_saved_under_the_names_that_were_asked_for(
    store: Store, keep: Keep, other: Store, tmp_path: Path
) -> None:
    described = keep(FILES, "one")
    store.tag(parse("hub.local/uno:v1"), described.digest)
    for asked, expected in (
        (["one"], {"docker.io/ai/one:latest"}),
        (["hub.local/uno:v1", "one", "one"], {"docker.io/ai/one:latest", "hub.local/uno:v1"}),
        ([described.digest], {"docker.io/ai/one:latest"}),
    ):
        save(store, asked, tmp_path / "a.tar")
        assert {str(each.reference) for each in load(other, tmp_path / "a.tar")} == expected
    store.untag(parse("one"))
    store.untag(parse("hub.local/uno:v1"))
    save(store, [described.digest[7:20]], tmp_path / "a.tar")
    assert [each.reference for each in load(other, tmp_path / "a.tar")] == [None]


def test_progress_is_told_while_a_blob_passes(store: Store, keep: Keep, other: Store, tmp_path: Path) -> None:
    keep({"model.gguf": bytes(1 << 20)}, "one")
    news: list[tuple[str, int]] = []
    save(store, ["one"], tmp_path / "a.tar", on_progress=lambda each: news.append((each.action, each.current)))
    load(other, tmp_path / "a.tar", on_progress=lambda each: news.append((each.action, each.current)))
    for action in ("pack", "load"):
        assert sum(told == action for told, _ in news) > 5
        assert max(current for told, current in news if told == action) == 1 << 20


def test_a_cancelled_load_leaves_nothing(store: Store, keep: Keep, other: Store, tmp_path: Path) -> None:
    keep({"model.gguf": bytes(1 << 20)}, "one")
    save(store, ["one"], tmp_path / "a.tar")

    def stop(news: Progress) -> None:
        if news.current > 1 << 19:
            raise Cancelled("stop")

    before = state(other)
    with pytest.raises(Cancelled):
        load(other, tmp_path / "a.tar", on_progress=stop)
    assert state(other) == before
    assert [path.name for path in other.incoming.iterdir() if path.suffix != ".lock"] == []


def test_a_bad_archive_leaves_the_store_as_it_was(store: Store, keep: Keep, other: Store, tmp_path: Path) -> None:
    keep(FILES, "one")
    package_into(other, {"model.gguf": b"before"}, "before")
    save(store, ["one"], tmp_path / "a.tar")
    whole = (tmp_path / "a.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        parts = [(each.name, archive.extractfile(each).read()) for each in archive]  # type: ignore[union-attr]
    weights = f"blobs/sha256/{of_bytes(FILES['model.gguf'])[7:]}"
    index = json.loads(dict(parts)["index.json"])
    swollen = {**index, "manifests": [{**index["manifests"][0], "size": -1}]}
    broken: list[tuple[bytes, type[Exception]]] = [
        (whole[:3000], ArtifactError),
        (whole[: len(whole) // 2], ArtifactError),
        (tar([(n, d[:-1] if n == weights else d) for n, d in parts]), DigestMismatch),
        (tar([(n, d) for n, d in parts if n != weights]), ArtifactError),
        (tar([(n, d) for n, d in parts if not n.endswith(".json")]), UnsupportedFormat),
        (tar([(n, json.dumps(swollen).encode() if n == "index.json" else d) for n, d in parts]), UnsafeContent),
        (tar([*parts, ("blobs/sha256/../../evil", b"x")]), ArtifactError),
        (tar([*parts, ("blobs/sha256/" + "0" * 64, b"x")]), DigestMismatch),
        (tar([("index.json", b" " * (5 << 20))]), UnsafeContent),
        (tar([("manifest.json", b'[{"Config": "x.json"}]')]), ArtifactError),
        (gzip.compress(whole)[:-40], TruncatedContent),
        (b"no tar", ArtifactError),
    ]
    before = state(other)
    for data, error in broken:
        (tmp_path / "bad.tar").write_bytes(data)
        with pytest.raises(error):
            load(other, tmp_path / "bad.tar")
        assert state(other) == before
    assert [path.name for path in other.incoming.iterdir() if path.suffix != ".lock"] == []
    assert not (other.root.parent / "evil").exists()


def test_links_in_an_archive_are_refused(other: Store, tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo("blobs/sha256/" + "0" * 64)
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    (tmp_path / "a.tar").write_bytes(out.getvalue())
    with pytest.raises(UnsafeContent, match="regular"):
        load(other, tmp_path / "a.tar")


def test_the_quota_holds_for_archives(store: Store, keep: Keep, tmp_path: Path) -> None:
    keep(FILES, "one")
    save(store, ["one"], tmp_path / "a.tar")
    small = Store(tmp_path / "small" / "store", quota=3000)
    with pytest.raises(StoreFull):
        load(small, tmp_path / "a.tar")
    assert small.df().blobs == 0


def test_one_name_for_several_artifacts_is_refused(store: Store, keep: Keep, other: Store, tmp_path: Path) -> None:
    keep(FILES, "one")
    keep({"model.gguf": b"two"}, "two")
    save(store, ["one", "two"], tmp_path / "a.tar")
    with pytest.raises(ArtifactError, match="2 artifacts"):
        load(other, tmp_path / "a.tar", reference=parse("x"))
    assert other.entries() == []
    with pytest.raises(NotFound):
        load(other, tmp_path / "none.tar")
