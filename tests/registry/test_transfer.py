"""Pull and push as the command line calls them, against our fake, Debian's registry, skopeo and oras."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from registry_samples import digest_of, keep, noise, publish, tiny_gguf

from dockyard.artifact.registry.memory import MemoryRegistry
from dockyard.artifact.store import Store
from dockyard.artifact.transfer import pull, push
from dockyard.errors import (
    Cancelled,
    DockyardError,
    InvalidRequest,
    ModelNotFound,
    SourceError,
    SourceUnreachable,
)
from dockyard.settings import Settings
from dockyard.types import Progress

WEIGHTS = noise(3_000_000, 11)
TEMPLATE = b"{{ messages }}"


class Listener:
    """Keeps the progress it is told."""

    def __init__(self) -> None:
        self.heard: list[Progress] = []

    def __call__(self, news: Progress) -> None:
        self.heard.append(news)

    @property
    def notes(self) -> str:
        return " | ".join(news.message for news in self.heard if news.message)


def test_there_and_back(store: Store, other: Store, settings: Settings) -> None:
    kept = keep(store, "model", WEIGHTS, TEMPLATE)
    with MemoryRegistry(auth="token", users={"ann": "pw"}, anonymous_pull=True) as memory:
        name = f"{memory.host}/team/model:v1"
        with pytest.raises(SourceError, match="refused access"):
            push(store, "model", settings, to=name)
        memory.auth = ""
        listener = Listener()
        assert push(store, "model", settings, to=name, on_progress=listener) == kept
        assert f"pushed {name}" in listener.notes
        memory.auth = "token"
        listener = Listener()
        entry = pull(other, name, settings, on_progress=listener)
        assert entry.descriptor.digest == kept.digest
        assert str(entry.reference) == name
        assert other.resolve(name).digest == kept.digest
        last = {news.item: news for news in listener.heard if news.item}
        assert all(news.current == news.total for news in last.values())
        assert set(last) == {blob.digest for blob in store.parsed(kept.digest).blobs()}  # type: ignore[union-attr]
        listener = Listener()
        pull(other, name, settings, on_progress=listener)
        assert "up to date" in listener.notes
        by_digest = pull(Store(other.root.parent / "third"), f"{memory.host}/team/model@{kept.digest}", settings)
        assert by_digest.descriptor.digest == kept.digest


def test_a_tag_that_moved_is_fetched_again(store: Store, settings: Settings) -> None:
    with MemoryRegistry() as memory:
        publish(memory, "a/b", "latest", b"one")
        pull(store, f"{memory.host}/a/b", settings)
        second = publish(memory, "a/b", "latest", b"two")
        assert pull(store, f"{memory.host}/a/b", settings).descriptor.digest == second


def test_an_index_comes_with_its_variants(store: Store, other: Store, settings: Settings) -> None:
    with MemoryRegistry() as memory:
        digests = [publish(memory, "a/b", f"q{n}", noise(1000, n)) for n in range(3)]
        rows = [
            {"mediaType": kind, "digest": digest, "size": len(data)}
            for digest in digests
            for kind, data in [memory.repositories["a/b"].manifests[digest]]
        ]
        kind = "application/vnd.oci.image.index.v1+json"
        index = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": rows}).encode()
        digest = memory.add_manifest("a/b", index, tag="all", kind=kind)
        assert pull(store, f"{memory.host}/a/b:all", settings).descriptor.digest == digest
        assert push(store, f"{memory.host}/a/b:all", settings, to=f"{memory.host}/c/d:all").digest == digest
        pull(other, f"{memory.host}/c/d:all", settings)
        assert all(other.has(digest_of(noise(1000, n)), 1000) for n in range(3))


def test_what_is_here_already_serves_when_the_registry_is_gone(store: Store, settings: Settings) -> None:
    with MemoryRegistry() as memory:
        name = f"{memory.host}/a/b"
        digest = publish(memory, "a/b", "latest", b"one")
        pull(store, name, settings)
    listener = Listener()
    assert pull(store, name, settings, on_progress=listener).descriptor.digest == digest
    assert "using what is here" in listener.notes
    with pytest.raises(SourceUnreachable):
        pull(store, f"{name}:other", settings)


def test_offline_never_leaves_the_machine(store: Store, settings: Settings) -> None:
    offline = Settings(home=settings.home, offline=True, starter="")
    for text in ("docker.io/some/model", "hub.example/some/model", "hf.co/Some/Model", "pypi:no-such-package-here"):
        with pytest.raises(SourceUnreachable, match="offline"):
            pull(store, text, offline)
    keep(store, "model", b"x")
    with pytest.raises(SourceUnreachable, match="offline"):
        push(store, "model", offline, to="hub.example/some/model")
    with MemoryRegistry() as memory:
        publish(memory, "a/b", "latest", b"one")
        pull(store, f"{memory.host}/a/b", offline)


def test_unknown_names_are_said(store: Store, settings: Settings) -> None:
    with MemoryRegistry() as memory:
        with pytest.raises(ModelNotFound, match="a/b:latest"):
            pull(store, f"{memory.host}/a/b", settings)
        keep(store, "model", b"x")
        with pytest.raises(InvalidRequest, match="another digest"):
            push(store, "model", settings, to=f"{memory.host}/a/b@{digest_of(b'other')}")
        with pytest.raises(ModelNotFound):
            push(store, "no-such-model", settings)


def test_a_refused_manifest_leaves_the_store_as_it_was(store: Store, settings: Settings) -> None:
    config = {"mediaType": "application/json", "digest": digest_of(b"{}"), "size": 2}
    layer = {"mediaType": "application/octet-stream", "digest": digest_of(b"x"), "size": -1}
    broken = [
        b"not json",
        json.dumps({"schemaVersion": 2, "config": config, "layers": [layer]}).encode(),
        json.dumps(
            {"schemaVersion": 2, "config": config, "layers": [{**layer, "size": 1, "digest": "sha256:0"}]}
        ).encode(),
    ]
    with MemoryRegistry() as memory:
        memory.add_blob("a/b", b"{}")
        memory.add_blob("a/b", b"x")
        for number, data in enumerate(broken):
            memory.add_manifest("a/b", data, tag=f"v{number}")
            with pytest.raises(DockyardError):
                pull(store, f"{memory.host}/a/b:v{number}", settings)
    assert store.entries() == []
    assert not store.has(digest_of(b"x"))


def test_push_mounts_what_a_neighbour_has_and_stops_when_asked(store: Store, settings: Settings) -> None:
    keep(store, "model", WEIGHTS)
    with MemoryRegistry() as memory:
        push(store, "model", settings, to=f"{memory.host}/team/one:v1")
        store.tag(pull(store, f"{memory.host}/team/one:v1", settings).reference, store.resolve("model").digest)  # type: ignore[arg-type]
        memory.requests.clear()
        push(store, "model", settings, to=f"{memory.host}/team/two:v1")
        assert [one.method for one in memory.asked("/uploads/")] == ["POST", "POST"]
    with MemoryRegistry() as memory:

        def stop(news: Progress) -> None:
            if news.current:
                raise Cancelled("enough")

        with pytest.raises(Cancelled):
            push(store, "model", settings, to=f"{memory.host}/team/one:v1", on_progress=stop)
        assert memory.repositories.get("team/one") is None or not memory.repositories["team/one"].tags
    assert [one for one in threading.enumerate() if one.name.startswith("dockyard-")] == []


def test_the_starter_falls_back_and_is_kept_under_the_name_asked(store: Store, tmp_path: Path) -> None:
    starter_gguf = tmp_path / "starter.gguf"
    starter_gguf.write_bytes(tiny_gguf())
    with MemoryRegistry() as memory:
        gone = memory.host
    settings = Settings(home=str(tmp_path / "home"), default_registry=gone, starter=f"file:{starter_gguf}")
    listener = Listener()
    entry = pull(store, "smollm2", settings, on_progress=listener)
    assert str(entry.reference) == f"{gone}/ai/smollm2:latest"
    assert "instead" in listener.notes
    assert store.parsed(entry.descriptor.digest).annotations["io.dockyard.source"] == f"file:{starter_gguf.name}"
    listener = Listener()
    again = pull(store, "smollm2", settings, on_progress=listener)
    assert again.descriptor.digest == entry.descriptor.digest
    assert "using what is here" in listener.notes
    with pytest.raises(SourceUnreachable):
        pull(store, "another", settings)


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_skopeo_pulls_what_we_pushed_and_back(
    docker_registry: str, store: Store, other: Store, settings: Settings, tmp_path: Path
) -> None:
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    kept = keep(store, "model", WEIGHTS, TEMPLATE)
    push(store, "model", settings, to=f"{docker_registry}/ours/skopeo:v1")
    layout = f"oci:{tmp_path}/layout:v1"
    insecure = ("--src-tls-verify=false", "--dest-tls-verify=false")
    run("skopeo", "copy", *insecure, f"docker://{docker_registry}/ours/skopeo:v1", layout)
    blobs = tmp_path / "layout" / "blobs" / "sha256"
    for blob in (kept, *store.parsed(kept.digest).blobs()):  # type: ignore[union-attr]
        assert (blobs / blob.digest.partition(":")[2]).read_bytes() == store.blob_path(blob.digest).read_bytes()
    run("skopeo", "copy", *insecure, layout, f"docker://{docker_registry}/theirs/skopeo:v2")
    assert pull(other, f"{docker_registry}/theirs/skopeo:v2", settings).descriptor.digest == kept.digest


def test_oras_pulls_what_we_pushed_and_back(
    docker_registry: str, store: Store, other: Store, settings: Settings, tmp_path: Path
) -> None:
    client = pytest.importorskip("oras.client")
    oras = client.OrasClient(insecure=True)
    kept = keep(store, "model", WEIGHTS, TEMPLATE)
    push(store, "model", settings, to=f"{docker_registry}/ours/oras:v1")
    container = oras.get_container(f"{docker_registry}/ours/oras:v1")
    manifest = oras.get_manifest(container)
    for layer in manifest["layers"]:
        target = tmp_path / layer["digest"][7:]
        oras.download_blob(container, layer["digest"], str(target))
        assert digest_of(target.read_bytes()) == layer["digest"]
    assert {layer["digest"] for layer in manifest["layers"]} == {digest_of(WEIGHTS), digest_of(TEMPLATE)}
    assert kept.digest == store.resolve("model").digest
    weights = tmp_path / "weights.gguf"
    weights.write_bytes(WEIGHTS)
    oras.push(
        target=f"{docker_registry}/theirs/oras:v1",
        files=[f"{weights}:application/vnd.docker.ai.gguf.v3"],
        disable_path_validation=True,
        manifest_annotations={"made-by": "oras"},
    )
    found = pull(other, f"{docker_registry}/theirs/oras:v1", settings)
    (layer,) = other.parsed(found.descriptor.digest).layers  # type: ignore[union-attr]
    assert other.blob_path(layer.digest).read_bytes() == WEIGHTS
