"""Tokens a second over HTTP beside the same engine in process, and the time from nothing to a first token.

Greedy, equal lengths, the same prompt, the two taking turns.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import _peers
from benchmarks._bars import Row, median, spread
from benchmarks._serving import DOCKYARD, dockyard, free_port, home_env, post, process, pull_starter, wait_ready
from benchmarks._streams import CHAT, ask

ROUNDS = 9
LONE = 15
"""Rounds of one stream, which are short and whose bar is within their spread."""
TOKENS = 128
BODY = {
    "model": "smollm2",
    "messages": [{"role": "user", "content": "Tell a long story about a harbour."}],
    "max_tokens": TOKENS,
    "temperature": 0,
    "ignore_eos": True,
}


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        pull_starter(home)
        with dockyard(home) as (url, _):
            http_rate(url, 1)
            command = [sys.executable, "-m", "benchmarks.foundation._inprocess", json.dumps(BODY)]
            with subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=home_env(home),
            ) as child:
                assert child.stdin is not None
                assert child.stdout is not None
                child.stdout.readline()
                yield from _compare(url, child)
                child.stdin.close()


def _compare(url: str, child: subprocess.Popen[str]) -> Iterator[Row]:
    assert child.stdin is not None
    assert child.stdout is not None
    for streams in (1, 8, 16):
        ours: list[float] = []
        direct: list[float] = []
        for turn in range((LONE if streams == 1 else ROUNDS) + 1):
            served = http_rate(url, streams)
            print(streams, file=child.stdin, flush=True)
            raw = float(child.stdout.readline())
            if turn:  # the first turn fills both prefix caches
                ours.append(served)
                direct.append(raw)
        ratio = median([a / b for a, b in zip(ours, direct, strict=True)])
        said = f"{ratio:.3f} ({spread(ours)} tokens/s over HTTP, {spread(direct)} in process)"
        yield Row(f"tokens/s over HTTP at {streams} streams, of in-process", said, ">= 0.95", ratio >= 0.95)


def http_rate(url: str, streams: int) -> float:
    """Tokens a second of so many streams asked at once; raises if a stream is short."""
    return ask(url, [BODY] * streams, least=int(TOKENS * 0.9)).rate


def cold_rows() -> Iterator[Row]:
    """From the start of the program to the first token of an answer, weights in the page cache."""
    native = _peers.llama_server()
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        pull_starter(home)
        with dockyard(home) as (url, _):  # lay the run directory out and warm the page cache
            post(url + CHAT, {**BODY, "max_tokens": 1})
        weights = next((home / "run").rglob("*.gguf"))
        ours: list[float] = []
        peer: list[float] = []
        env = home_env(home)
        for _ in range(ROUNDS):
            port = free_port()
            ours.append(_first_token([str(DOCKYARD), "serve", "--port", str(port), "--model", "smollm2"], port, env))
            port = free_port()
            peer.append(_first_token([str(native), "-m", str(weights), "--port", str(port), "-c", "8192"], port, {}))
    ratio = median([a / b for a, b in zip(ours, peer, strict=True)])
    said = f"{ratio:.2f} ({spread(ours, '.2f')} s, native llama-server {spread(peer, '.2f')} s)"
    yield Row("cold start to first token, over a native llama-server's", said, "<= 1.5", ratio <= 1.5)


def _first_token(command: list[str], port: int, env: dict[str, str]) -> float:
    began = time.monotonic()
    with process(command, env=env) as child:
        wait_ready(f"http://127.0.0.1:{port}/health", child)
        link = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        link.request(
            "POST", CHAT, json.dumps({**BODY, "max_tokens": 4, "stream": True}), {"content-type": "application/json"}
        )
        reply = link.getresponse()
        while line := reply.readline():
            if b'"content":"' in line and b'"content":""' not in line:
                return time.monotonic() - began
        raise RuntimeError(f"no token from {command[0]}")
