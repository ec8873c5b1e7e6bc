"""``dockyard eval`` as a user calls it, against what is served."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from evaluate_help import dockyard, scripted, suite

ROWS = [{"q": f"say {n}", "a": f"say {n}" if n % 4 else "other"} for n in range(8)]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCKYARD_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def told(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_a_run_is_measured_kept_shown_and_compared(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = suite(tmp_path / "s", ROWS, scorers=["exact-match", "f1", "chrf"], parameters={"max_tokens": 20})
    assert dockyard("eval", "run", path, "echo", "--json") == 0
    run = told(capsys)["runs"][0]
    figures = {each["metric"]["name"]: each for each in run["aggregates"]}
    assert figures["exact_match"]["value"] == 0.75
    assert figures["exact_match"]["interval"]["method"] == "wilson"
    assert figures["chrf"]["metric"]["signature"].startswith("nrefs:1|")
    assert (figures["f1"]["n"], figures["f1"].get("errors", 0)) == (8, 0)
    assert run["records"][0]["answer"]["text"] == "say 0"
    assert (home / "evaluations" / f"{run['id']}.json").is_file()
    assert dockyard("eval", "run", path, "echo", "--json") == 0
    assert told(capsys)["runs"][0]["began"] == run["began"]  # kept, not measured again
    assert dockyard("eval", "run", path, "echo", "--repeat", "1") == 0
    shown = capsys.readouterr().out
    assert "exact_match" in shown
    assert "contamination: not checked" in shown
    assert dockyard("eval", "ls", "--json") == 0
    first, second = [each["id"] for each in told(capsys)["runs"]]
    assert dockyard("eval", "compare", first, second[:6]) == 0
    assert "cannot be told apart" in capsys.readouterr().out
    assert dockyard("eval", "show", first, "--items") == 0
    assert "answer: say 3" in capsys.readouterr().out
    assert dockyard("eval", "compare", first) == 3  # no parent


def test_a_third_of_the_items_failing_is_told_and_never_averaged_away(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"q": f"say {n}", "a": "yes"} for n in range(9)]
    path = suite(tmp_path / "s", rows)
    failing = True

    def rule(prompt: str) -> str | int:
        return 500 if failing and int(prompt[-1]) % 3 == 0 else "yes"

    with scripted(rule) as server:
        assert dockyard("eval", "run", path, "some", "--host", server.url, "--json") == 1
        run = told(capsys)["runs"][0]
        (figure,) = run["aggregates"]
        assert (figure["value"], figure["n"], figure["errors"], run["errors"]) == (1.0, 6, 3, 3)
        assert [bool(each.get("error")) for each in run["records"]] == [n % 3 == 0 for n in range(9)]
        assert dockyard("eval", "show", run["id"], "--failed") == 0
        assert "3 of 9 items got no answer" in capsys.readouterr().out
        failing = False
        asked = len(server.asked)
        assert dockyard("eval", "run", path, "some", "--host", server.url, "--retry", "--json") == 0
        assert told(capsys)["runs"][0]["aggregates"][0]["n"] == 9
        assert len(server.asked) == asked + 3


def test_a_run_that_is_killed_goes_on_where_it_was(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = suite(tmp_path / "s", [{"q": f"say {n}", "a": "yes"} for n in range(30)])
    with scripted(lambda _: "yes", seconds=0.05) as server:
        words = ["eval", "run", str(path), "some", "--host", server.url, "--json", "--together", "2"]
        child = subprocess.Popen(
            [sys.executable, "-m", "dockyard", *words],
            env={**os.environ, "DOCKYARD_HOME": str(home)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        until = time.monotonic() + 60
        while time.monotonic() < until and len(server.asked) < 8:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        child.wait()
        (journal,) = (home / "evaluations").glob("*.journal")
        finished = [json.loads(line)["id"] for line in journal.read_text().splitlines()[1:]]
        assert 0 < len(finished) < 30
        with journal.open("a") as file:
            file.write('{"id": "cut in the mid')
        time.sleep(0.2)
        assert dockyard("eval", "ls") == 0
        assert "stopped, or under way" in capsys.readouterr().err
        before = len(server.asked)
        assert dockyard(*words) == 0
        assert told(capsys)["runs"][0]["aggregates"][0]["n"] == 30
        again = server.asked[before:]
        assert len(again) == 30 - len(finished)
        assert not {f"say {int(each) - 1}" for each in finished} & set(again)
        assert not list((home / "evaluations").glob("*.journal"))


def test_a_server_that_goes_away_ends_the_run_and_leaves_what_it_found(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dockyard.ops.evaluate.run.ATTEMPTS", 1)  # no waiting for it to come back
    path = suite(tmp_path / "s", [{"q": f"say {n}", "a": "yes"} for n in range(40)])
    there = False
    with scripted(lambda prompt: "yes" if there or int(prompt[4:]) < 9 else 0) as server:
        words = ("eval", "run", path, "some", "--json", "--together", "1", "--host", server.url)
        assert dockyard(*words) == 4
        assert "error:" in capsys.readouterr().err
        (journal,) = (home / "evaluations").glob("*.journal")
        assert len(journal.read_text().splitlines()) == 1 + 9
        assert len(server.asked) < 20
        there = True
        assert dockyard(*words) == 0
        assert told(capsys)["runs"][0]["aggregates"][0]["n"] == 40


def test_a_scorer_that_breaks_is_a_record(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("by nought")

    monkeypatch.setattr("dockyard.scorers.f1.F1.score", broken)
    path = suite(tmp_path / "s", ROWS, scorers=["exact-match", "f1"])
    assert dockyard("eval", "run", path, "echo", "--json") == 1
    right, wrong = told(capsys)["runs"][0]["aggregates"]
    assert (right["n"], wrong["value"], wrong["errors"]) == (8, None, 8)


def test_the_harness_says_how_it_is_installed(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)  # as where it is not installed
    assert dockyard("eval", "harness", "echo", "hellaswag") == 1
    assert "pip install 'dockyard[harness]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fields", "rows", "says"),
    [
        ({"scorers": ["exact-mach"]}, ROWS, "no scorer 'exact-mach'"),
        ({"prompt": "{question}"}, ROWS, "data.jsonl:1: there is no column 'question'"),
        ({"reference": "b"}, [*ROWS, {"q": "x"}], "data.jsonl:1: there is no column 'b'"),
        ({"reference": "a"}, [ROWS[0], {"q": "x"}], "data.jsonl:2: there is no column 'a'"),
        ({"scorers": [{"regex": {"patern": "x"}}]}, ROWS, "patern"),
        ({"scorers": [{"regex": {"pattern": "("}}]}, ROWS, "no regular expression"),
        ({"scorers": ["exact-match", "exact-match"]}, ROWS, "two scorers have a metric"),
        ({"reference": None}, ROWS, "scorer 'exact-match' compares with right answers, and there are none"),
        ({"scorers": ["multiple-choice"]}, ROWS, "neither `choices` nor `text`"),
        ({"promt": "x"}, ROWS, "promt"),
        ({"data": "none.jsonl"}, ROWS, "there is no such file"),
        ({"id": "q"}, [ROWS[1], ROWS[1]], "data.jsonl:2: the id 'say 1' is that of line 1"),
        ({"choices": ["x", "y"], "label": "a"}, ROWS, "is none of the 2 choices"),
        ({}, [], "there is no item"),
    ],
)
def test_a_wrong_suite_is_refused_before_anything_is_asked(
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    fields: dict[str, Any],
    rows: list[dict[str, Any]],
    says: str,
) -> None:
    assert dockyard("eval", "run", suite(tmp_path / "s", rows, **fields), "echo") in (1, 2, 3)
    assert says in capsys.readouterr().err
    assert not list(home.glob("evaluations/*.json"))


def test_a_suite_travels_as_an_artifact(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = suite(tmp_path / "s", ROWS)
    assert dockyard("eval", "push", path, "suites/test:v1", "--local", "--json") == 0
    digest = told(capsys)["digest"]
    assert dockyard("eval", "run", "suites/test:v1", "echo", "--json") == 0
    by_name = told(capsys)["runs"][0]
    assert dockyard("eval", "run", path, "echo", "--json") == 0
    assert told(capsys)["runs"][0]["id"] == by_name["id"]  # wherever it lies, it is the same suite
    assert dockyard("eval", "push", path, "suites/test:v2", "--local", "--json") == 0
    assert told(capsys)["digest"] == digest
    capsys.readouterr()
    assert dockyard("eval", "run", "suites/tset:v1", "echo") == 3
    assert "did you mean suites/test:v1 or suites/test:v2?" in capsys.readouterr().err
    assert dockyard("eval", "run", path.parent / "siute.yaml", "echo") == 3
    assert f"did you mean {path}?" in capsys.readouterr().err
    assert dockyard("eval", "run", "nothing-like-it", "echo") == 3
    assert "`dockyard pull` fetches one" in capsys.readouterr().err
    assert dockyard("eval", "push", path, "localhost:1/x:y") == 4


def test_speed_and_likeness_of_meaning(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = suite(tmp_path / "s", ROWS[1:3], scorers=[{"similarity": {"model": "echo"}}])
    assert dockyard("eval", "run", path, "echo", "--speed", "--json") == 0
    run = told(capsys)["runs"][0]
    assert run["aggregates"][0]["value"] == pytest.approx(1.0)
    assert run["aggregates"][0]["metric"]["signature"] == "model:echo"
    assert (run["performance"]["answers"], run["performance"]["failed"]) == (12, 0)
    assert run["performance"]["load"]["streams"] == 4
    assert dockyard("eval", "show", run["id"]) == 0
    assert "speed: throughput" in capsys.readouterr().out


def test_a_kept_run_is_given_what_is_asked_for_later(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = suite(tmp_path / "s", ROWS[:2])
    assert dockyard("eval", "run", path, "echo", "--json") == 0
    first = told(capsys)["runs"][0]
    assert "performance" not in first
    (tmp_path / "seen.jsonl").write_text('{"text": "nothing of it"}\n')
    assert dockyard("eval", "run", path, "echo", "--speed", "--trained-on", tmp_path / "seen.jsonl", "--json") == 0
    capsys.readouterr()
    assert dockyard("eval", "show", first["id"], "--json") == 0
    kept = told(capsys)
    assert (kept["records"], kept["began"]) == (first["records"], first["began"])
    assert kept["performance"]["answers"] == 12
    assert "0 of 2 items share" in kept["contamination"]["note"]


def test_items_that_were_trained_on_are_named(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = "what is the name of the harbour where the ferry with the blue mast lies"
    path = suite(tmp_path / "s", [{"q": long, "a": "x"}, {"q": "say 1", "a": "say 1"}])
    (tmp_path / "seen.jsonl").write_text(json.dumps({"text": f"Tell me: {long}? I do not know."}) + "\n")
    assert dockyard("eval", "run", path, "echo", "--trained-on", tmp_path / "seen.jsonl", "--json") == 0
    seen = told(capsys)["runs"][0]["contamination"]
    assert seen["items"] == ["1"]
    assert "1 of 2 items" in seen["note"]
    assert "too short to be looked for: 1" in seen["note"]
    assert dockyard("eval", "run", path, "echo", "--trained-on", "lost.jsonl") == 3
    assert "lost.jsonl is neither a file nor a data set" in capsys.readouterr().err


def test_each_item_of_a_text_that_was_trained_on_counts(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    things = ["harbour", "ferry", "lighthouse", "crane", "anchor", "keel"]
    asked = "please answer in one word and in no more than one word where you find the {q} that {q} {q} {q} built"
    path = suite(tmp_path / "s", [{"q": each, "a": "x"} for each in things], prompt=asked)
    seen = " and ".join(asked.replace("{q}", each) for each in things[:2])
    (tmp_path / "seen.jsonl").write_text(json.dumps({"text": f"{seen}, {asked.replace('{q}', 'oar')}"}) + "\n")
    assert dockyard("eval", "run", path, "echo", "--trained-on", tmp_path / "seen.jsonl", "--json") == 0
    assert told(capsys)["runs"][0]["contamination"]["items"] == ["1", "2"]  # and not all, which begin alike


def test_two_models_are_compared_and_a_difference_is_found(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = suite(tmp_path / "s", [{"q": f"say {n}", "a": "yes"} for n in range(40)])
    with scripted(lambda prompt: "yes" if int(prompt.split()[1]) % 10 else "no") as good:
        assert dockyard("eval", "run", path, "good", "--host", good.url, "--json", "--together", "8") == 0
        first = told(capsys)["runs"][0]["id"]
    with scripted(lambda prompt: "yes" if int(prompt.split()[1]) % 2 else "no") as worse:
        assert dockyard("eval", "run", path, "worse", "--host", worse.url, "--json", "--together", "8") == 0
        second = told(capsys)["runs"][0]["id"]
    assert dockyard("eval", "compare", second, first) == 0
    assert "exact_match: worse: 0.9 → 0.5 (-0.4, -44.4%" in capsys.readouterr().out


def test_a_log_for_inspect(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = suite(tmp_path / "s", ROWS, scorers=["exact-match", "bleu"])
    assert dockyard("eval", "run", path, "echo", "--json") == 0
    run = told(capsys)["runs"][0]
    assert dockyard("eval", "export", run["id"], tmp_path / "log.json") == 0
    log = json.loads((tmp_path / "log.json").read_text())
    assert (log["version"], log["status"], log["results"]["total_samples"]) == (2, "success", 8)
    assert log["samples"][1]["scores"]["exact_match"]["value"] == 1.0
    assert log["samples"][1]["output"]["choices"][0]["message"]["content"] == "say 1"
    assert dockyard("eval", "export", run["id"], tmp_path / "lost" / "log.json") == 2
    assert "lost/log.json: No such file or directory" in capsys.readouterr().err
    pytest.importorskip("inspect_ai", reason="inspect-ai is not installed").log.read_eval_log(
        str(tmp_path / "log.json")
    )
