"""kill -9 during a suite, again and again: it goes on, and no finished item is asked twice.

The model is loaded for one request at a time and keeps no prompt: else sums round differently with what else is
computed just then, and a few greedy answers differ between any two runs, killed or not.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks._bars import Row
from benchmarks._serving import dockyard, pull_starter
from benchmarks.evaluate._material import questions, write_lines

ITEMS = 60
KILLS = 10
SUITE = {
    "name": "killed",
    "data": "data.jsonl",
    "prompt": "{question}",
    "reference": "{right}",
    "parameters": {"max_tokens": 12, "temperature": 0, "cache_prompt": False},
    "scorers": ["f1", "chrf"],
}


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_lines(folder / "data.jsonl", [{**each, "right": str(each["question"])} for each in questions(ITEMS)])
        (folder / "suite.yaml").write_text(json.dumps(SUITE))
        pull_starter(folder / "served")
        with dockyard(folder / "served", "--parallel", "1") as (url, _):
            whole = _run(folder, "whole", url).communicate()[0]
            killed, kept = _killed(folder, url)
            done = _run(folder, "killed", url)
            last = done.communicate()[0]
    one, two = (json.loads(text)["runs"][0] for text in (whole, last))
    other = sum(a["scores"] != b["scores"] for a, b in zip(one["records"], two["records"], strict=True))
    yield Row("kills survived", f"{killed}, {kept} items finished before the last start", f"{KILLS}", killed == KILLS)
    moved = _changed(folder)
    yield Row("finished items that were measured again", f"{moved}", "0", moved == 0)
    yield Row("items scored otherwise than in a run that nobody killed", f"{other} of {ITEMS}", "0", other == 0)


def _run(folder: Path, home: str, url: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "dockyard", "eval", "run", str(folder / "suite.yaml"), "smollm2", "--json"]
    environ = {**os.environ, "DOCKYARD_HOME": str(folder / home)}
    return subprocess.Popen(
        [*command, "--host", url, "--together", "2"], env=environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def _killed(folder: Path, url: str) -> tuple[int, int]:
    """How often it was killed under way, and the items that were then finished. Each journal is kept for comparison."""
    dice, times, finished = random.Random(3), 0, 0
    for number in range(KILLS):
        child = _run(folder, "killed", url)
        goal = finished + dice.randint(1, 5)
        until = time.monotonic() + 60
        while time.monotonic() < until and child.poll() is None and _finished(folder) < goal:
            time.sleep(0.005)
        times += child.poll() is None
        child.send_signal(signal.SIGKILL)
        child.communicate()
        finished = _finished(folder)
        for path in (folder / "killed" / "evaluations").glob("*.journal"):
            (folder / f"journal-{number}").write_bytes(path.read_bytes())
    return times, finished


def _finished(folder: Path) -> int:
    paths = list((folder / "killed" / "evaluations").glob("*.journal"))
    return max(0, len(paths[0].read_bytes().splitlines()) - 1) if paths else 0


def _changed(folder: Path) -> int:
    """Items whose record in a later journal is another than in an earlier one, times included."""
    seen: dict[str, bytes] = {}
    changed = 0
    for number in range(KILLS):
        path = folder / f"journal-{number}"
        for line in path.read_bytes().split(b"\n")[1:-1] if path.exists() else ():
            identity = json.loads(line)["id"]
            changed += seen.setdefault(identity, line) != line
    return changed
