"""A batch of 1,000 lines beside interactive traffic, with SmolLM2; the server is killed in the middle of it.

One person asks short questions with pauses in between, first alone, then beside the batch, in turns of equal length, so
that a slow minute of the machine hits both. Alone means: the batch has not been made yet, or is cancelled.
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from benchmarks._bars import Row
from benchmarks._serving import dockyard, pull_starter
from benchmarks._streams import CHAT, ask

LINES = 1000
TOKENS = 8
ROUNDS = 3
QUESTIONS = 25
"""Interactive requests in a turn; with three turns the p95 is that of 75."""
MOST_SECONDS = 900.0


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        pull_starter(home)
        with dockyard(home, "--model", "smollm2") as (url, child):
            _interactive(url, 5, random.Random(0))
            alone: list[float] = []
            beside: list[float] = []
            answered = 0
            for number in range(ROUNDS):
                alone += _interactive(url, QUESTIONS, random.Random(number))
                batch = _begin(url)
                _progress(url, batch, at_least=1)
                before = _done(url, batch)
                beside += _interactive(url, QUESTIONS, random.Random(number))
                answered += _done(url, batch) - before
                if number < ROUNDS - 1:
                    _cancel(url, batch)
            slow, fast = _p95(beside), _p95(alone)
            said = f"{slow / fast:.2f} ({slow * 1000:.0f} ms against {fast * 1000:.0f} ms of {len(alone)} requests)"
            yield Row("interactive p95 TTFT beside a batch, over that without", said, "<= 1.3", slow / fast <= 1.3)
            medians = f"{statistics.median(beside) * 1000:.0f} ms against {statistics.median(alone) * 1000:.0f} ms"
            yield Row("median TTFT beside a batch and without", medians, "said", None)
            yield Row("lines answered in the pauses between interactive requests", f"{answered}", "said", None)
            _progress(url, batch, at_least=LINES // 2)
            killed_at = _done(url, batch)
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        began = time.monotonic()
        with dockyard(home, "--model", "smollm2") as (url, _):
            kept = _done(url, batch)
            found = _progress(url, batch, at_least=LINES)
            names = [json.loads(line)["custom_id"] for line in _get(url, f"files/{found['output_file_id']}/content")]
        whole = names == [f"line-{number}" for number in range(LINES)]
        said = f"{len(names)} lines, {len(set(names))} different, killed at {killed_at}, resumed at {kept}"
        yield Row(f"each of {LINES} lines once, in order, after SIGKILL", said, "all, once", whole)
        rate = (LINES - kept) / (time.monotonic() - began)
        yield Row("lines/s of the batch by itself, start of the server included", f"{rate:.1f}", "said", None)


def _interactive(url: str, count: int, dice: random.Random) -> list[float]:
    """Seconds to the first token of requests by one person who pauses between them."""
    found: list[float] = []
    for number in range(count):
        time.sleep(dice.uniform(0.2, 1.5))
        text = f"Question {dice.randrange(10**6)}: what is {number} plus {dice.randrange(100)}? Answer in a sentence."
        body = {"model": "smollm2", "messages": [{"role": "user", "content": text}], "max_tokens": 16, "temperature": 0}
        found += ask(url, [body]).first
    return found


def _begin(url: str) -> str:
    lines = []
    for number in range(LINES):
        messages = [{"role": "user", "content": f"Say something about the number {number}."}]
        body = {"model": "smollm2", "max_tokens": TOKENS, "temperature": 0, "messages": messages}
        lines.append(json.dumps({"custom_id": f"line-{number}", "method": "POST", "url": CHAT, "body": body}))
    with httpx.Client(base_url=f"{url}/v1/", timeout=60, trust_env=False) as client:
        form = {"file": ("lines.jsonl", "\n".join(lines).encode())}
        file = client.post("files", files=form, data={"purpose": "batch"}).raise_for_status().json()
        asked = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h"}
        return str(client.post("batches", json=asked).raise_for_status().json()["id"])


def _get(url: str, path: str) -> list[str]:
    return httpx.get(f"{url}/v1/{path}", timeout=60, trust_env=False).raise_for_status().text.splitlines()


def _cancel(url: str, batch: str) -> None:
    httpx.post(f"{url}/v1/batches/{batch}/cancel", timeout=60, trust_env=False).raise_for_status()
    until = time.monotonic() + 60
    while json.loads(_get(url, f"batches/{batch}")[0])["status"] != "cancelled":
        if time.monotonic() > until:
            raise RuntimeError(f"batch {batch} was not cancelled in a minute")
        time.sleep(0.2)


def _done(url: str, batch: str) -> int:
    return int(json.loads(_get(url, f"batches/{batch}")[0])["request_counts"]["completed"])


def _progress(url: str, batch: str, *, at_least: int) -> dict[str, str]:
    """Wait until so many lines are done (all: until it has ended); what the batch says of itself then."""
    until = time.monotonic() + MOST_SECONDS
    while time.monotonic() < until:
        found: dict[str, str] = json.loads(_get(url, f"batches/{batch}")[0])
        if found["status"] in ("failed", "expired", "cancelled"):
            raise RuntimeError(f"the batch ended: {found}")
        if found["status"] == "completed" or (at_least < LINES and _done(url, batch) >= at_least):
            return found
        time.sleep(0.2)
    raise RuntimeError(f"the batch had fewer than {at_least} lines after {MOST_SECONDS:.0f} s")


def _p95(values: list[float]) -> float:
    return sorted(values)[int(0.95 * (len(values) - 1) + 0.5)]
