"""Tokens a second of all streams together, beside a native llama-server and vLLM's CPU build.

Greedy, equal lengths, every stream its own prompt, the servers taking turns. Both servers stay loaded, only one works.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import _peers
from benchmarks._bars import Row, median, spread
from benchmarks._serving import dockyard, free_port, home_env, post, process, pull_starter, wait_ready
from benchmarks._streams import Streams, ask

ROUNDS = 3
TOKENS = 96
LEVELS = (1, 4, 8, 16, 32)
SAME_FILE = {1: 0.95, 4: 1.5, 8: 2.0, 16: 2.0, 32: 2.0}
BEST_FILE = {8: 1.2, 16: 1.1, 32: 1.1}
RESULTS = Path("docs/performance.json")

Run = Callable[[int], Streams]


def rows() -> Iterator[Row]:
    found: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        home = Path(scratch)
        pull_starter(home)
        ours = stack.enter_context(served(home))
        weights = next((home / "run").rglob("*.gguf"))
        native = stack.enter_context(llama_server(weights))
        yield from _compare("native llama-server, same Q4_1 file", ours, native, SAME_FILE, found)
        yield from _busy(ours, native)
        best = stack.enter_context(llama_server(_peers.requantized(weights, "Q4_0")))
        mine = stack.enter_context(served(home, best=True))
        yield from _compare("native llama-server, each on its best file", mine, best, BEST_FILE, found)
        peer = stack.enter_context(vllm(weights))
        yield from _compare("vLLM's CPU build", mine, peer, dict.fromkeys(LEVELS, 1.5), found)
    said = {"machine": f"{os.cpu_count()} cores, {_processor()}", "tokens": TOKENS, "against": found}
    RESULTS.write_text(json.dumps(said, indent=1) + "\n")
    subprocess.run([sys.executable, "scripts/performance.py"], check=True)


def _compare(
    name: str, ours: Run, peer: Run, bars: dict[int, float], found: dict[str, dict[str, list[float]]]
) -> Iterator[Row]:
    for streams, bar in bars.items():
        mine: list[float] = []
        theirs: list[float] = []
        for turn in range(ROUNDS + 1):
            pair = ours(streams).rate, peer(streams).rate
            if turn:  # the first turn brings what is loaded when it is first needed
                mine.append(pair[0])
                theirs.append(pair[1])
        ratio = median([a / b for a, b in zip(mine, theirs, strict=True)])
        found.setdefault(name, {})[str(streams)] = [median(mine), median(theirs), ratio, bar]
        said = f"{ratio:.2f} ({spread(mine)} tokens/s, peer {spread(theirs)})"
        yield Row(f"{streams} streams against {name}", said, f">= {bar}", ratio >= bar)


def _busy(ours: Run, peer: Run) -> Iterator[Row]:
    """One of the cores belongs to somebody else, whichever that is at the moment."""
    with process([sys.executable, "-c", "while True: pass"]):
        mine, theirs = [], []
        for _ in range(ROUNDS):
            mine.append(ours(8).rate)
            theirs.append(peer(8).rate)
    ratio = median([a / b for a, b in zip(mine, theirs, strict=True)])
    said = f"{ratio:.2f} ({spread(mine)} tokens/s, llama-server {spread(theirs)})"
    yield Row("8 streams, one core kept busy by another process", said, ">= 2", ratio >= 2)


def bodies(model: str, streams: int) -> list[dict[str, object]]:
    """Requests that share nothing but their template's first words."""
    return [
        {
            "model": model,
            "messages": [{"role": "user", "content": f"{number}: tell a long story about harbour number {number}."}],
            "max_tokens": TOKENS,
            "temperature": 0,
            "ignore_eos": True,
        }
        for number in range(streams)
    ]


def runs(url: str, model: str) -> Run:
    return lambda streams: ask(url, bodies(model, streams), least=int(TOKENS * 0.9))


@contextmanager
def served(home: Path, *, best: bool = False) -> Iterator[Run]:
    """Dockyard as `bench --tune` has it for short prompts: llama.cpp for one stream, OpenVINO for a crowd."""
    name = "smollm2"
    if best:
        name = "smollm2:int4"
        folder = _peers.compressed(home)
        _cli(home, "package", str(folder), name)
    with dockyard(home) as (url, _):
        engines = ["openvino"] if best else ["llamacpp", "openvino"]
        options = {"parallel": 32, "replicas": engines, "flags": {"openvino.precision": "q8"}}
        post(f"{url}/api/dockyard/load", {"model": name, "options": options}, timeout=300)
        run = runs(url, name)
        for streams in (1, 8, 8):
            run(streams)
        yield run


@contextmanager
def llama_server(weights: Path) -> Iterator[Run]:
    """llama.cpp's own server, with a slot for every stream."""
    port = free_port()
    command = [str(_peers.llama_server()), "-m", str(weights), "--port", str(port), "-np", "32", "-c", "16384"]
    with process([*command, "-t", str(os.cpu_count())]) as child:
        url = f"http://127.0.0.1:{port}"
        wait_ready(f"{url}/health", child)
        yield runs(url, "any")


@contextmanager
def vllm(weights: Path) -> Iterator[Run]:
    """vLLM's server on the same weights, dequantised, with its own defaults (bfloat16, compiled)."""
    port = free_port()
    folder = _peers.dequantized(weights)
    command = [*_peers.vllm(), str(folder), "--port", str(port), "--served-model-name", "any"]
    options = ["--max-model-len", "512", "--max-num-seqs", "32"]
    env = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    with process([*command, *options], env=env) as child:
        url = f"http://127.0.0.1:{port}"
        wait_ready(f"{url}/health", child, seconds=600)
        run = runs(url, "any")
        run(8)
        yield run


def _processor() -> str:
    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()


def _cli(home: Path, *arguments: str) -> None:
    command = [str(Path(sys.executable).with_name("dockyard")), *arguments]
    subprocess.run(command, check=True, env=home_env(home), capture_output=True, timeout=300)
