"""The search for a better prompt: it finds what is better, says so only where it can tell, and names a wrong line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dockyard.cli import call
from dockyard.prompt.model import read
from dockyard.prompt.optimize import verdict


def test_a_difference_is_told_only_where_its_interval_says_so() -> None:
    clear = verdict([0.0] * 40, [1.0] * 30 + [0.0] * 10, 0)
    assert (clear.difference, clear.better) == (0.75, "yes")
    assert clear.low > 0.5
    assert verdict([1.0] * 40, [0.0] * 40, 0).better == "no"
    assert verdict([0.0, 1.0] * 20, [1.0, 0.0] * 20, 0).better == "cannot tell"


def test_where_nothing_is_better_the_prompt_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # The echo engine repeats the question whatever the instruction says, so no candidate can be better.
    (tmp_path / "p.yaml").write_text("task: Repeat.\nparameters: {temperature: 0}\n")
    rows = [{"input": f"word {number}", "output": f"word {number}"} for number in range(18)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "wordings.txt").write_text("Say {{ it }} again.\n")
    words = ["prompt", "optimize", str(tmp_path / "p.yaml"), "--data", str(tmp_path / "rows.jsonl"), "-m", "echo"]
    words += ["--instructions", str(tmp_path / "wordings.txt"), "--out", str(tmp_path / "out.yaml"), "--json"]
    assert call(words) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["name"], told["failed"]) == ("as it was", 0)
    assert (told["held_out"]["before"], told["held_out"]["difference"]) == (1.0, 0.0)
    assert (told["held_out"]["asked"], told["held_out"]["better"]) == (6, "cannot tell")
    assert len(told["race"]) > 4
    assert read((tmp_path / "out.yaml").read_text()).task == "Repeat."


def test_a_wrong_line_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.yaml").write_text("task: x\n")
    (tmp_path / "rows.jsonl").write_text('{"input": "a", "output": "b"}\n{"input": "c"}\n')
    assert (
        call(["prompt", "optimize", str(tmp_path / "p.yaml"), "--data", str(tmp_path / "rows.jsonl"), "-m", "echo"])
        == 2
    )
    assert "line 2" in capsys.readouterr().err
