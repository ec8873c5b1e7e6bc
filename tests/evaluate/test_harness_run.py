"""Tasks of lm-evaluation-harness, end to end on what is served, where the harness is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from evaluate_help import dockyard

from dockyard.client import running

ROWS = [
    {"q": "The sky is", "c": ["blue", "a spoon"], "r": 0, "a": "The sky is"},
    {"q": "Two and two make", "c": ["yellow", "four"], "r": 1, "a": "five"},
]
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {kind}
{rest}
"""
CHOICE = """
doc_to_text: "{{q}}"
doc_to_choice: c
doc_to_target: r
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
TEXT = """
doc_to_text: ""
doc_to_target: "{{q}}"
metric_list: [{metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}]
"""
SAID = """
doc_to_text: "{{q}}"
doc_to_target: "{{a}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 8}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
KINDS = {
    "choice": ("multiple_choice", CHOICE),
    "text": ("loglikelihood_rolling", TEXT),
    "said": ("generate_until", SAID),
}


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed")
def test_tasks_of_files_run_on_what_is_served(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    files = []
    for name, (kind, rest) in KINDS.items():
        path = tmp_path / f"{name}.yaml"
        path.write_text(TASK.format(name=f"dockyard_{name}", data=data, kind=kind, rest=rest))
        files.append(str(path))
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    command = [sys.executable, "-m", "dockyard", "eval", "harness", "echo", *files, "--json"]
    done = subprocess.run(
        command, env={**os.environ, **offline, "DOCKYARD_HOME": str(tmp_path / "home")}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "overrides existing task" not in done.stderr
    told = json.loads(done.stdout)
    assert told["dockyard_said"]["exact_match"] == 0.5  # it repeats the question
    assert 0 <= told["dockyard_choice"]["acc"] <= 1
    assert told["dockyard_text"]["word_perplexity"] >= 1


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed")
def test_files_that_are_not_there_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dockyard("eval", "harness", "echo", "hellaswag", "--files", tmp_path / "lost") == 3
    assert "lost: there is no such file" in capsys.readouterr().err
    (tmp_path / "task.yaml").write_text("output_type: multiple_choice\n")
    # Told before anybody is asked: the address is nobody's.
    assert dockyard("eval", "harness", "echo", tmp_path / "task.yaml", "--host", "http://127.0.0.1:9") == 2
    assert "task.yaml: no `task:` names it" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed")
@pytest.mark.parametrize("signal_", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_that_was_started_for_the_tasks_ends_with_the_command(
    tmp_path: Path, signal_: signal.Signals
) -> None:
    command = [sys.executable, "-m", "dockyard", "eval", "harness", "echo", "hellaswag"]
    child = subprocess.Popen(
        command,
        env={**os.environ, "DOCKYARD_HOME": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    until = time.monotonic() + 60
    while (found := running(tmp_path)) is None:  # the harness takes longer to be imported than that
        assert child.poll() is None
        assert time.monotonic() < until
        time.sleep(0.01)
    server = psutil.Process(found.pid)
    child.send_signal(signal_)
    child.wait()
    psutil.wait_procs([server], timeout=30)
    assert not server.is_running()
    assert running(tmp_path) is None
