"""What the gateway costs: the echo engine behind it, beside a bare route and LiteLLM, each on one core.

LiteLLM answers from its own ``mock_response`` (no upstream to call, which favours it). wrk loads from the other core.
The three take turns, so that a slow minute of the machine hits all of them.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import _peers
from benchmarks._bars import Row, median, spread
from benchmarks._serving import dockyard, free_port, post, process, tree_rss, wait_ready, wrk

ROUNDS = 5
CHUNKS = 64
WORDS = " ".join(f"w{i:02d}" for i in range(CHUNKS))
PLAIN = {"model": "echo", "messages": [{"role": "user", "content": "The quick brown fox jumps over the lazy dog."}]}
STREAM = {"model": "echo", "stream": True, "messages": [{"role": "user", "content": WORDS}]}
PATH = "/v1/chat/completions"


def rows() -> Iterator[Row]:
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        ours, our_process = stack.enter_context(dockyard(home, core=0))
        bare = stack.enter_context(_bare(post(ours + PATH, PLAIN), post(ours + PATH, STREAM)))
        lite, lite_process = stack.enter_context(_litellm(home))
        sent = post(ours + PATH, STREAM).count(b'"content":"')
        if sent < CHUNKS:
            raise RuntimeError(f"echo streamed {sent} chunks, not {CHUNKS}")
        targets = {"ours": ours, "bare": bare, "lite": lite}
        yield from _plain(targets)
        yield from _streamed(targets, lite)
        memory = f"{tree_rss(our_process.pid) >> 20} MB, LiteLLM {tree_rss(lite_process.pid) >> 20} MB"
        yield Row("resident memory after the load", memory, "said", None)


def _plain(targets: dict[str, str]) -> Iterator[Row]:
    rates: dict[str, list[float]] = {name: [] for name in targets}
    waits: dict[str, list[float]] = {"ours": [], "bare": []}
    for _ in range(ROUNDS):
        for name, url in targets.items():
            seen = wrk(url + PATH, PLAIN, connections=32, seconds=4)
            rates[name].append(seen.rate if not seen.errors else 0.0)
        for name, found in waits.items():
            found.append(wrk(targets[name] + PATH, PLAIN, connections=1, seconds=2).p50)
    said = f"{spread(rates['ours'])}/s, LiteLLM {spread(rates['lite'])}/s, bare route {spread(rates['bare'])}/s"
    peer = median([a / b for a, b in zip(rates["ours"], rates["lite"], strict=True)])
    route = median([a / b for a, b in zip(rates["ours"], rates["bare"], strict=True)])
    yield Row("requests/s, 32 connections", said, "said", None)
    yield Row("requests/s over LiteLLM's", f"{peer:.1f}", ">= 20", peer >= 20)
    yield Row("requests/s over a bare Litestar route's", f"{route:.2f}", ">= 0.5", route >= 0.5)
    added = median([a - b for a, b in zip(waits["ours"], waits["bare"], strict=True)])
    what = f"{added:.3f} ms ({median(waits['ours']):.3f} against {median(waits['bare']):.3f})"
    yield Row("p50 added at one connection", what, "<= 1 ms", added <= 1)


def _streamed(targets: dict[str, str], lite: str) -> Iterator[Row]:
    lite_chunks = post(lite + PATH, STREAM).count(b'"content":"')
    each = {"ours": CHUNKS, "bare": CHUNKS, "lite": lite_chunks}
    rates: dict[str, list[float]] = {name: [] for name in targets}
    for _ in range(ROUNDS):
        for name, url in targets.items():
            seen = wrk(url + PATH + ("/stream" if name == "bare" else ""), STREAM, connections=16, seconds=4)
            rates[name].append(seen.rate * each[name] if not seen.errors else 0.0)
    said = f"{spread(rates['ours'])}/s, LiteLLM {spread(rates['lite'])}/s, bare stream {spread(rates['bare'])}/s"
    peer = median([a / b for a, b in zip(rates["ours"], rates["lite"], strict=True)])
    route = median([a / b for a, b in zip(rates["ours"], rates["bare"], strict=True)])
    yield Row(f"chunks/s, 16 connections of {CHUNKS} chunks (LiteLLM sends {lite_chunks})", said, "said", None)
    yield Row("chunks/s over LiteLLM's", f"{peer:.1f}", ">= 15", peer >= 15)
    yield Row("chunks/s over a bare Litestar stream's", f"{route:.2f}", ">= 0.6", route >= 0.6)


@contextmanager
def _bare(plain: bytes, stream: bytes) -> Iterator[str]:
    port = free_port()
    env = {"BARE_PLAIN": base64.b64encode(plain).decode(), "BARE_STREAM": base64.b64encode(stream).decode()}
    command = [sys.executable, "-m", "granian", "--interface", "asgi", "--port", str(port), "--loop", "uvloop"]
    command += ["--no-access-log", "--log-level", "error", "benchmarks.foundation._bare:app"]
    url = f"http://127.0.0.1:{port}"
    with process(command, core=0, env=env) as child:
        wait_ready(f"{url}/health", child)
        yield url


@contextmanager
def _litellm(home: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    program = _peers.litellm()
    port = free_port()
    mock = {"model": "openai/mock", "api_key": "none", "mock_response": "x" * (3 * CHUNKS)}
    config = home / "litellm.yaml"
    config.write_text(json.dumps({"model_list": [{"model_name": "echo", "litellm_params": mock}]}))
    command = [str(program), "--config", str(config), "--port", str(port), "--host", "127.0.0.1", "--num_workers", "1"]
    env = {"LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION", "PATH": f"{program.parent}:{os.environ['PATH']}"}
    env |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}
    url = f"http://127.0.0.1:{port}"
    with process(command, core=0, env=env) as child:
        wait_ready(f"{url}/health/liveliness", child)
        yield url, child
