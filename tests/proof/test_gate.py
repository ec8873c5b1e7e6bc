"""Gates: what passes, what fails and why, the tag that a pass gives, and the verdict that a policy asks for."""

from __future__ import annotations

from pathlib import Path

import pytest
from proof_runs import run_of, share
from proof_shelf import Shelf

from dockyard.artifact.manifest import Lineage, Parent
from dockyard.artifact.proof import policy, signing
from dockyard.artifact.proof.keys import PrivateKey
from dockyard.errors import InvalidRequest, ModelNotFound, NotFound
from dockyard.ops import gate as gates
from dockyard.ops.gate import Decision, Given
from dockyard.ops.report import attach_report

QA = "{metric: exact_match, max_loss: 5%}"


def _gate(shelf: Shelf, *rules: str, more: str = "") -> Path:
    path = shelf.folder / "gate.yaml"
    path.write_text(more + "rules:\n" + "".join(f"  - {rule}\n" for rule in rules))
    return path


def _pair(shelf: Shelf, before: list[bool | None], after: list[bool | None]) -> tuple[str, str]:
    """A parent and its child, each with a report."""
    base = shelf.put("base", b"base")
    child = shelf.put("tiny:candidate", lineage=Lineage(parents=(Parent(digest=base.digest),)))
    attach_report(shelf.store, "base", run_of(base.digest, before))
    attach_report(shelf.store, child.digest, run_of(child.digest, after))
    return base.digest, child.digest


def _decide(shelf: Shelf, path: Path, given: Given | None = None) -> Decision:
    gate, digest = gates.read(path)
    return gates.decide(shelf.store, "tiny:candidate", gate, digest=digest, given=given)


def test_the_same_answers_pass_and_get_the_tag(shelf: Shelf) -> None:
    _, child = _pair(shelf, [*share(80, 100)], [*share(80, 100)])
    done = _decide(shelf, _gate(shelf, QA, "{metric: ttft_p95, max: 0.3}"), Given(tag="approved"))
    assert done.passed
    assert done.tag == "docker.io/ai/tiny:approved"
    assert shelf.store.resolve("tiny:approved").digest == child


def test_a_worse_one_fails_with_the_rule_and_gets_no_tag(shelf: Shelf) -> None:
    _pair(shelf, [*share(80, 100)], [*share(60, 100)])
    done = _decide(shelf, _gate(shelf, QA, "{metric: exact_match, min: 0.4}"), Given(tag="approved"))
    assert [each.rule for each in done.failed] == ["exact_match max_loss 5%"]
    assert "the loss may be more than 0.05" in done.failed[0].told
    with pytest.raises(ModelNotFound):
        shelf.store.resolve("tiny:approved")


def test_a_difference_that_only_happens_to_be_small_passes_nothing(shelf: Shelf) -> None:
    before = share(15, 20)
    after = before.copy()
    after[after.index(True)], after[after.index(False)] = False, True
    _pair(shelf, [*before], [*after])
    (outcome,) = _decide(shelf, _gate(shelf, QA)).outcomes
    assert outcome.value == 0.0
    assert not outcome.passed


def test_few_items_promise_nothing_though_all_answers_are_the_same(shelf: Shelf) -> None:
    _pair(shelf, [*share(12, 12)], [*share(12, 12)])
    (outcome,) = _decide(shelf, _gate(shelf, QA)).outcomes
    assert outcome.value == 0.0
    assert outcome.low is not None
    assert outcome.low < -0.1
    assert not outcome.passed


def test_a_gain_must_be_certain(shelf: Shelf) -> None:
    before = share(60, 200)
    _pair(shelf, [*before], [each or number % 2 == 0 for number, each in enumerate(before)])
    assert _decide(shelf, _gate(shelf, "{metric: exact_match, min_gain: 10%}")).passed
    assert not _decide(shelf, _gate(shelf, "{metric: exact_match, min_gain: 300%}")).passed


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("{metric: bleu, min: 0.1}", "bleu is missing: no report has it"),
        ("{metric: exact_match, suite: other, min: 0.1}", "no report of suite 'other' has it"),
        ("{metric: exact_match, min: 0.79}", "not for certain at least 0.79"),
        ("{metric: ttft_p95, max: 0.1}", "not for certain at most 0.1"),
        ("{metric: ttft_p95, max_loss: 5%}", "no items to compare"),
    ],
)
def test_what_can_not_be_decided_fails(shelf: Shelf, rule: str, told: str) -> None:
    _pair(shelf, [*share(80, 100)], [*share(80, 100)])
    (outcome,) = _decide(shelf, _gate(shelf, rule)).failed
    assert told in outcome.told


