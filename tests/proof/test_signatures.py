"""Signatures: what is signed, by whom, what a changed byte does, and that other people's tool agrees."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import pytest
from proof_shelf import Shelf

from dockyard.artifact.lineage import attached
from dockyard.artifact.manifest import Lineage, Parent, read_artifact
from dockyard.artifact.materialize import lay_out, model_files
from dockyard.artifact.proof import keys, policy, signing
from dockyard.artifact.proof import statement as statements
from dockyard.artifact.proof.keys import PrivateKey
from dockyard.artifact.store import Store
from dockyard.errors import Conflict, InvalidRequest, NotFound, SettingsError, Untrusted


def _failed(shelf: Shelf, digest: str, path: Path) -> dict[str, str]:
    return {each.rule: each.told for each in policy.check(shelf.store, digest, policy.read(path)) if not each.ok}


def test_a_signed_model_satisfies_a_policy_and_is_signed_once(shelf: Shelf, key: PrivateKey) -> None:
    found = shelf.put("tiny")
    path = shelf.policy(keys=["release.pub"])
    assert _failed(shelf, found.digest, path) == {"signature": "not signed"}
    signing.sign(shelf.store, "tiny", key)
    signing.sign(shelf.store, "tiny", key)
    assert _failed(shelf, found.digest, path) == {}
    kinds = [each.annotations[statements.PREDICATE] for each in shelf.store.referrers(found.digest)]
    assert sorted(kinds) == sorted([statements.SIGNED, statements.FILES])


@pytest.mark.parametrize("what", ["manifest", "config", "weights", "signature"])
def test_a_changed_byte_fails(shelf: Shelf, key: PrivateKey, what: str) -> None:
    found = shelf.put("tiny")
    signing.sign(shelf.store, "tiny", key)
    manifest = shelf.store.parsed(found.digest)
    signature = next(
        each for each in shelf.store.referrers(found.digest) if statements.SIGNED in each.annotations.values()
    )
    digest = {
        "manifest": found.digest,
        "config": manifest.config.digest,  # type: ignore[union-attr]
        "weights": manifest.layers[0].digest,  # type: ignore[union-attr]
        "signature": shelf.store.parsed(signature.digest).layers[0].digest,  # type: ignore[union-attr]
    }[what]
    shelf.flip(digest)
    again = Store(shelf.store.root)
    failed = [each for each in policy.check(again, found.digest, policy.with_key(key.public)) if not each.ok]
    assert [each.rule for each in failed][:1] == ["signature" if what == "signature" else "content"]


def test_only_keys_of_the_policy_count(shelf: Shelf, key: PrivateKey) -> None:
    found = shelf.put("tiny")
    other = keys.make(shelf.folder / "other.pem")
    signing.sign(shelf.store, "tiny", other)
    told = _failed(shelf, found.digest, shelf.policy(keys=["release.pub"]))
    assert told == {"signature": f"signed with other keys only: {other.public.hint[:12]}"}


def test_a_signature_of_another_artifact_does_not_count(shelf: Shelf, key: PrivateKey) -> None:
    one, two = shelf.put("one"), shelf.put("two", b"other weights")
    signing.attest(shelf.store, one.digest, key, statements.SIGNED, {})
    (referrer,) = shelf.store.referrers(one.digest)
    from dockyard.artifact.lineage import attach

    attach(shelf.store, two.digest, attached(shelf.store, referrer), artifact_type=statements.BUNDLE)
    told = _failed(shelf, two.digest, shelf.policy(keys=["release.pub"]))
    assert told == {"signature": "it is about another artifact"}


def test_model_signing_reads_ours_and_we_read_its(shelf: Shelf, key: PrivateKey) -> None:
    library = pytest.importorskip("model_signing", reason="the library that others check with is not installed")
    found = shelf.put("tiny")
    signing.sign(shelf.store, "tiny", key)
    folder, _ = lay_out(shelf.store, read_artifact(shelf.store, found.digest))
    ours = shelf.folder / "ours.sig"
    for each in shelf.store.referrers(found.digest, statements.BUNDLE):
        if each.annotations[statements.PREDICATE] == statements.FILES:
            ours.write_bytes(attached(shelf.store, each))
    public, private = shelf.folder / "release.pub", shelf.folder / "release.pem"
    library.verifying.Config().use_elliptic_key_verifier(public_key=public).verify(folder, ours)
    theirs = shelf.folder / "theirs.sig"
    library.signing.Config().use_elliptic_key_signer(private_key=private).sign(folder, theirs)
    envelope = statements.read_bundle(theirs.read_bytes())
    assert key.public.verifies(envelope)
    said = statements.read_statement(envelope).predicate["resources"]
    assert said == signing.files_statement(shelf.store, found.digest).predicate["resources"]


def test_lineage_licences_and_bases(shelf: Shelf, key: PrivateKey) -> None:
    base = shelf.put("base", b"base", licences=("gpl-3.0",))
    made = Lineage(parents=(Parent(digest=base.digest), Parent(digest="sha256:" + "0" * 64, role="adapter")))
    child = shelf.put("child", b"child", lineage=made)
    signing.sign(shelf.store, "child", key)
    path = shelf.policy(
        keys=["release.pub"],
        lineage={"complete": True, "signed": True, "bases": [base.digest]},
        licences=["Apache-2.0"],
    )
    failed = _failed(shelf, child.digest, path)
    assert set(failed) == {"lineage.complete", "lineage.signed", "lineage.bases", "licences"}
    assert "gpl-3.0" in failed["licences"]
    alone = shelf.put("alone", b"alone", lineage=Lineage(parents=(Parent(digest=base.digest),)))
    signing.sign(shelf.store, "alone", key)
    signing.sign(shelf.store, "base", key)
    path = shelf.policy(
        keys=["release.pub"],
        lineage={"complete": True, "signed": True, "bases": [base.digest]},
        licences=["Apache-2.0", "GPL-3.0"],
    )
    assert _failed(shelf, alone.digest, path) == {}


def test_what_is_loaded_is_checked_and_what_is_looked_at_is_not(shelf: Shelf, key: PrivateKey) -> None:
    shelf.put("tiny")
    store = Store(shelf.store.root, policy=shelf.policy(keys=["release.pub"]))
    with pytest.raises(Untrusted, match="signature: not signed") as failure:
        model_files(store, "tiny")
    assert failure.value.hint is not None
    assert "dockyard verify tiny" in failure.value.hint


def test_a_policy_that_is_wrong_says_where(shelf: Shelf) -> None:
    with pytest.raises(SettingsError, match="there is no policy"):
        policy.read(shelf.folder / "none.yaml")
    with pytest.raises(SettingsError, match="need `keys`"):
        policy.read(shelf.policy())
    with pytest.raises(SettingsError, match="unknown field `key`"):
        policy.read(shelf.policy(key="x"))
    with pytest.raises(SettingsError, match=r"lost\.pub"):
        policy.read(shelf.policy(keys=["lost.pub"]))
    (shelf.folder / "bad.pub").write_text("no key")
    with pytest.raises(InvalidRequest, match=r"bad\.pub holds no public key"):
        policy.read(shelf.policy(keys=["bad.pub"]))


def test_keys_are_made_once_and_read_with_their_password(
    shelf: Shelf, key: PrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Conflict):
        keys.make(shelf.folder / "release.pem")
    assert (shelf.folder / "release.pem").stat().st_mode & 0o777 == 0o600
    with pytest.raises(NotFound, match="there is no key"):
        keys.read_private(shelf.folder / "none.pem")
    locked = shelf.folder / "locked.pem"
    command = ["openssl", "ec", "-aes256", "-passout", "pass:sesame", "-in", str(shelf.folder / "release.pem")]
    subprocess.run([*command, "-out", str(locked)], check=True, capture_output=True)
    with pytest.raises(InvalidRequest, match="encrypted"):
        keys.read_private(locked)
    monkeypatch.setenv(keys.PASSWORD, "sesame")
    assert keys.read_private(locked).public.hint == key.public.hint


def test_nonsense_in_the_place_of_a_bundle_is_told(shelf: Shelf) -> None:
    from dockyard.artifact.lineage import attach

    found = shelf.put("tiny")
    for text in (b"", b"[]", b"{}", msgspec.json.encode({"dsseEnvelope": {"signatures": []}})):
        attach(shelf.store, "tiny", text or b" ", artifact_type=statements.BUNDLE)
    assert all(each.problem for each in signing.signed(shelf.store, found.digest))
