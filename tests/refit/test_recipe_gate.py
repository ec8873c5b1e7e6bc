"""A recipe's name is given on a pass alone: what it made is served, measured, and held against what it asks for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dockyard.cli import call
from dockyard.cli._connect import open_store
from dockyard.errors import ModelNotFound
from dockyard.ops.report import reports

SUITE = """name: exam
data: exam.jsonl
prompt: "{q}"
reference: a
parameters: {max_tokens: 12, temperature: 0}
scorers: [f1]
"""
RECIPE = """name: talks
base: half
data: {talks: {from: talks.jsonl}}
steps: [{tune: {data: talks, steps: 1, batch: 1, length: 64, rank: 2, threads: 1}}]
evaluate: [exam.yaml]
gate: {rules: [{metric: f1, BOUND}]}
publish: talks:good
"""


def _lines(path: Path, *records: object) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_the_name_is_given_on_a_pass_alone(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An adapter of one step, and its base: once too little is asked of it, once too much."""
    assert call(["package", str(tiny_folder), "tiny"]) == 0
    assert call(["convert", "tiny", "half", "--to", "gguf"]) == 0
    _lines(tmp_path / "talks.jsonl", *({"prompt": f"Ship {n}?", "completion": f"Berth {n}."} for n in range(3)))
    _lines(tmp_path / "exam.jsonl", {"q": "What is the cost?", "a": "seven"}, {"q": "Say 7.", "a": "7"})
    (tmp_path / "exam.yaml").write_text(SUITE)
    path = tmp_path / "recipe.yaml"
    store = open_store()
    path.write_text(RECIPE.replace("BOUND", "min: 1.1"))
    capsys.readouterr()
    assert call(["recipe", "run", str(path)]) == 5
    assert "no name was given" in capsys.readouterr().out
    with pytest.raises(ModelNotFound):
        store.resolve("talks:good")
    path.write_text(RECIPE.replace("BOUND", "max: 1.1"))
    assert call(["recipe", "run", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["decision"]["passed"]
    assert all(step["reused"] for step in found["steps"])
    assert store.resolve("talks:good").digest == found["digest"]
    assert {each.run.subject.digest for each in reports(store, found["digest"])} == {found["digest"]}
