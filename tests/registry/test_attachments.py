"""Reports and signatures travel with their model: over our hub's referrers API, and the tag that stands in for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from dockyard.artifact.proof import keys, policy, signing
from dockyard.artifact.proof.keys import PrivateKey
from dockyard.artifact.registry.client import Registry
from dockyard.artifact.registry.memory import MemoryRegistry
from dockyard.artifact.registry.referrers import fallback_tag, referrers
from dockyard.artifact.store import Store
from dockyard.artifact.transfer import pull, push
from dockyard.errors import ModelNotFound, Untrusted
from dockyard.ops.report import attach_report, reports
from dockyard.settings import Settings

sys.path.insert(0, str(Path(__file__).parent.parent / "proof"))
from proof_runs import run_of, share
from proof_shelf import Shelf


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "mine")


@pytest.fixture
def key(shelf: Shelf) -> PrivateKey:
    return keys.make(shelf.folder / "release.pem")


@pytest.fixture(params=["memory", "docker-registry"])
def host(request: pytest.FixtureRequest) -> Iterator[str]:
    """A registry with the referrers API, and one without."""
    if request.param == "memory":
        with MemoryRegistry() as memory:
            yield memory.host
    else:
        yield request.getfixturevalue("docker_registry")


def _strict(settings: Settings, path: Path) -> Settings:
    return msgspec.structs.replace(settings, policy=str(path))


def test_what_is_attached_is_found_and_comes_along(
    host: str, shelf: Shelf, key: PrivateKey, other: Store, settings: Settings, request: pytest.FixtureRequest
) -> None:
    name = f"{host}/proof/{request.node.name.partition('[')[2][:3]}:1"
    found = shelf.put("tiny")
    attach_report(shelf.store, "tiny", run_of(found.digest, [*share(8, 10)]))
    signing.sign(shelf.store, "tiny", key)
    push(shelf.store, "tiny", settings, to=name)
    repository = name.partition("/")[2].partition(":")[0]
    with Registry(host) as registry:
        assert len(referrers(registry, repository, found.digest)) == 4
        stands_in = fallback_tag(found.digest) in list(registry.tags(repository))
    assert stands_in == ("docker-registry" in request.node.name)
    pull(other, name, settings)
    assert other.referrers(found.digest) == []
    pulled = pull(other, name, settings, attached=True)
    assert len(other.referrers(found.digest)) == 4
    assert reports(other, pulled.descriptor.digest)[0].run.suite == "qa"
    path = shelf.policy(keys=["release.pub"], reports=True)
    assert all(each.ok for each in policy.check(other, found.digest, policy.read(path)))


def test_a_pull_that_does_not_satisfy_the_policy_leaves_the_name_as_it_was(
    shelf: Shelf, key: PrivateKey, other: Store, settings: Settings
) -> None:
    strict = _strict(settings, shelf.policy(keys=["release.pub"]))
    with MemoryRegistry() as memory:
        name = f"{memory.host}/proof/tiny:1"
        shelf.put("bad", b"unsigned")
        push(shelf.store, "bad", settings, to=name)
        with pytest.raises(Untrusted, match="signature: not signed"):
            pull(other, name, strict)
        with pytest.raises(ModelNotFound):
            other.resolve(name)
        good = shelf.put("good", b"signed")
        signing.sign(shelf.store, "good", key)
        push(shelf.store, "good", settings, to=name)
        assert pull(other, name, strict).descriptor.digest == good.digest
        push(shelf.store, "bad", settings, to=name)
        with pytest.raises(Untrusted):
            pull(other, name, strict)
        assert other.resolve(name).digest == good.digest


def test_a_registry_can_not_attach_things_to_other_models(shelf: Shelf, other: Store, settings: Settings) -> None:
    victim, bait = shelf.put("victim", b"victim"), shelf.put("bait", b"bait")
    planted = attach_report(shelf.store, "victim", run_of(victim.digest, [*share(10, 10)]))
    with MemoryRegistry(referrers_api=False) as memory:
        push(shelf.store, "victim", settings, to=f"{memory.host}/proof/m:victim")
        push(shelf.store, "bait", settings, to=f"{memory.host}/proof/m:bait")
        with Registry(memory.host) as registry:
            listed = registry.manifest("proof/m", fallback_tag(victim.digest))
            registry.put_manifest("proof/m", fallback_tag(bait.digest), listed.data, listed.media_type)
            assert [each.digest for each in referrers(registry, "proof/m", bait.digest)] == [planted.digest]
        pull(other, f"{memory.host}/proof/m:victim", settings)
        notes: list[str] = []
        pull(
            other, f"{memory.host}/proof/m:bait", settings, attached=True, on_progress=lambda n: notes.append(n.message)
        )
    assert other.referrers(victim.digest) == []
    assert any("is listed as attached to" in each for each in notes)
