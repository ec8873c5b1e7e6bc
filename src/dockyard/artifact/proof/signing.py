"""Statements about artifacts of the store: made with a key, attached to their subject, found and checked again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import msgspec

from dockyard.artifact import digest as digests
from dockyard.artifact.document import Index, Manifest
from dockyard.artifact.lineage import attach, attached
from dockyard.artifact.manifest import read_artifact
from dockyard.artifact.materialize import lay_out
from dockyard.artifact.media import INDEXES
from dockyard.artifact.proof import statement as statements
from dockyard.artifact.proof.keys import PrivateKey, PublicKey
from dockyard.artifact.proof.statement import Statement
from dockyard.errors import ArtifactError, DockyardError, NotFound
from dockyard.types import Descriptor, Json, Reference

if TYPE_CHECKING:
    from dockyard.artifact.store import Store

IGNORED = (".git", ".gitattributes", ".github", ".gitignore", "model.sig")
"""What may lie beside a model's files without being signed, as ``model_signing`` has it."""


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """A statement that is attached to an artifact. ``key`` is the hint of the key that verified it, None if none did;
    ``problem`` says what is wrong with it, "" if nothing is but that no given key made it."""

    digest: str
    hint: str = ""
    statement: Statement | None = None
    key: str | None = None
    problem: str = ""


def sign(store: Store, name: str | Reference, key: PrivateKey) -> list[Descriptor]:
    """Sign an artifact's manifest, its files, and the evaluation reports that are attached to it.

    What this key has signed already is not signed again. Raises ModelNotFound, and ArtifactError for missing blobs.
    """
    found = store.resolve(name)
    wanted = [(statements.SIGNED, {"tool": "dockyard"}), *_reports(store, found.digest)]
    made = [attest(store, found.digest, key, kind, predicate) for kind, predicate in wanted]
    if not isinstance(store.parsed(found.digest), Index):
        made.append(_attach(store, found.digest, key, files_statement(store, found.digest)))
    return made


def attest(store: Store, digest: str, key: PrivateKey, kind: str, predicate: dict[str, Json]) -> Descriptor:
    """Attach a signed statement of this predicate type about an artifact; found again if this key made it before."""
    return _attach(store, digest, key, statement_of(digest, kind, predicate))


def statement_of(digest: str, kind: str, predicate: dict[str, Json]) -> Statement:
    """A statement about the manifest with this digest, whatever its names are."""
    return Statement(subject=(statements.resource("", digest),), predicate_type=kind, predicate=predicate)


def report_predicate(report: Descriptor) -> dict[str, Json]:
    """What a signed statement says of an attached report: which one it is."""
    named = statements.resource("report", report.digest, report.artifact_type or "")
    return {"report": msgspec.to_builtins(named)}


def files_statement(store: Store, digest: str) -> Statement:
    """The files of a model and their digests, in the form that ``model_signing`` makes and checks.

    Its subject's digest is the SHA-256 of the files' digests, in the order of their names.
    """
    artifact = read_artifact(store, digest)
    if any(layer.packed for layer in artifact.layers):
        folder, laid = lay_out(store, artifact)
        files = {each.path: digests.of_file(folder / each.path) for each in laid}
    else:
        files = {layer.path: layer.descriptor.digest for layer in artifact.layers}
    rows = [(path, digests.split(each)) for path, each in sorted(files.items())]
    whole = digests.of_bytes(b"".join(bytes.fromhex(text) for _, (_, text) in rows))
    predicate = {
        "serialization": {
            "method": "files",
            "hash_type": "sha256",
            "allow_symlinks": False,
            "ignore_paths": list(IGNORED),
        },
        "resources": [{"name": path, "algorithm": kind, "digest": text} for path, (kind, text) in rows],
    }
    subject = statements.resource("model", whole)
    return Statement(subject=(subject,), predicate_type=statements.FILES, predicate=predicate)


def signed(store: Store, digest: str, keys: Iterable[PublicKey] = ()) -> list[Signed]:
    """Every statement attached to an artifact, each checked with the given keys. Never raises for a bad one."""
    return [_checked(store, digest, each, tuple(keys)) for each in store.referrers(digest, statements.BUNDLE)]


def trusted(found: Iterable[Signed], kind: str) -> list[Statement]:
    """The statements of one predicate type that a key verified and with which nothing is wrong."""
    return [
        each.statement
        for each in found
        if each.statement is not None and each.key and not each.problem and each.statement.predicate_type == kind
    ]


