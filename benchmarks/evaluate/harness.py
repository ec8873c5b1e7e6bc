"""Perplexity and multiple choice of a served model against lm-evaluation-harness's own ``hf`` backend.

The same weights in float32 (a GGUF that llama.cpp serves, a folder that transformers loads), the same items, and the
harness's own backend on the one side; ours, the harness over our server, and ``local-completions`` on the other. Two
implementations of one network differ by rounding, so what may differ is said: 1e-4 of the log-probabilities. A
perplexity is the exponential of a sum of those, so its logarithm is compared, and how far the figures themselves are
apart is told.

Nearly all of what differs is one thing. llama.cpp's server adds up the exponentials of a whole vocabulary in float32,
from the largest down, where the smallest no longer change the sum: every probability comes out a little too high, by
1.5e-4 nats a token for this model (the same sum made of transformers' logits loses 1.6e-4, token by token alike).
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks._bars import Row
from benchmarks._serving import dockyard, post
from benchmarks.evaluate._material import (
    LM_EVAL,
    as_folder,
    environment,
    full_precision,
    questions,
    starter,
    texts,
    write_lines,
)
from dockyard.cli import call

TOLERANCE = 1e-4
BEGIN = "<|im_start|>"
ITEMS, TEXTS = 60, 8
FLOAT32 = {"llamacpp.cache_type_k": "f32", "llamacpp.cache_type_v": "f32", "llamacpp.flash_attn": "off"}
"""So that keys and values are no shorter on the one side than on the other: llama.cpp's own default halves them."""

TOGETHER = 4
"""Requests of the harness at once, as ours are: a prompt is scored as slowly as an answer of its length is written, and
of weights in float32 four answers take little longer than one."""

CHOICE_TASK = """
task: dockyard_choice
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: label
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
"""
TEXT_TASK = """
task: dockyard_text
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
  - {{metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}}
  - {{metric: byte_perplexity, aggregation: weighted_perplexity, higher_is_better: false}}
  - {{metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}}
"""
CHOICE_SUITE = {
    "name": "choice",
    "data": "choice.jsonl",
    "prompt": "{question}",
    "choices": "choices",
    "label": "label",
    "scorers": ["multiple-choice"],
}
TEXT_SUITE = {"name": "text", "data": "text.jsonl", "text": "text", "prefix": BEGIN, "scorers": ["perplexity"]}
NAMES = ("acc", "acc_norm", "word_perplexity", "byte_perplexity", "bits_per_byte")


def rows() -> Iterator[Row]:
    program = environment("lm-eval", LM_EVAL, "lm_eval", shared=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        weights = starter(folder)
        full, transformers = full_precision(weights), as_folder(weights)
        write_lines(folder / "choice.jsonl", questions(ITEMS))
        write_lines(folder / "text.jsonl", texts(TEXTS))
        (folder / "choice.yaml").write_text(json.dumps(CHOICE_SUITE))
        (folder / "text.yaml").write_text(json.dumps(TEXT_SUITE))
        tasks = folder / "tasks"
        tasks.mkdir()
        (tasks / "choice.yaml").write_text(CHOICE_TASK.format(data=folder / "choice.jsonl"))
        (tasks / "text.yaml").write_text(TEXT_TASK.format(data=folder / "text.jsonl"))
        theirs = _harness(program, folder, "hf", f"pretrained={transformers},dtype=float32")
        home = folder / "home"
        _quietly(home, "package", str(full), "full")
        with dockyard(home) as (url, _):
            post(f"{url}/api/dockyard/load", {"model": "full", "options": {"flags": FLOAT32}}, timeout=300)
            yield from _rows("dockyard eval", _ours(home, folder, url), theirs)
            yield from _rows("dockyard eval harness", _own_model(program, home, folder, url), theirs)
            asked = f"base_url={url}/v1/completions,num_concurrent={TOGETHER}"
            known = f"tokenizer={transformers},tokenizer_backend=huggingface"
            remote = _harness(program, folder, "local-completions", f"model=full,{asked},{known}")
            yield from _rows("the harness's local-completions on our server", remote, theirs)


def _rows(what: str, found: dict[str, float], theirs: dict[str, float]) -> Iterator[Row]:
    for name, value in theirs.items():
        yield _row(f"{name}: {what}", found[name], value)


def _row(what: str, ours: float, theirs: float) -> Row:
    exact = what.startswith("acc")
    told = f"{ours:.6f} beside {theirs:.6f} of lm-eval hf"
    if exact:
        return Row(what, told, "equal", ours == theirs)
    logarithms = (ours, theirs) if what.startswith("bits") else (math.log(ours), math.log(theirs))
    met = math.isclose(*logarithms, rel_tol=TOLERANCE)
    return Row(what, f"{told}, {abs(ours / theirs - 1):.1e} apart", f"log-probabilities within {TOLERANCE:g}", met)


def _ours(home: Path, folder: Path, url: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in ("choice", "text"):
        told = _json(home, "eval", "run", str(folder / f"{name}.yaml"), "full", "--host", url, "--json")
        found |= {each["metric"]["name"]: each["value"] for each in told["runs"][0]["aggregates"]}
    return found


def _own_model(program: Path, home: Path, folder: Path, url: str) -> dict[str, float]:
    """``dockyard eval harness``, in the environment that has the harness."""
    words = ["eval", "harness", "full", *map(str, sorted((folder / "tasks").glob("*.yaml")))]
    command = [program.with_name("python"), "-m", "dockyard", *words, "--prefix", BEGIN, "--host", url, "--json"]
    done = subprocess.run(command, env=_environ(home), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    told = json.loads(done.stdout[done.stdout.index("{\n") :])
    return {name: value for figures in told.values() for name, value in figures.items()}


def _harness(program: Path, folder: Path, model: str, arguments: str) -> dict[str, float]:
    out = folder / f"out-{model}"
    command = [program, "run", "--model", model, "--model_args", arguments, "--include_path", folder / "tasks"]
    command += ["--tasks", "dockyard_choice,dockyard_text", "--output_path", out, "--device", "cpu"]
    done = subprocess.run(list(map(str, command)), env=_environ(folder), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    (path,) = out.rglob("results*.json")
    told = json.loads(path.read_text())["results"]
    return {name: told[task][f"{name},none"] for name in NAMES for task in told if f"{name},none" in told[task]}


def _environ(home: Path) -> dict[str, str]:
    quiet = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **quiet, "HF_HOME": str(home / "hf-cache"), "DOCKYARD_HOME": str(home), "OPENAI_API_KEY": "x"}


def _json(home: Path, *words: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "dockyard", *words], env=_environ(home), capture_output=True, text=True, check=False
    )
    if not done.stdout:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout)


def _quietly(home: Path, *words: str) -> None:
    os.environ["DOCKYARD_HOME"] = str(home)
    if call(list(words)):
        raise RuntimeError(f"dockyard {' '.join(words)} failed")
