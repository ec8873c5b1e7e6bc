"""Tokens a second of all streams together, beside a native llama-server and vLLM's CPU build.

Greedy, equal lengths, every stream its own prompt, the servers taking turns. Both servers stay loaded, only one works:
the other's processes are stopped meanwhile, since some (vLLM's, and threads that spin after their work) take processor
time while they wait.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks import _peers
from benchmarks._bars import Row, median, spread
from benchmarks._serving import OPENER, dockyard, free_port, post, process, pull_starter, wait_ready
from benchmarks._streams import Streams, ask

ROUNDS = 3
LONE = 11
"""Rounds of one stream, which take less than a second each."""
TOKENS = 96
LEVELS = (1, 4, 8, 16, 32)
SAME_FILE = {1: 0.95, 4: 1.5, 8: 2.0, 16: 2.0, 32: 2.0}
BEST_FILE = {8: 1.2, 16: 1.1, 32: 1.1}
RESULTS = Path("docs/performance.json")

Run = Callable[[int], Streams]


class Server(NamedTuple):
    """A loaded server: how it is asked, and its first process."""

    run: Run
    pid: int

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It takes nothing from whoever is measured."""
        first = psutil.Process(self.pid)
        processes = [first, *first.children(recursive=True)]
        for each in processes:
            each.suspend()
        try:
            yield
        finally:
            for each in processes:
                each.resume()


def same_rows() -> Iterator[Row]:
    """The very file on both sides."""
    with _home() as (home, weights), served(home) as ours, llama_server(weights) as native:
        yield from _compare("native llama-server, same Q4_1 file", ours, native, SAME_FILE)
    with _home() as (home, weights), served(home, native=False) as ours, llama_server(weights) as native:
        mine, theirs = _turns(1, ours, native)
        ratio = median([a / b for a, b in zip(mine, theirs, strict=True)])
        said = f"{ratio:.2f} ({spread(mine)} tokens/s, peer {spread(theirs)})"
        yield Row("1 stream on the wheel's llama.cpp, which is built for AVX2", said, "said", None)


def busy_rows() -> Iterator[Row]:
    """The same, while one of the cores belongs to somebody else, whichever that is at the moment."""
    with _home() as (home, weights), served(home) as ours, llama_server(weights) as native:
        with process([sys.executable, "-c", "while True: pass"]):
            yield from _compare("llama-server, one core kept busy by another process", ours, native, {8: 2.0})


def best_rows() -> Iterator[Row]:
    """Each server on the form of the model that it is fastest with."""
    with _home() as (home, weights), served(home) as ours:
        with llama_server(_peers.requantized(weights, "Q4_0")) as native:
            yield from _compare("native llama-server, each on its best file", ours, native, BEST_FILE)


def vllm_rows() -> Iterator[Row]:
    """Against vLLM's CPU build, which reads the model's weights in 16 bits."""
    with _home() as (home, weights), served(home) as ours, vllm(weights) as peer:
        yield from _compare("vLLM's CPU build", ours, peer, dict.fromkeys(LEVELS, 1.5))


@contextmanager
def _home() -> Iterator[tuple[Path, Path]]:
    """A home of its own with the starter model, and the model's file."""
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        pull_starter(home)
        yield home, max((home / "store" / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)


def _compare(name: str, ours: Server, peer: Server, bars: dict[int, float]) -> Iterator[Row]:
    found: dict[str, list[float]] = {}
    for streams, bar in bars.items():
        mine, theirs = _turns(streams, ours, peer)
        ratio = median([a / b for a, b in zip(mine, theirs, strict=True)])
        found[str(streams)] = [median(mine), median(theirs), ratio, bar]
        said = f"{ratio:.2f} ({spread(mine)} tokens/s, peer {spread(theirs)})"
        yield Row(f"{streams} streams against {name}", said, f">= {bar}", ratio >= bar)
    _keep(name, found)


def _turns(streams: int, ours: Server, peer: Server) -> tuple[list[float], list[float]]:
    mine: list[float] = []
    theirs: list[float] = []
    for turn in range((LONE if streams == 1 else ROUNDS) + 1):
        with peer.stopped():
            own = ours.run(streams).rate
        with ours.stopped():
            other = peer.run(streams).rate
        if turn:  # the first turn brings what is loaded when it is first needed
            mine.append(own)
            theirs.append(other)
    return mine, theirs


def _keep(name: str, found: dict[str, list[float]]) -> None:
    """Put a comparison into what the page of figures is made from, beside the others of this machine."""
    machine = f"{os.cpu_count()} cores, {_processor()}"
    said = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if said.get("machine") != machine or said.get("tokens") != TOKENS:
        said = {"machine": machine, "tokens": TOKENS, "against": {}}
    said["against"][name] = found
    RESULTS.write_text(json.dumps(said, indent=1) + "\n")
    subprocess.run([sys.executable, "scripts/performance.py"], check=True)


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
def served(home: Path, *, native: bool = True) -> Iterator[Server]:
    """Dockyard with one model on two engines: llama.cpp for a lone stream, OpenVINO for a crowd, with weights in eight
    bits and the activations that this CPU is faster with: two of the layouts that `bench --tune` tries for a small
    model. Its llama.cpp is the ``native`` server that is on this machine anyway, or the one in the wheel."""
    llama = {"DOCKYARD_LLAMA_SERVER": str(_peers.llama_server())} if native else {"DOCKYARD_NATIVE_LLAMA": "false"}
    with dockyard(home, env=llama) as (url, child):
        run = runs(url, "smollm2")

        def load(precision: str) -> float:
            flags = {"openvino.weights": "int8", "openvino.precision": precision}
            options = {"replicas": ["llamacpp", "openvino"], "parallel": 32, "flags": flags}
            post(f"{url}/api/dockyard/load", {"model": "smollm2", "options": options}, timeout=300)
            _wait_loaded(url, 2)
            for streams in (1, 8, 8):
                run(streams)
            return run(8).rate

        rates = {precision: load(precision) for precision in ("q8", "auto")}
        if rates["q8"] > rates["auto"]:
            load("q8")
        yield Server(run, child.pid)


def _wait_loaded(url: str, replicas: int, seconds: float = 300) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        models = json.loads(OPENER.open(f"{url}/api/dockyard/ps").read())["models"]
        if sum(model["state"] == "ready" for model in models) == replicas:
            return
        time.sleep(0.05)
    raise RuntimeError(f"{replicas} replicas were not loaded in {seconds:.0f} s")


@contextmanager
def llama_server(weights: Path) -> Iterator[Server]:
    """llama.cpp's own server, with a slot for every stream."""
    port = free_port()
    command = [str(_peers.llama_server()), "-m", str(weights), "--port", str(port), "-np", "32", "-c", "16384"]
    with process([*command, "-t", str(os.cpu_count())]) as child:
        url = f"http://127.0.0.1:{port}"
        wait_ready(f"{url}/health", child)
        yield Server(runs(url, "any"), child.pid)


@contextmanager
def vllm(weights: Path) -> Iterator[Server]:
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
        yield Server(run, child.pid)


def _processor() -> str:
    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else platform.machine()
