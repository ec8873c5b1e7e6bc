"""``/models…`` as Model Runner's command line and Testcontainers use it: JSON, progress lines, plain-text errors."""

from __future__ import annotations

import html
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from header_writers import tiny_gguf
from litestar.testing import TestClient

from dockyard.api import create_app
from dockyard.artifact.reference import parse
from dockyard.artifact.registry.memory import MemoryRegistry
from dockyard.artifact.store import Store
from dockyard.ops import pack
from dockyard.settings import Settings

JSON = {"accept": "application/json"}
Client = TestClient[Any]


def model(store: Store, folder: Path, name: str, form: str = "docker-v0.1") -> str:
    """A tiny GGUF in the store under a name; its digest."""
    file = tiny_gguf(folder / "model.gguf")
    params = pack.PackParams(format=form, context=2048)  # type: ignore[arg-type]
    done = pack.package(store, pack.Sources(weights=(file,)), params, reference=parse(name))
    return done.entry.descriptor.digest


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def client(tmp_path: Path, store: Store) -> Iterator[Client]:
    app = create_app(Settings(home=str(tmp_path), starter=""), store=store, trusted=True)
    with TestClient(app, base_url="http://127.0.0.1:12434") as found:
        yield found


@pytest.fixture
def registry() -> Iterator[str]:
    """host:port of a registry in this process."""
    with MemoryRegistry() as found:
        yield found.host


def lines(answer: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.text.splitlines()]


def test_models_are_listed_as_the_command_line_reads_them(client: Client, store: Store, tmp_path: Path) -> None:
    assert client.get("/models").json() == []
    digest = model(store, tmp_path, "tiny")
    store.tag(parse("localhost:5000/x:v1"), digest)
    (found,) = client.get("/models").json()
    assert found["id"] == digest
    assert sorted(found["tags"]) == ["docker.io/ai/tiny:latest", "localhost:5000/x:v1"]
    assert found["created"] > 1_700_000_000
    config = found["config"]
    assert (config["format"], config["architecture"], config["context_size"]) == ("gguf", "llama", 2048)
    assert config["size"].endswith("B")
    assert config["gguf"]["general.architecture"] == "llama"
    assert all(isinstance(value, str) for name, value in config.items() if name not in ("context_size", "gguf"))


def test_other_artifacts_are_no_models(client: Client, store: Store, tmp_path: Path) -> None:
    report = store.add_bytes(b"{}", media_type="application/json")
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example.report",
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": report.digest, "size": 2},
        "layers": [{"mediaType": "application/json", "digest": report.digest, "size": 2}],
    }
    store.put_manifest(json.dumps(manifest).encode(), reference=parse("ai/report"))
    assert client.get("/models").json() == []
    assert client.get("/models/ai/report").status_code == 404


@pytest.mark.parametrize(
    "spelling",
    ["tiny", "ai/tiny", "ai/tiny:latest", "docker.io/ai/tiny", "docker.io/ai/tiny:latest", "index.docker.io/ai/tiny"],
)
def test_a_model_has_many_spellings(client: Client, store: Store, tmp_path: Path, spelling: str) -> None:
    digest = model(store, tmp_path, "tiny")
    assert client.get(f"/models/{spelling}").json()["id"] == digest


def test_ids_and_last_parts_of_names_are_found_too(client: Client, store: Store, tmp_path: Path) -> None:
    digest = model(store, tmp_path, "localhost:5000/team/tiny:v1")
    hexadecimal = digest.removeprefix("sha256:")
    for name in (digest, hexadecimal, hexadecimal[:12], "tiny:v1"):
        assert client.get(f"/models/{name}").json()["id"] == digest, name
    assert client.get("/models/tiny").status_code == 404


def test_modelpack_tells_its_headers_when_asked_for_alone(client: Client, store: Store, tmp_path: Path) -> None:
    model(store, tmp_path, "tiny", "modelpack")
    assert "gguf" not in client.get("/models").json()[0]["config"]
    assert client.get("/models/tiny").json()["config"]["gguf"]["general.architecture"] == "llama"


