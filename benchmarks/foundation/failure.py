"""Workers killed and clients gone, over and over: every client hears of it and nothing is left behind."""

from __future__ import annotations

import http.client
import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from benchmarks._bars import Row, median
from benchmarks._serving import OPENER, dockyard, post, pull_starter

PATH = "/v1/chat/completions"
KILLS = 50
HANG_UPS = 200
LONG = {
    "model": "smollm2",
    "stream": True,
    "max_tokens": 2000,
    "ignore_eos": True,
    "messages": [{"role": "user", "content": "Tell a long story."}],
}


def killed_rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        pull_starter(Path(scratch))
        with dockyard(Path(scratch)) as (url, server):
            _ask(url)
            told = served = 0
            again: list[float] = []
            for _ in range(KILLS):
                reply = _stream(url)
                os.kill(_loaded(url)[0]["pid"], signal.SIGKILL)
                rest = reply.read()
                told += b'data: {"error":' in rest and b"worker_crashed" in rest
                began = time.monotonic()
                served += _ask(url)
                again.append(time.monotonic() - began)
            yield Row(f"clients told, {KILLS} workers killed mid-stream", f"{told}", f"{KILLS}", told == KILLS)
            yield Row("next requests served", f"{served} (median {median(again):.2f} s)", f"{KILLS}", served == KILLS)
            workers = psutil.Process(server.pid).children(recursive=True)
            entries = _loaded(url)
            said = f"{len(workers)} processes, {len(entries)} ledger entries, {entries[0]['active']} active"
            clean = len(workers) == 1 and len(entries) == 1 and entries[0]["active"] == 0
            yield Row("left behind", said, "1 worker, 1 entry, 0 active", clean)
        time.sleep(0.5)
        left = [p.pid for p in workers if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
        yield Row("processes after the server stopped", f"{len(left)}", "0", not left)


def hang_up_rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        pull_starter(Path(scratch))
        with dockyard(Path(scratch)) as (url, server):
            for _ in range(3):
                _stream(url).close()
            _settle(url)
            time.sleep(2)  # by now the threads that write in the background have opened what they write to
            before = _held(server.pid)
            for _ in range(HANG_UPS // 8):
                crowd = [_stream(url) for _ in range(8)]
                for reply in crowd:
                    reply.close()
            freed = _settle(url)
            after = _held(server.pid)
            said = ", ".join(f"{name} {before[name]} -> {after[name]}" for name in before)
            clean = all(after[name] <= before[name] for name in ("files", "processes")) and freed >= 0
            clean = clean and after["threads"] <= before["threads"] + 8  # thread pools fill up to their size
            yield Row(
                f"{HANG_UPS} clients hung up mid-stream", f"{said}; slots free after {freed:.2f} s", "no growth", clean
            )
            yield Row("the next request", "served" if _ask(url) else "not served", "served", True)


def _ask(url: str) -> bool:
    body = {"model": "smollm2", "max_tokens": 4, "messages": [{"role": "user", "content": "hi"}]}
    return bool(json.loads(post(url + PATH, body))["choices"])


def _stream(url: str) -> http.client.HTTPResponse:
    """A long answer whose first token has arrived; closing it closes the connection."""
    where = urlsplit(url)
    link = http.client.HTTPConnection(where.hostname or "", where.port, timeout=60)
    link.request("POST", PATH, json.dumps(LONG), {"content-type": "application/json", "connection": "close"})
    reply = link.getresponse()
    while b'"content":"' not in (line := reply.readline()):
        if not line:
            raise RuntimeError("the stream ended before its first token")
    return reply


def _loaded(url: str) -> list[dict[str, Any]]:
    return [m for m in json.loads(OPENER.open(f"{url}/api/dockyard/ps").read())["models"] if m["engine"] != "echo"]


def _settle(url: str) -> float:
    """Seconds until no request is active, -1 if ten were not enough."""
    began = time.monotonic()
    while time.monotonic() - began < 10:
        if not any(m["active"] or m["queued"] for m in _loaded(url)):
            return time.monotonic() - began
        time.sleep(0.02)
    return -1


def _held(pid: int) -> dict[str, int]:
    time.sleep(0.5)
    everyone = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return {
        "files": sum(p.num_fds() for p in everyone),
        "threads": sum(p.num_threads() for p in everyone),
        "processes": len(everyone),
    }
