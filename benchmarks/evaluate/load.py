"""Figures of ``dockyard bench`` against guidellm's, on one server under the same load, in alternating runs.

A closed loop of four streams on the starter model: as many prompt tokens (guidellm's are fitted to ours), answers of
the same length. guidellm's words for ours: ``inter_token_latency`` is our TPOT; throughput is taken from its totals.

Where the model takes every processor, what a client takes is missing to it, so the same is asked of a server whose
speed is set: the echo engine at 25 tokens/s, which both should find. And each client's figure is held against what
the server itself counted in the same run (``/metrics``): what then remains is the clients', not the run's.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks._bars import Row, median
from benchmarks._serving import dockyard, pull_starter
from benchmarks.evaluate._material import as_folder, environment, starter

GUIDELLM = "guidellm==0.7.3"
STREAMS, REQUESTS, TOKENS, WORDS, ROUNDS = 4, 24, 48, 64, 3
NEAR = 0.05
PACE = 25.0
"""Tokens per second of each of the echo engine's answers."""


def rows() -> Iterator[Row]:
    program = environment("guidellm", GUIDELLM, "guidellm", shared=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tokenizer = as_folder(starter(folder))
        pull_starter(folder / "home")
        with dockyard(folder / "home") as (url, _):
            ours = _ours(folder, url)["prompt_tokens"] // REQUESTS
            # Ours are those of the whole conversation, guidellm's those of the text in it.
            prompt = ours - (_theirs(program, folder, url, tokenizer, ours)["prompt_tokens"] - ours)
            pairs = [(_ours(folder, url), _theirs(program, folder, url, tokenizer, prompt)) for _ in range(ROUNDS)]
        with dockyard(folder / "paced", env={"DOCKYARD_ECHO_TOKENS_PER_SECOND": str(PACE)}) as (url, _):
            known = [(_ours(folder, url, "echo"), _theirs(program, folder, url, tokenizer, WORDS, "echo"))]
    for name in ("ttft_mean", "tpot_mean", "throughput"):
        yield _row(f"{name}, {STREAMS} streams", name, pairs)
    for name in ("tpot_mean", "throughput"):
        yield _row(f"{name}, {STREAMS} streams of {PACE:g} tokens/s each", name, known)
    for name in ("ttft_mean", "tpot_mean"):
        own = [{name: one[name] / one[f"server_{name}"]} for one, _ in pairs]
        guides = [{name: two[name] / two[f"server_{name}"]} for _, two in pairs]
        yield _row(f"{name} over the server's own of the same run", name, list(zip(own, guides, strict=True)))
    tokens = [(one["prompt_tokens"] / REQUESTS, two["prompt_tokens"]) for one, two in pairs]
    yield Row("prompt tokens of a request", f"{tokens[0][0]:.0f} beside {tokens[0][1]:.0f}", "said", None)


def _row(what: str, name: str, pairs: list[tuple[dict[str, Any], dict[str, float]]]) -> Row:
    ours, theirs = median([one[name] for one, _ in pairs]), median([two[name] for _, two in pairs])
    ratio = ours / theirs
    told = f"{ours:.4g} beside guidellm's {theirs:.4g} (ratio {ratio:.3f})"
    return Row(what, told, f"within {NEAR:.0%}", abs(ratio - 1) <= NEAR)


def _ours(folder: Path, url: str, model: str = "smollm2") -> dict[str, Any]:
    command = [sys.executable, "-m", "dockyard", "bench", model, "--host", url, "--json"]
    command += ["--streams", str(STREAMS), "--requests", str(REQUESTS), "--tokens", str(TOKENS)]
    command += ["--prompt-words", str(WORDS)]
    environ = {**os.environ, "DOCKYARD_HOME": str(folder / "client")}
    with _counted(url, model) as counted:
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    return {**json.loads(done.stdout), **counted}


@contextmanager
def _counted(url: str, model: str) -> Iterator[dict[str, float]]:
    """What the server itself counts meanwhile: the means of its answers, filled in at the end."""
    before, found = _sums(url, model), dict[str, float]()
    yield found
    after = _sums(url, model)
    for name, metric in (("ttft", "time_to_first_token"), ("tpot", "time_per_output_token")):
        total, count = (after[f"{metric}_{each}"] - before.get(f"{metric}_{each}", 0.0) for each in ("sum", "count"))
        found[f"server_{name}_mean"] = total / count


def _sums(url: str, model: str) -> dict[str, float]:
    text = urllib.request.urlopen(f"{url}/metrics", timeout=30).read().decode()
    pattern = rf'^dockyard_(\w+)_seconds_(sum|count)\{{model="{model}"\}} (\S+)$'
    return {f"{name}_{kind}": float(value) for name, kind, value in re.findall(pattern, text, re.M)}


def _theirs(
    program: Path, folder: Path, url: str, tokenizer: Path, prompt: float, model: str = "smollm2"
) -> dict[str, float]:
    out = folder / "guidellm.json"
    backend = {"kind": "openai_http", "target": url, "model": model, "extras": {"body": {"temperature": 0}}}
    command = [str(program), "run", "--backend", json.dumps(backend)]
    command += [
        "--profile",
        f"kind=concurrent,streams={STREAMS}",
        "--constraint",
        f"kind=max_requests,count={REQUESTS}",
    ]
    command += ["--tokenizer", f"kind=hf_auto,model={tokenizer}", "--output", f"kind=json,path={out}"]
    command += ["--data", f"kind=synthetic_text,prompt_tokens={prompt:.0f},output_tokens={TOKENS}", "--disable-console"]
    environ = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with _counted(url, model) as counted:
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
    found = json.loads(out.read_text())["benchmarks"][0]
    good = {name: each["successful"] for name, each in found["metrics"].items() if "successful" in each}
    if good["time_to_first_token_ms"]["count"] != REQUESTS:
        raise RuntimeError(f"guidellm had {good['time_to_first_token_ms']['count']} answers of {REQUESTS}")
    return {
        "ttft_mean": good["time_to_first_token_ms"]["mean"] / 1000,
        "tpot_mean": good["inter_token_latency_ms"]["mean"] / 1000,
        "throughput": good["output_token_count"]["mean"] * REQUESTS / found["duration"],
        "prompt_tokens": good["prompt_token_count"]["mean"],
        **counted,
    }