def test_a_push_comes_back_with_a_pull(client: Client, store: Store, tmp_path: Path, registry: str) -> None:
    name = f"{registry}/team/tiny:v1"
    digest = model(store, tmp_path, name)
    pushed = lines(client.post(f"/models/{name}/push", headers=JSON))
    assert pushed[-1] == {"type": "success", "message": "Model pushed successfully", "mode": "push"}
    remote = client.get(f"/models/{name}?remote=true").json()
    assert (remote["id"], remote["config"]["architecture"]) == (digest, "llama")
    assert client.delete(f"/models/{name}").json() == [{"Untagged": name}, {"Deleted": digest}]
    assert client.get(f"/models/{name}").status_code == 404
    pulled = client.post("/models/create", json={"from": name}, headers=JSON)
    assert pulled.status_code == 200
    told = lines(pulled)
    assert told[-1] == {"type": "success", "message": "Model pulled successfully", "mode": "pull"}
    layers = [one for one in told if "layer" in one]
    assert layers
    for one in layers:
        assert one["type"] == "progress"
        assert one["total"] >= one["layer"]["size"] >= one["layer"]["current"] >= 0
        assert one["layer"]["id"].startswith("sha256:")
    assert client.get(f"/models/{name}").json()["id"] == digest
    again = lines(client.post("/models/create", json={"from": name}, headers=JSON))
    assert again[-1]["message"].startswith("Using cached model: ")


def test_who_does_not_ask_for_json_gets_it_escaped(client: Client, store: Store, tmp_path: Path, registry: str) -> None:
    name = f"{registry}/team/tiny:v1"
    model(store, tmp_path, name)
    answer = client.post(f"/models/{name}/push")
    assert answer.headers["content-type"].startswith("text/plain")
    assert json.loads(html.unescape(answer.text.splitlines()[-1]))["type"] == "success"
    assert '"' not in answer.text


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({"from": "UPPER/Case"}, 400, "upper-case"),
        ({"from": ""}, 400, "empty"),
        ({"from": "/etc/passwd.gguf"}, 400, "path"),
        ({}, 400, "from"),
        ({"from": "x", "colour": "red"}, 400, "colour"),
        ({"from": "x", "bearer-token": "secret"}, 400, "bearer-token"),
        ({"from": "REGISTRY/none/here:v1"}, 404, "none/here"),
    ],
)
def test_bad_pulls_are_told_in_plain_text(
    client: Client, registry: str, body: dict[str, str], status: int, text: str
) -> None:
    asked = {name: value.replace("REGISTRY", registry) for name, value in body.items()}
    answer = client.post("/models/create", json=asked, headers=JSON)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    assert text in answer.text
    assert "secret" not in answer.text
    assert answer.text.endswith("\n")


def test_an_offline_server_has_what_it_has(tmp_path: Path, store: Store) -> None:
    model(store, tmp_path, "tiny")
    app = create_app(Settings(home=str(tmp_path), starter="", offline=True), store=store, trusted=True)
    with TestClient(app, base_url="http://127.0.0.1:12434") as client:
        told = lines(client.post("/models/create", json={"from": "ai/tiny"}, headers=JSON))
        assert told[-1]["message"].startswith("Using cached model: ")
        refused = client.post("/models/create", json={"from": "ai/other"}, headers=JSON)
        assert (refused.status_code, "offline" in refused.text) == (400, True)


def test_an_export_can_be_loaded_elsewhere(client: Client, store: Store, tmp_path: Path) -> None:
    digest = model(store, tmp_path, "tiny")
    exported = client.get("/models/ai/tiny/export")
    assert exported.headers["content-type"].startswith("application/x-tar")
    with tarfile.open(fileobj=io.BytesIO(exported.content)) as archive:
        names = archive.getnames()
        manifest = archive.extractfile("manifest.json")
        assert manifest is not None
        assert json.load(manifest)["layers"]
    assert f"blobs/sha256/{digest.removeprefix('sha256:')}" in names
    client.delete("/models/tiny")
    assert client.get("/models").json() == []
    loaded = client.post(
        "/models/load", content=exported.content, headers={**JSON, "content-type": "application/x-tar"}
    )
    assert (loaded.status_code, lines(loaded)[-1]["type"]) == (200, "success"), loaded.text
    assert client.get(f"/models/{digest}").json()["id"] == digest


@pytest.mark.parametrize("body", [b"", b"not a tar", b"\0" * 4096])
def test_what_is_no_archive_is_refused(client: Client, body: bytes) -> None:
    answer = client.post("/models/load", content=body)
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    assert client.get("/models").json() == []


