"""Figures of ``dockyard bench`` against guidellm's, on one server under the same load, in alternating runs.

A closed loop of four streams on the starter model: as many prompt tokens (guidellm's are fitted to ours), answers of
the same length. guidellm's words for ours: ``inter_token_latency`` is our TPOT; throughput is taken from its totals.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks._bars import Row, median
from benchmarks._serving import dockyard, pull_starter
from benchmarks.evaluate._material import as_folder, environment, starter

GUIDELLM = "guidellm==0.7.3"
STREAMS, REQUESTS, TOKENS, WORDS, ROUNDS = 4, 24, 48, 64, 3
NEAR = 0.05


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
    for name in ("ttft_mean", "tpot_mean", "throughput"):
        ours = median([one[name] for one, _ in pairs])
        theirs = median([two[name] for _, two in pairs])
        ratio = ours / theirs
        yield Row(
            f"{name}, {STREAMS} streams",
            f"{ours:.4g} beside guidellm's {theirs:.4g} (ratio {ratio:.3f})",
            f"within {NEAR:.0%}",
            abs(ratio - 1) <= NEAR,
        )
    tokens = [(one["prompt_tokens"] / REQUESTS, two["prompt_tokens"]) for one, two in pairs]
    yield Row("prompt tokens of a request", f"{tokens[0][0]:.0f} beside {tokens[0][1]:.0f}", "said", None)


def _ours(folder: Path, url: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "dockyard", "bench", "smollm2", "--host", url, "--json"]
    command += ["--streams", str(STREAMS), "--requests", str(REQUESTS), "--tokens", str(TOKENS)]
    command += ["--prompt-words", str(WORDS)]
    environ = {**os.environ, "DOCKYARD_HOME": str(folder / "client")}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _theirs(program: Path, folder: Path, url: str, tokenizer: Path, prompt: float) -> dict[str, float]:
    out = folder / "guidellm.json"
    backend = {"kind": "openai_http", "target": url, "model": "smollm2", "extras": {"body": {"temperature": 0}}}
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
    }
