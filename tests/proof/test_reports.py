"""Reports, cards and bills: what they say, whether they are valid, and where they are found."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import msgspec
import pytest
from proof_runs import run_of, share
from proof_shelf import Shelf

from dockyard.artifact.lineage import attached
from dockyard.artifact.manifest import Lineage, Parent
from dockyard.artifact.proof import policy, signing
from dockyard.artifact.proof import statement as statements
from dockyard.artifact.proof.keys import PrivateKey
from dockyard.artifact.store import Store
from dockyard.errors import InvalidRequest, NotFound
from dockyard.ops.evaluate.result import MEDIA_TYPE, Run
from dockyard.ops.report import attach_report, newest, report_of, reports
from dockyard.ops.report.bom import bom
from dockyard.ops.report.card import card
from dockyard.ops.report.chart import chart
from dockyard.ops.report.facts import gather
from dockyard.ops.report.markdown import markdown


@pytest.fixture
def measured(shelf: Shelf) -> str:
    """A model with a parent, a data set and a report, by digest."""
    base = shelf.put("base", b"base")
    lineage = Lineage(
        parents=(
            Parent(digest=base.digest, reference="docker.io/ai/base:latest"),
            Parent(digest="sha256:" + "d" * 64, role="dataset", reference="docker.io/me/data:1"),
        ),
        operation="tune",
        version="1",
        params={"rank": 8},
    )
    found = shelf.put("tiny", lineage=lineage)
    attach_report(shelf.store, "tiny", run_of(found.digest, [*share(70, 97), None, None, None]))
    return found.digest


def test_a_report_is_three_files_that_say_the_same(shelf: Shelf, measured: str) -> None:
    (found,) = reports(shelf.store, measured)
    again = msgspec.json.decode(attached(shelf.store, found.descriptor, MEDIA_TYPE), type=Run)
    assert again == found.run
    page = attached(shelf.store, found.descriptor, "text/markdown").decode()
    assert "| exact\\_match ↑ | 0.7216 |" in page
    assert "3 without an answer" in page
    assert "the endpoint failed" in page
    picture = attached(shelf.store, found.descriptor, "image/svg+xml").decode()
    assert "exact_match" in "".join(ElementTree.fromstring(picture).itertext())
    attach_report(shelf.store, "tiny", found.run)
    assert len(reports(shelf.store, measured)) == 1


def test_what_a_model_said_can_not_write_into_the_page() -> None:
    run = run_of(None, [True])
    record = msgspec.structs.replace(run.records[0], id="<script>|[x](y)\n# big", error="`a` | b")
    run = msgspec.structs.replace(run, suite="<b>", records=(record,))
    page = markdown(run)
    assert not re.search(r"(?<!\\)[<>]", page)
    assert "\n# big" not in page
    ElementTree.fromstring(chart(run))


def test_a_run_of_another_model_is_refused(shelf: Shelf, measured: str) -> None:
    with pytest.raises(InvalidRequest, match=r"measured sha256:.* and base is"):
        attach_report(shelf.store, "base", run_of(measured, [True]))
    with pytest.raises(InvalidRequest, match="does not say which artifact"):
        attach_report(shelf.store, "base", run_of(None, [True]))
    attach_report(shelf.store, "base", run_of(None, [True]), although=True)


def test_the_newest_report_of_each_suite_counts(shelf: Shelf, measured: str) -> None:
    for at, suite in ((2e9, "qa"), (1.5e9, "qa"), (1e9, "prose")):
        attach_report(shelf.store, "tiny", run_of(measured, share(90, 100), suite=suite, at=at))
    found = newest(reports(shelf.store, measured))
    assert [(each.run.suite, each.run.began) for each in found] == [("qa", 2e9), ("prose", 1e9)]
    with pytest.raises(NotFound, match="no report of suite 'x'"):
        report_of(shelf.store, measured, "x")


def test_a_bill_of_materials_is_valid_cyclonedx(shelf: Shelf, measured: str) -> None:
    validation = pytest.importorskip("cyclonedx.validation.json", reason="the schema's library is not installed")
    schema = pytest.importorskip("cyclonedx.schema")
    facts = gather(shelf.store, "tiny")
    data = bom(facts)
    validator = validation.JsonStrictValidator(schema.SchemaVersion.V1_6)
    assert validator.validate_str(data.decode()) is None
    assert bom(gather(shelf.store, "tiny")) == data
    found = json.loads(data)["metadata"]["component"]
    assert found["hashes"] == [{"alg": "SHA-256", "content": measured.partition(":")[2]}]
    assert found["licenses"] == [{"license": {"id": "Apache-2.0"}}]
    assert [each["name"] for each in found["pedigree"]["ancestors"]] == ["docker.io/ai/base:latest"]
    (metric,) = found["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert (metric["type"], metric["slice"]) == ("exact_match", "qa, n=97")
    assert found["modelCard"]["considerations"]["technicalLimitations"] == [
        "qa: exact_match: could not be computed for 3 of 100 items; what difference could be told is not known"
    ]
    bare = bom(gather(shelf.store, "base"))
    assert validator.validate_str(bare.decode()) is None


def test_a_card_is_read_by_the_library_of_the_hub(shelf: Shelf, measured: str) -> None:
    library = pytest.importorskip("huggingface_hub", reason="the hub's library is not installed")
    text = card(gather(shelf.store, "tiny"))
    data = library.ModelCard(text).data
    (result,) = data.eval_results
    assert (result.metric_type, round(result.metric_value, 4), data.license) == ("exact_match", 0.7216, "apache-2.0")
    assert data.base_model == ["docker.io/ai/base:latest"]
    assert "3 of 100 items had no answer" in text
    assert "No evaluation is attached" in card(gather(shelf.store, "base"))


def test_statements_are_valid_in_toto(shelf: Shelf, key: PrivateKey, measured: str) -> None:
    library = pytest.importorskip("in_toto_attestation.v1.statement", reason="in-toto's library is not installed")
    from google.protobuf.json_format import Parse
    from in_toto_attestation.v1 import statement_pb2

    signing.sign(shelf.store, "tiny", key)
    found = signing.signed(shelf.store, measured, [key.public])
    kinds = [each.statement.predicate_type for each in found if each.statement]
    assert set(kinds) == {statements.SIGNED, statements.FILES, statements.EVALUATED}
    for each in found:
        assert each.statement is not None
        parsed = Parse(statements.encode(each.statement), statement_pb2.Statement())  # type: ignore[attr-defined]
        library.Statement.copy_from_pb(parsed).validate()


def test_a_policy_may_ask_for_a_signed_report(shelf: Shelf, key: PrivateKey, measured: str) -> None:
    path = shelf.policy(keys=["release.pub"], reports=True)
    told = {each.rule: each for each in policy.check(shelf.store, measured, policy.read(path))}
    assert not told["reports"].ok
    signing.sign(shelf.store, "tiny", key)
    assert all(each.ok for each in policy.check(shelf.store, measured, policy.read(path)))
    (found,) = reports(shelf.store, measured)
    shelf.flip(shelf.store.parsed(found.descriptor.digest).layers[0].digest)  # type: ignore[union-attr]
    told = {each.rule: each for each in policy.check(Store(shelf.store.root), measured, policy.read(path))}
    assert not told["reports"].ok


def test_a_damaged_report_is_told(shelf: Shelf, measured: str, tmp_path: Path) -> None:
    from dockyard.errors import DigestMismatch

    (found,) = reports(shelf.store, measured)
    shelf.flip(shelf.store.parsed(found.descriptor.digest).layers[0].digest)  # type: ignore[union-attr]
    with pytest.raises(DigestMismatch):
        reports(shelf.store, measured)
