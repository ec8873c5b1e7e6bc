"""The verbs, as a person uses them: attach, look, decide, sign, verify."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from proof_runs import run_of, share
from proof_shelf import Shelf

from dockyard.artifact.manifest import Lineage, Parent
from dockyard.cli import call
from dockyard.ops.evaluate.result import write


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """A parent and a candidate in this home's store, and their runs in files."""
    monkeypatch.setenv("DOCKYARD_HOME", str(tmp_path / "home"))
    shelf = Shelf(tmp_path / "home")
    base = shelf.put("base", b"base")
    child = shelf.put("tiny:candidate", lineage=Lineage(parents=(Parent(digest=base.digest),)))
    write(run_of(base.digest, [*share(80, 100)]), tmp_path / "base.json")
    write(run_of(child.digest, [*share(80, 100)]), tmp_path / "tiny.json")
    (tmp_path / "gate.yaml").write_text("rules: [{metric: exact_match, max_loss: 5%}]\n")
    monkeypatch.chdir(tmp_path)
    return shelf


def _json(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> object:
    assert call([*words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_from_a_run_to_a_name_that_counts(home: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["report", "attach", "base", "./base.json"]) == 0
    assert call(["gate", "tiny:candidate", "-f", "gate.yaml", "--tag", "approved"]) == 5
    told = capsys.readouterr().out
    assert "FAILED  exact_match max_loss 5%: exact_match is missing" in told
    assert "no name was given" in told
    assert call(["report", "attach", "tiny:candidate", "./tiny.json", "--sign"]) == 0
    assert call(["gate", "tiny:candidate", "-f", "gate.yaml", "--tag", "approved", "--sign"]) == 0
    assert "is now docker.io/ai/tiny:approved" in capsys.readouterr().out
    assert call(["sign", "tiny:approved"]) == 0
    policy = Path("policy.yaml")
    policy.write_text("keys: [home/signing.pub]\ngates: [{file: gate.yaml}]\nreports: true\n")
    capsys.readouterr()
    found = _json(capsys, "verify", "tiny:approved", "--policy", "policy.yaml")
    assert isinstance(found, dict)
    assert [each["rule"] for each in found["rules"]] == ["content", "signature", "files", "gate gate.yaml", "reports"]
    assert found["satisfied"]
    kinds = [each["kind"] for each in _json(capsys, "report", "ls", "tiny:approved")]  # type: ignore[attr-defined]
    assert sorted(set(kinds)) == ["gate", "report", "signature"]
    assert call(["report", "show", "tiny:approved"]) == 0
    assert capsys.readouterr().out.startswith("# qa: tiny\n")


def test_verify_fails_with_exit_code_5_and_names_the_rule(home: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["verify", "base"]) == 2
    assert "there is no key" in capsys.readouterr().err
    assert call(["sign", "tiny:candidate"]) == 0
    assert call(["verify", "tiny:candidate"]) == 0
    assert call(["verify", "base"]) == 5
    capsys.readouterr()
    found = home.store.parsed(home.store.resolve("tiny:candidate").digest)
    home.flip(found.layers[0].digest)  # type: ignore[union-attr]
    told = _json(capsys, "verify", "tiny:candidate", code=5)
    assert isinstance(told, dict)
    assert [each["rule"] for each in told["rules"] if not each["ok"]] == ["content"]


def test_card_and_bill_are_printed_and_attached(home: Shelf, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["report", "card", "tiny:candidate", "--attach"]) == 0
    assert "# tiny" in capsys.readouterr().out
    assert call(["report", "bom", "tiny:candidate", "--attach"]) == 0
    assert json.loads(capsys.readouterr().out)["specVersion"] == "1.6"
    assert [each["kind"] for each in _json(capsys, "report", "ls", "tiny:candidate")] == ["card", "bom"]  # type: ignore[attr-defined]


def test_a_policy_in_the_settings_keeps_an_unsigned_model_from_being_loaded(
    home: Shelf, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call(["sign", "tiny:candidate"])
    Path("policy.yaml").write_text("keys: [home/signing.pub]\n")
    monkeypatch.setenv("DOCKYARD_POLICY", "policy.yaml")
    capsys.readouterr()
    assert call(["run", "base", "hello"]) == 5
    assert "base does not satisfy the policy policy.yaml: signature: not signed" in capsys.readouterr().err
    assert call(["report", "card", "base"]) == 0


def test_the_policy_of_a_stack_does_the_same(
    home: Shelf, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call(["sign", "tiny:candidate"])
    Path("policy.yaml").write_text("keys: [home/signing.pub]\n")
    Path("dockyard.yaml").write_text("models: {small: base}\npolicy: policy.yaml\n")
    monkeypatch.setenv("DOCKYARD_STACK", "dockyard.yaml")
    capsys.readouterr()
    assert call(["run", "base", "hello"]) == 5
    told = capsys.readouterr().err
    assert "base does not satisfy the policy" in told
    assert "signature: not signed" in told
