"""kill −9 in the middle of a sync, ten times: what answers is the old index or the new one, whole."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks._bars import Row
from benchmarks.knowledge._setup import base_of, opened, stocked
from benchmarks.knowledge.indexing import corpus
from dockyard.knowledge.sync import sync

KILLS = 10
FILES = 60


async def trial(home: Path, docs: Path) -> dict[str, int]:
    told = dict.fromkeys(("killed", "whole", "doubled", "lost"), 0)
    async with opened(home) as (options, models, bases):
        base = await base_of(bases, models, "kb", docs)
        await sync(base, models, options)
        before = _state(base)
        _change(docs)
        draw = random.Random(3)
        for _ in range(KILLS):
            told["killed"] += _killed(home, draw.uniform(0.0, 2.5))
            after = _state(base)
            told["whole"] += after["rows"] == after["expected"] and after["documents"] == before["documents"]
            told["doubled"] += after["rows"] - after["ids"]
        await sync(base, models, options)
        last = _state(base)
        told["lost"] = last["expected"] - last["rows"] + (before["documents"] - last["documents"])
        told["doubled"] += last["rows"] - last["ids"]
    return told


def _change(docs: Path) -> None:
    for path in sorted(docs.glob("*.md"))[: FILES // 2]:
        path.write_text(path.read_text().replace("harbour", "haven"))


def _killed(home: Path, seconds: float) -> bool:
    """Begin a sync in another process and end that so long after; whether it still ran."""
    command = [sys.executable, "-m", "benchmarks.knowledge.killed", str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(seconds)
        running = child.poll() is None
        if running:
            os.kill(child.pid, signal.SIGKILL)
    return running


def _state(base: Any) -> dict[str, int]:
    with base.ledger() as ledger:
        documents, snapshot, place, made = ledger.documents(), ledger.snapshot, ledger.place, ledger.recipe
    store = base.vectors(made, place)
    rows = list(store.rows(snapshot, [one.number for one in documents]))
    return {
        "documents": len(documents),
        "rows": store.count(snapshot),
        "ids": len({row.id for row in rows}),
        "expected": sum(one.chunks for one in documents),
    }


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        stocked(root / "home")
        corpus(root / "docs", FILES)
        found = asyncio.run(trial(root / "home", root / "docs"))
    yield Row("syncs killed while they ran", f"{found['killed']} of {KILLS}", "said", None)
    yield Row("index whole after each", f"{found['whole']} of {KILLS}", f"{KILLS}", found["whole"] == KILLS)
    yield Row("passages twice", f"{found['doubled']}", "0", found["doubled"] == 0)
    yield Row("documents or passages lost after the next sync", f"{found['lost']}", "0", found["lost"] == 0)


async def _sync(home: Path) -> None:
    async with opened(home) as (options, models, bases):
        print("begun", flush=True)
        await sync(bases.get("kb"), models, options)


if __name__ == "__main__":
    asyncio.run(_sync(Path(sys.argv[1])))