def test_items_that_failed_fail_the_rule_unless_they_may(shelf: Shelf) -> None:
    _pair(shelf, [*share(80, 100)], [*share(80, 100)[:97], None, None, None])
    (outcome,) = _decide(shelf, _gate(shelf, "{metric: exact_match, min: 0.1}")).failed
    assert outcome.told == "3 of 100 items failed, and 0 may"
    assert _decide(shelf, _gate(shelf, "{metric: exact_match, min: 0.1, max_errors: 3}")).passed
    assert _decide(shelf, _gate(shelf, "{metric: exact_match, max_loss: 9%, max_errors: 3}")).passed


def test_a_parent_without_report_fails_and_no_parent_is_an_error(shelf: Shelf) -> None:
    base = shelf.put("base", b"base")
    child = shelf.put("tiny:candidate", lineage=Lineage(parents=(Parent(digest=base.digest),)))
    attach_report(shelf.store, child.digest, run_of(child.digest, [*share(80, 100)]))
    (outcome,) = _decide(shelf, _gate(shelf, QA)).failed
    assert outcome.told == "what it is compared with has no report of qa"
    with pytest.raises(InvalidRequest, match="names no parent"):
        gates.decide(shelf.store, "base", gates.read(_gate(shelf, QA))[0])
    named = Given(against="tiny:candidate")
    gate, _ = gates.read(_gate(shelf, QA))
    attach_report(shelf.store, "base", run_of(base.digest, [*share(80, 100)]))
    assert gates.decide(shelf.store, "base", gate, given=named).passed
    alone, _ = gates.read(_gate(shelf, "{metric: exact_match, min: 0.1}"))
    with pytest.raises(ModelNotFound):
        gates.decide(shelf.store, "base", alone, given=Given(against="nobody"))


def test_where_keys_are_trusted_only_their_reports_count(shelf: Shelf, key: PrivateKey) -> None:
    base, child = _pair(shelf, [*share(80, 100)], [*share(80, 100)])
    gate, _ = gates.read(_gate(shelf, QA))
    trusted = Given(trusted=(key.public,))
    (outcome,) = gates.decide(shelf.store, child, gate, given=trusted).failed
    assert "exact_match is missing" in outcome.told
    for digest, right in ((base, 80), (child, 40)):
        attach_report(shelf.store, digest, run_of(digest, [*share(right, 100)], at=5e8), key=key)
    assert gates.decide(shelf.store, child, gate).passed
    (outcome,) = gates.decide(shelf.store, child, gate, given=trusted).failed
    assert outcome.value == -0.5


def test_runs_may_be_handed_in(shelf: Shelf) -> None:
    found = shelf.put("tiny:candidate")
    run, other = run_of(found.digest, [*share(80, 100)]), run_of(None, [*share(80, 100)])
    gate, _ = gates.read(_gate(shelf, QA))
    given = Given(runs=(run,), others=(other,), against="tiny:candidate", record=False)
    assert gates.decide(shelf.store, "tiny:candidate", gate, given=given).passed
    assert shelf.store.referrers(found.digest) == []


def test_a_policy_asks_for_the_newest_signed_verdict_of_just_these_rules(shelf: Shelf, key: PrivateKey) -> None:
    _, child = _pair(shelf, [*share(80, 100)], [*share(80, 100)])
    path = _gate(shelf, QA)
    rules = shelf.policy(keys=["release.pub"], signature=False, gates=[{"file": "gate.yaml"}])

    def failed() -> list[str]:
        return [each.told for each in policy.check(shelf.store, child, policy.read(rules)) if not each.ok]

    _decide(shelf, path)
    assert failed() == ["there is no signed verdict of these rules"]
    _decide(shelf, path, Given(key=key))
    assert failed() == []
    statement = next(each.statement for each in signing.signed(shelf.store, child, [key.public]) if each.statement)
    assert statement.predicate["result"] == "PASSED"
    assert statement.predicate["passedTests"] == ["exact_match max_loss 5%"]
    path.write_text(path.read_text() + "# other rules\n")
    assert failed() == ["there is no signed verdict of these rules"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rules: []", "length >= 1"),
        ("rules: [{metric: x}]", "asks for nothing"),
        ("rules: [{metric: x, max_loss: much}]", "'much' is no share"),
        ("rules: [{metric: x, min: 1, most: 2}]", "unknown field `most`"),
        ("rules: [", r"gate\.yaml"),
    ],
)
def test_a_gate_that_is_wrong_says_where(shelf: Shelf, text: str, told: str) -> None:
    path = shelf.folder / "gate.yaml"
    path.write_text(text)
    with pytest.raises(InvalidRequest, match=told):
        gates.read(path)
    with pytest.raises(NotFound, match="there is no gate"):
        gates.read(shelf.folder / "none.yaml")
