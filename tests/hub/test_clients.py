"""Other people's OCI clients against the hub: what they push is what they and the store read back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import oras.client
import pytest

from dockyard.artifact.store import Store

from .conftest import Hub

skopeo = pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs the Debian package skopeo")


def run(*command: str, **environ: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env={**os.environ, **environ})
    assert done.returncode == 0, done.stderr
    return done.stdout


def model(store: Store, tmp_path: Path, text: str) -> str:
    """A small model-like artifact put into a store by hand; its manifest's digest."""
    weights = tmp_path / "model.gguf"
    weights.write_bytes(os.urandom(3_000_000))
    layer = store.add_file(weights)
    config = store.add_bytes(b'{"descriptor":{}}')
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.cncf.model.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.cncf.model.config.v1+json",
            "digest": config.digest,
            "size": config.size,
        },
        "layers": [
            {
                "mediaType": "application/vnd.cncf.model.weight.v1.raw",
                "digest": layer.digest,
                "size": layer.size,
                "annotations": {"org.cncf.model.filepath": "model.gguf"},
            }
        ],
    }
    return store.put_manifest(json.dumps(document).encode(), reference=store.named(text)).digest


@skopeo
def test_skopeo_copies_out_and_in(hub: Hub, tmp_path: Path) -> None:
    digest = model(hub.store, tmp_path, "t/skopeo:v1")
    layout = tmp_path / "layout"
    run("skopeo", "copy", "--src-tls-verify=false", f"docker://{hub.host}/t/skopeo:v1", f"oci:{layout}:v1")
    assert (layout / "blobs" / "sha256" / digest.removeprefix("sha256:")).exists()
    back = f"docker://{hub.host}/t/skopeo-back:v2"
    run("skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}:v1", back)
    assert hub.store.resolve("t/skopeo-back:v2").digest == digest
    raw = run("skopeo", "inspect", "--raw", "--tls-verify=false", back)
    assert raw.encode() == hub.store.manifest(digest)
    tags = json.loads(run("skopeo", "list-tags", "--tls-verify=false", f"docker://{hub.host}/t/skopeo-back"))
    assert tags["Tags"] == ["v2"]
    run("skopeo", "delete", "--tls-verify=false", back)
    assert hub.http.get("/v2/t/skopeo-back/tags/list").status_code == 404


@skopeo
def test_skopeo_needs_a_key_that_may_push(guarded: Hub, tmp_path: Path) -> None:
    model(guarded.store, tmp_path, "t/locked:v1")
    source = f"docker://{guarded.host}/t/locked:v1"
    layout = f"oci:{tmp_path / 'layout'}:v1"
    for creds, good in (("u:wrong", False), ("u:pull-key", True)):
        command = ["skopeo", "copy", "--src-tls-verify=false", "--src-creds", creds, source, layout]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode == 0) is good, done.stderr
    for creds, good in (("u:pull-key", False), ("u:push-key", True)):
        target = f"docker://{guarded.host}/t/locked-back:v1"
        command = ["skopeo", "copy", "--dest-tls-verify=false", "--dest-creds", creds, layout, target]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (done.returncode == 0) is good, done.stderr
        assert good or "may not push" in done.stderr


def test_oras_pushes_and_pulls(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = os.urandom(20_000_000)
    (tmp_path / "weights.bin").write_bytes(content)
    client = oras.client.OrasClient(hostname=hub.host, insecure=True)
    target = f"{hub.host}/t/oras:v1"
    pushed = client.push(target=target, files=["weights.bin:application/vnd.example.weights"])
    assert pushed.status_code == 201
    out = tmp_path / "out"
    (got,) = client.pull(target=target, outdir=str(out))
    assert Path(got).read_bytes() == content
    assert client.get_tags(target) == ["v1"]
    assert hub.store.resolve("t/oras:v1").media_type == "application/vnd.oci.image.manifest.v1+json"


def test_oras_chunked_upload(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = os.urandom(7_000_000)
    (tmp_path / "weights.bin").write_bytes(content)
    client = oras.client.OrasClient(hostname=hub.host, insecure=True)
    target = f"{hub.host}/t/oras-chunked:v1"
    client.push(target=target, files=["weights.bin"], do_chunked=True, chunk_size=2_000_000)
    (got,) = client.pull(target=target, outdir=str(tmp_path / "out"))
    assert Path(got).read_bytes() == content
