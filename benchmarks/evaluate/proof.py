"""Reports, cards, bills, signatures: valid by public schemas, found wherever they are, and no byte can change."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks._bars import Row
from benchmarks._serving import DOCKYARD, free_port, home_env, process, wait_ready
from dockyard.artifact.document import Index, Manifest
from dockyard.artifact.lineage import attached
from dockyard.artifact.proof import keys, policy, signing
from dockyard.artifact.proof import statement as statements
from dockyard.artifact.registry.client import Registry
from dockyard.artifact.registry.referrers import fallback_tag, referrers
from dockyard.artifact.store import Store
from dockyard.artifact.transfer import pull, push
from dockyard.ops.evaluate.result import Run, encode, read
from dockyard.ops.report import attach_report
from dockyard.ops.report.bom import BOM, bom
from dockyard.ops.report.card import CARD, card
from dockyard.ops.report.facts import gather
from dockyard.settings import Settings

FLIPS = 300
SUITE = """
name: capitals
data: capitals.jsonl
prompt: "{question}"
reference: answer
scorers: [exact-match, f1]
parameters: {max_tokens: 4}
"""


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch) / "home"
        store = Store(home / "store")
        run = _measured(home)
        attach_report(store, "smollm2", run)
        facts = gather(store, "smollm2")
        text, bill = card(facts), bom(facts)
        from dockyard.artifact.lineage import attach

        attach(store, "smollm2", text.encode(), artifact_type=CARD, media_type="text/markdown")
        attach(store, "smollm2", bill, artifact_type=BOM, media_type=BOM)
        key = keys.make(home / "signing.pem")
        signing.sign(store, "smollm2", key)
        yield from _schemas(store, run, text, bill, home)
        yield from _found(store, home)
        yield from _flips(store, key.public)


def _measured(home: Path) -> Run:
    """The starter model put to a suite of four items, as a person would."""
    folder = home.parent
    (folder / "suite.yaml").write_text(SUITE)
    towns = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo", "Spain": "Madrid"}
    lines = [json.dumps({"question": f"The capital of {land} is", "answer": town}) for land, town in towns.items()]
    (folder / "capitals.jsonl").write_text("\n".join(lines) + "\n")
    environment = home_env(home)
    for words in (["pull", "smollm2"], ["eval", "run", "suite.yaml", "smollm2"]):
        done = subprocess.run([str(DOCKYARD), *words], cwd=folder, env=environment, capture_output=True, timeout=400)
        if done.returncode:
            raise RuntimeError(done.stderr.decode()[-800:])
    (path,) = (home / "evaluations").glob("**/*.json")
    return read(path)


def _schemas(store: Store, run: Run, text: str, bill: bytes, home: Path) -> Iterator[Row]:
    import huggingface_hub
    import jsonschema
    import model_signing
    import msgspec
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator
    from google.protobuf.json_format import Parse
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement

    wrong = JsonStrictValidator(SchemaVersion.V1_6).validate_str(bill.decode())
    yield Row("ML-BOM by CycloneDX 1.6's schema, strictly", str(wrong or "valid"), "valid", wrong is None)
    found = huggingface_hub.ModelCard(text).data.eval_results or []
    yield Row("model card read by the hub's library", f"{len(found)} results", "all", len(found) == len(run.aggregates))
    jsonschema.validate(json.loads(encode(run)), msgspec.json.schema(Run))
    yield Row("report by its own published schema", "valid", "valid", True)
    digest = store.resolve("smollm2").digest
    said = [each.statement for each in signing.signed(store, digest) if each.statement]
    for each in said:
        Statement.copy_from_pb(Parse(statements.encode(each), statement_pb2.Statement())).validate()
    yield Row("signed statements by in-toto's own library", f"{len(said)} valid", "all, 3 at least", len(said) >= 3)
    from dockyard.artifact.manifest import read_artifact
    from dockyard.artifact.materialize import lay_out

    folder, _ = lay_out(store, read_artifact(store, digest))
    for each in store.referrers(digest, statements.BUNDLE):
        if each.annotations.get(statements.PREDICATE) == statements.FILES:
            (home / "model.sig").write_bytes(attached(store, each))
    public = keys.public_path(home / "signing.pem")
    model_signing.verifying.Config().use_elliptic_key_verifier(public_key=public).verify(folder, home / "model.sig")
    yield Row("signature of the files verified by model_signing", "valid", "valid", True)


def _found(store: Store, home: Path) -> Iterator[Row]:
    digest = store.resolve("smollm2").digest
    wanted = {each.digest for each in store.referrers(digest)}
    for what, started in (("Dockyard's hub", _hub), ("Debian's docker-registry", _debian)):
        with started() as host, Registry(host) as registry:
            settings = Settings(home=str(home), starter="")
            push(store, "smollm2", settings, to=f"{host}/proof/smollm2:1")
            found = {each.digest for each in referrers(registry, "proof/smollm2", digest)}
            tagged = fallback_tag(digest) in list(registry.tags("proof/smollm2"))
            way = "by the tag fallback" if tagged else "by the referrers API"
            told = f"{len(found & wanted)} of {len(wanted)} {way}"
            yield Row(f"attachments found on {what}", told, "all", found == wanted and tagged == (started is _debian))
            other = Store(home.parent / f"other-{what[:3]}" / "store")
            pull(other, f"{host}/proof/smollm2:1", settings, attached=True)
            public = keys.read_public(keys.public_path(home / "signing.pem").read_bytes(), "signing.pub")
            failed = [each for each in policy.check(other, digest, policy.with_key(public)) if not each.ok]
            yield Row(f"pulled from {what}, it verifies", "yes" if not failed else failed[0].told, "yes", not failed)


def _flips(store: Store, key: keys.PublicKey) -> Iterator[Row]:
    """One bit at a random place of a random blob that the verdict rests on, again and again."""
    digest = store.resolve("smollm2").digest
    rules = policy.Rules(policy=policy.Policy(keys=(key.pem.decode(),), reports=True), keys=(key,))
    whole = all(each.ok for each in policy.check(store, digest, rules))
    yield Row("untouched, it verifies", "yes" if whole else "no", "yes", whole)
    draw, caught = random.Random(1), 0
    blobs = _blobs(store, digest)
    for _ in range(FLIPS):
        path = store.blob_path(draw.choice(blobs))
        path.chmod(0o644)
        with path.open("r+b") as file:
            at = draw.randrange(path.stat().st_size)
            file.seek(at)
            before = file.read(1)
            file.seek(at)
            file.write(bytes([before[0] ^ 1 << draw.randrange(8)]))
            file.flush()
            caught += not all(each.ok for each in policy.check(Store(store.root), digest, rules))
            file.seek(at)
            file.write(before)
    yield Row(f"one bit changed, {FLIPS} times: `verify` fails", f"{caught}", f"{FLIPS}", caught == FLIPS)


def _blobs(store: Store, digest: str) -> list[str]:
    """Manifest, config and files; the manifest signature and the report, each with their own manifests."""
    found = [digest]
    for each in (
        digest,
        *(one.digest for one in store.referrers(digest) if _counts(one.artifact_type, one.annotations)),
    ):
        parsed = store.parsed(each)
        assert not isinstance(parsed, Index)
        assert isinstance(parsed, Manifest)
        found += [blob.digest for blob in parsed.layers if blob.size < 10 << 20 or each == digest]
    return found


def _counts(kind: str | None, annotations: dict[str, str]) -> bool:
    about = annotations.get(statements.PREDICATE)
    return kind == signing.REPORT or (kind == statements.BUNDLE and about in (statements.SIGNED, statements.EVALUATED))


@contextmanager
def _hub() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as scratch:
        port = free_port()
        command = [str(DOCKYARD), "hub", "--port", str(port)]
        with process(command, env=home_env(Path(scratch))) as child:
            wait_ready(f"http://127.0.0.1:{port}/health", child)
            yield f"127.0.0.1:{port}"


@contextmanager
def _debian() -> Iterator[str]:
    program = shutil.which("docker-registry")
    if program is None:
        raise RuntimeError("docker-registry is not installed (Debian package docker-registry)")
    with tempfile.TemporaryDirectory() as scratch:
        port = free_port()
        config = Path(scratch) / "config.yml"
        config.write_text(
            f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {scratch}/data}}}}\n"
            f"http: {{addr: '127.0.0.1:{port}'}}\n"
        )
        with process([program, "serve", str(config)]) as child:
            wait_ready(f"http://127.0.0.1:{port}/v2/", child)
            yield f"127.0.0.1:{port}"
