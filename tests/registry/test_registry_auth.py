"""Who we are to a registry, and who never learns it."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path

import pytest
from registry_samples import QUICK, digest_of, noise, publish

from dockyard.artifact.registry import credentials
from dockyard.artifact.registry.client import Registry
from dockyard.artifact.registry.credentials import Credentials
from dockyard.artifact.registry.memory import MemoryRegistry
from dockyard.errors import ModelNotFound, SettingsError, SourceError

USERS = {"ann": "s3cret-pass"}
ANN = Credentials(username="ann", password="s3cret-pass")


def config(content: object) -> None:
    folder = Path(os.environ["DOCKER_CONFIG"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(content))


def auths(host: str, user: str = "ann", password: str = "s3cret-pass") -> dict[str, object]:
    return {"auths": {host: {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}}}


@pytest.mark.parametrize("auth", ["basic", "token"])
def test_docker_configuration_opens_a_closed_registry(auth: str) -> None:
    with MemoryRegistry(auth=auth, users=USERS) as memory:  # type: ignore[arg-type]
        publish(memory, "a/b", "v1", b"x")
        config(auths(memory.host))
        with Registry(memory.host, policy=QUICK) as registry:
            assert registry.manifest("a/b", "v1").data
            assert list(registry.catalog()) == ["a/b"]
            registry.put_manifest(
                "a/b", "v2", registry.manifest("a/b", "v1").data, "application/vnd.oci.image.manifest.v1+json"
            )
            assert sorted(registry.tags("a/b")) == ["v1", "v2"]


@pytest.mark.parametrize("auth", ["basic", "token"])
@pytest.mark.parametrize("wrong", [None, Credentials(username="ann", password="wrong-pass")])
def test_refused_credentials_say_what_to_do(auth: str, wrong: Credentials | None) -> None:
    with MemoryRegistry(auth=auth, users=USERS) as memory:  # type: ignore[arg-type]
        publish(memory, "a/b", "v1", b"x")
        with Registry(memory.host, credentials=wrong, policy=QUICK) as registry, pytest.raises(SourceError) as caught:
            registry.manifest("a/b", "v1")
    assert "401" in caught.value.message
    assert "docker login" in (caught.value.hint or "")
    assert "wrong-pass" not in f"{caught.value.message}{caught.value.hint}"
    assert len(memory.asked("")) < 6


def test_anonymous_token_pulls_and_does_not_push() -> None:
    with MemoryRegistry(auth="token", users=USERS, anonymous_pull=True) as memory:
        publish(memory, "a/b", "v1", b"x")
        with Registry(memory.host, policy=QUICK) as registry:
            data = registry.manifest("a/b", "v1").data
            with pytest.raises(SourceError, match="refused access"):
                registry.put_manifest("a/b", "v2", data, "application/vnd.oci.image.manifest.v1+json")


def test_identity_token_is_exchanged() -> None:
    with MemoryRegistry(auth="token", users=USERS) as memory:
        publish(memory, "a/b", "v1", b"x")
        memory.refresh_tokens["long-lived"] = "ann"
        config({"auths": {memory.host: {"identitytoken": "long-lived", "auth": base64.b64encode(b"ann:").decode()}}})
        with Registry(memory.host, policy=QUICK) as registry:
            assert registry.manifest("a/b", "v1").data
        assert [one.method for one in memory.asked("/token")] == ["POST"]


def test_a_token_is_kept_and_renewed_when_the_registry_forgets_it() -> None:
    with MemoryRegistry(auth="token", users=USERS) as memory:
        publish(memory, "a/b", "v1", b"x")
        with Registry(memory.host, credentials=ANN, policy=QUICK) as registry:
            for _ in range(3):
                registry.manifest("a/b", "v1")
            assert len(memory.asked("/token")) == 1
            memory.tokens.clear()
            registry.manifest("a/b", "v1")
            assert len(memory.asked("/token")) == 2


def test_a_token_server_that_talks_nonsense() -> None:
    with MemoryRegistry(auth="token", users=USERS) as memory:
        memory.fail(match="/token", status=200)
        with Registry(memory.host, credentials=ANN, policy=QUICK) as registry:
            with pytest.raises(SourceError, match="without a token"):
                registry.manifest("a/b", "v1")


def test_redirects_carry_the_range_and_no_credentials() -> None:
    data = noise(100_000)
    with MemoryRegistry() as storage:
        storage.add_blob("a/b", data)
        for auth in ("basic", "token"):
            with MemoryRegistry(auth=auth, users=USERS, blobs_at=f"http://{storage.host}") as memory:  # type: ignore[arg-type]
                memory.add_blob("a/b", data)
                with Registry(memory.host, credentials=ANN, policy=QUICK) as registry:
                    with registry.open_blob("a/b", digest_of(data), {"Range": "bytes=5-99"}) as reply:
                        assert reply.status == 206
                        assert reply.body(1000) == data[5:100]
        assert len(storage.requests) == 2
        for seen in storage.requests:
            assert "authorization" not in seen.headers
            assert seen.headers["range"] == "bytes=5-99"


def test_credentials_never_go_over_plain_http_to_strangers() -> None:
    registry = Registry("registry.example", plain_http=False, credentials=ANN, policy=QUICK)
    with pytest.raises(SourceError, match="without encryption"):
        registry.transport.refuse_leak("http://auth.example/token")
    registry.transport.refuse_leak("https://auth.example/token")
    registry.transport.refuse_leak("http://localhost:9/token")
    with pytest.raises(SourceError, match="without encryption"):
        registry.transport.request("GET", "http://auth.example/token", authorization=ANN.basic())
    assert registry.base == "https://registry.example/v2/"
    assert Registry("registry.example", insecure=["registry.example"]).base.startswith("http://")
    assert Registry("127.0.0.1:5000").base.startswith("http://")
    assert Registry("docker.io").base == "https://registry-1.docker.io/v2/"


def test_secrets_do_not_show() -> None:
    assert "s3cret" not in repr(ANN)
    assert "tok" not in repr(Credentials(identity_token="tok"))


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A credential helper called docker-credential-shelf on the path; it knows what lies in ``shelf``."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    program = tmp_path / "bin" / "docker-credential-shelf"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\nread server\n[ "$1" = get ] || exit 3\nfile={shelf}/$(echo "$server" | tr -c "a-z0-9\\n" _)\n'
        'if [ -f "$file" ]; then cat "$file"; else echo "credentials not found in native keychain"; exit 1; fi\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return shelf


def test_credential_helpers(helper: Path) -> None:
    (helper / "hub_example_5000").write_text(json.dumps({"ServerURL": "x", "Username": "bob", "Secret": "pw"}))
    (helper / "https___index_docker_io_v1_").write_text(json.dumps({"Username": "<token>", "Secret": "idt"}))
    bob = Credentials(username="bob", password="pw")
    assert credentials.of_config({"credHelpers": {"hub.example:5000": "shelf"}}, "hub.example:5000") == bob
    assert credentials.of_config({"credsStore": "shelf"}, "hub.example:5000") == bob
    assert credentials.of_config({"credsStore": "shelf"}, "docker.io") == Credentials(identity_token="idt")
    assert credentials.of_config({"credsStore": "shelf"}, "unknown.example") is None
    own = {**auths("hub.example:5000", "eve", "pw2"), "credsStore": "shelf"}
    assert credentials.of_config(own, "hub.example:5000") == Credentials(username="eve", password="pw2")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"credsStore": "not-there"}, "not on the path"),
        ({"credsStore": "../../bin/sh"}, "names a credential helper"),
        ({"auths": {"hub.example": {"auth": "%%%"}}}, "not base64"),
    ],
)
def test_broken_docker_configuration_is_named(content: dict[str, object], told: str) -> None:
    config(content)
    with pytest.raises(SettingsError, match=told):
        credentials.find("hub.example")


def test_broken_json_is_named() -> None:
    folder = Path(os.environ["DOCKER_CONFIG"])
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{")
    with pytest.raises(SettingsError, match=r"config\.json can't be read"):
        credentials.find("hub.example")


def test_keys_of_auths_in_all_their_spellings() -> None:
    for key in ("https://index.docker.io/v1/", "docker.io", "registry-1.docker.io", "index.docker.io"):
        assert credentials.of_config(auths(key), "docker.io") == ANN
    for key in ("hub.example:5000", "https://hub.example:5000", "http://hub.example:5000/v2/"):
        assert credentials.of_config(auths(key), "hub.example:5000") == ANN
    assert credentials.of_config(auths("hub.example"), "hub.example:5000") is None


def test_environment_names_one_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_USERNAME", "ann")
    monkeypatch.setenv("DOCKER_PASSWORD", "s3cret-pass")
    assert credentials.find("docker.io") == ANN
    assert credentials.find("hub.example") is None
    monkeypatch.setenv("DOCKER_REGISTRY", "hub.example")
    assert credentials.find("hub.example") == ANN
    assert credentials.find("docker.io") is None


def test_debians_registry_behind_a_password(closed_registry: str) -> None:
    with Registry(closed_registry, policy=QUICK) as registry, pytest.raises(SourceError, match="refused access"):
        list(registry.catalog())
    config(auths(closed_registry, "reader", "open sesame"))
    with Registry(closed_registry, policy=QUICK) as registry:
        assert list(registry.catalog()) == []
        with pytest.raises(ModelNotFound):
            registry.manifest("no/such", "latest")