def vouched(said: Iterable[Signed]) -> set[str]:
    """The digests of attached reports that a key stands for."""
    found: set[str] = set()
    for each in trusted(said, statements.EVALUATED):
        report = each.predicate.get("report")
        digest = report.get("digest") if isinstance(report, dict) else None
        found |= {f"{kind}:{text}" for kind, text in digest.items()} if isinstance(digest, dict) else set()
    return found


def corrupt(store: Store, digest: str) -> list[str]:
    """What is not as its digest says, below a manifest or an index: a sentence each. Reads every blob."""
    found, problems = store.parsed(digest), []
    actual = digests.of_file(store.blob_path(digest), digest.partition(":")[0])
    if actual != digest:
        problems.append(f"the manifest {digest} has the content {actual}")
    if isinstance(found, Index):
        return problems + [told for child in found.manifests for told in corrupt(store, child.digest)]
    for place, blob in enumerate(found.blobs()):
        what = "the config" if place == 0 else f"layer {place} ({_path(blob)})"
        try:
            actual = digests.of_file(store.blob_path(blob.digest), blob.digest.partition(":")[0])
        except FileNotFoundError:
            problems.append(f"{what} is missing: {blob.digest}")
            continue
        if actual != blob.digest:
            problems.append(f"{what} has the content {actual}, not {blob.digest}")
    return problems


def parts_of(store: Store, digest: str) -> set[str]:
    """The manifest itself and the indexes of this store that list it: what may have been signed in its place."""
    found = {digest}
    for entry in store.entries(everything=True):
        if entry.descriptor.media_type in INDEXES:
            listed = store.parsed(entry.descriptor.digest)
            if isinstance(listed, Index) and any(child.digest == digest for child in listed.manifests):
                found.add(entry.descriptor.digest)
    return found


def _attach(store: Store, digest: str, key: PrivateKey, statement: Statement) -> Descriptor:
    for each in store.referrers(digest, statements.BUNDLE):
        known = _checked(store, digest, each, (key.public,))
        if known.key and known.statement == statement:
            return each
    return attach(
        store,
        digest,
        key.sign(statement),
        artifact_type=statements.BUNDLE,
        media_type=statements.BUNDLE,
        annotations={
            "dev.sigstore.bundle.content": "dsse-envelope",
            statements.PREDICATE: statement.predicate_type,
        },
    )


def _checked(store: Store, digest: str, referrer: Descriptor, keys: tuple[PublicKey, ...]) -> Signed:
    try:
        envelope = statements.read_bundle(attached(store, referrer))
        statement = statements.read_statement(envelope)
    except DockyardError as error:
        return Signed(digest=referrer.digest, problem=error.message)
    key = next((each.hint for each in keys if each.verifies(envelope)), None)
    return Signed(
        digest=referrer.digest,
        hint=envelope.hint,
        statement=statement,
        key=key,
        problem=_mismatch(store, digest, statement),
    )


def _mismatch(store: Store, digest: str, statement: Statement) -> str:
    """What a statement says that is not so of this artifact; "" for nothing."""
    try:
        if statement.predicate_type == statements.FILES:
            if _plain(files_statement(store, digest)) != _plain(statement):
                return "it signs other files than the artifact has"
            return ""
    except (ArtifactError, NotFound) as error:
        return error.message
    algorithm, text = digests.split(digest)
    if not any(each.digest.get(algorithm) == text for each in statement.subject):
        return "it is about another artifact"
    return ""


def _plain(statement: Statement) -> object:
    """What counts in a statement of files: what else its maker said of how it was computed does not."""
    resources = statement.predicate.get("resources")
    return [each.digest for each in statement.subject], resources


def _reports(store: Store, digest: str) -> list[tuple[str, dict[str, Json]]]:
    kinds = (statements.BUNDLE,)
    found = [each for each in store.referrers(digest) if each.artifact_type not in kinds]
    return [(statements.EVALUATED, report_predicate(each)) for each in found if _is_report(store, each)]


def _is_report(store: Store, each: Descriptor) -> bool:
    return isinstance(store.parsed(each.digest), Manifest) and each.artifact_type == REPORT


REPORT = "application/vnd.dockyard.evaluation.v1+json"
"""artifactType of an attached evaluation report."""


def _path(blob: Descriptor) -> str:
    return blob.annotations.get("org.cncf.model.filepath") or blob.media_type