def test_an_archive_may_be_larger_than_other_bodies(tmp_path: Path, store: Store) -> None:
    app = create_app(Settings(home=str(tmp_path), max_body=1024), store=store, trusted=True)
    model(store, tmp_path, "tiny")
    with TestClient(app, base_url="http://127.0.0.1:12434") as client:
        exported = client.get("/models/tiny/export").content
        assert len(exported) > 1024
        assert client.post("/models/load", content=exported).status_code == 200


def test_names_are_given_and_taken_away(client: Client, store: Store, tmp_path: Path) -> None:
    digest = model(store, tmp_path, "tiny")
    answer = client.post("/models/ai/tiny/tag?repo=localhost:5000/team/x&tag=v2")
    assert answer.status_code == 201
    assert answer.json()["target"] == "localhost:5000/team/x:v2"
    several = client.delete(f"/models/{digest}")
    assert several.status_code == 409
    assert "2 names" in several.text
    assert client.delete("/models/tiny").json() == [{"Untagged": "docker.io/ai/tiny:latest"}]
    assert client.get("/models/localhost:5000/team/x:v2").json()["id"] == digest
    client.post("/models/localhost:5000/team/x:v2/tag?repo=tiny")
    gone = client.delete(f"/models/{digest}?force=true").json()
    assert {"Deleted": digest} in gone
    assert len(gone) == 3
    assert client.get("/models").json() == []


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/models/none/such", 404, "none/such"),
        ("DELETE", "/models/none/such", 404, "none/such"),
        ("POST", "/models/none/such/tag?repo=x", 404, "none/such"),
        ("POST", "/models/none/such/push", 404, "none/such"),
        ("POST", "/models/ai/tiny/tag", 400, "repo"),
        ("POST", "/models/ai/tiny/tag?repo=UPPER", 400, "upper-case"),
        ("POST", "/models/ai/tiny/dance", 404, "/models/ai/tiny/dance"),
        ("GET", "/models/none/such/export", 404, "none/such"),
        ("PUT", "/models", 405, "method"),
    ],
)
def test_mistakes_are_plain_text(
    client: Client, store: Store, tmp_path: Path, method: str, path: str, status: int, text: str
) -> None:
    model(store, tmp_path, "tiny")
    answer = client.request(method, path)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    assert text in answer.text


def test_repackaging_changes_the_window_and_shares_the_layers(client: Client, store: Store, tmp_path: Path) -> None:
    digest = model(store, tmp_path, "tiny")
    answer = client.post("/models/tiny/repackage", json={"target": "tiny:long", "context_size": 512})
    assert answer.status_code == 201, answer.text
    assert answer.json()["target"] == "docker.io/ai/tiny:long"
    found = client.get("/models/tiny:long").json()
    assert found["id"] != digest
    assert found["config"]["context_size"] == 512
    layers = [{layer.digest for layer in store.parsed(one).layers} for one in (digest, found["id"])]  # type: ignore[union-attr]
    assert layers[0] == layers[1]
    assert client.post("/models/tiny/repackage", json={"target": "t", "context_size": 0}).status_code == 400


def test_purging_empties_the_store(client: Client, store: Store, tmp_path: Path) -> None:
    model(store, tmp_path, "tiny")
    store.tag(parse("other:v1"), store.resolve("tiny").digest)
    assert client.delete("/models/purge").status_code == 200
    assert client.get("/models").json() == []


def test_managing_wants_a_key_that_may_manage(tmp_path: Path) -> None:
    app = create_app(Settings(home=str(tmp_path), api_keys=("sk-plain", "sk-boss:manage")))
    with TestClient(app, base_url="http://127.0.0.1:12434") as client:
        for path in ("/models", "/engines/ps", "/engines/requests", "/engines/_configure", "/logs"):
            assert client.get(path).status_code == 401, path
            assert client.get(path, headers={"authorization": "Bearer sk-plain"}).status_code == 403, path
        assert client.get("/models", headers={"authorization": "Bearer sk-boss"}).json() == []
        assert client.get("/models").headers["content-type"].startswith("text/plain")
        assert client.get("/engines/status").status_code == 200
        body = {"model": "echo", "messages": [{"role": "user", "content": "Hi"}]}
        assert client.post("/engines/v1/chat/completions", json=body).status_code == 401
        plain = {"authorization": "Bearer sk-plain"}
        assert client.post("/engines/v1/chat/completions", json=body, headers=plain).status_code == 200
        preload = {"x-preload-only": "true"}
        assert client.post("/engines/v1/chat/completions", json=body, headers=preload).status_code == 401
