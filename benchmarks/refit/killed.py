"""kill -9 at random moments of a recipe: whoever asks again goes on, and the digests are those of a run left alone."""

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
from benchmarks.refit._material import prose
from benchmarks.refit._small import write_tokenizer
from dockyard.artifact.store import Store
from dockyard.artifact.writers import Parent
from dockyard.ops import Inputs, execute
from dockyard.ops.data import create
from dockyard.ops.pack import Sources, package
from dockyard.ops.pretrain import PLUGIN, PretrainParams

MOMENTS = 10
SEED = 11
RECIPE = """
name: killed
base: start
data:
  text: {from: text.jsonl, validation: 0.2}
steps:
  - tune: {data: text, method: full, steps: 40, length: 64, threads: 1, checkpoint_every: 2, evaluate_every: 10}
    as: taught
  - tune: {data: text, method: lora, steps: 40, length: 64, threads: 1, checkpoint_every: 2, dropout: 0.1, seed: 5}
  - distill: {base: taught, teacher: start, data: text, steps: 30, length: 64, threads: 1, checkpoint_every: 2}
"""


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory(prefix="bars-") as folder:
        _prepare(Path(folder) / "alone")
        began = time.monotonic()
        alone = _finished(_start(Path(folder) / "alone"))
        length = time.monotonic() - began
        draw, killed = random.Random(SEED), 0
        finished: list[list[str]] = []
        while killed < MOMENTS or not finished:
            home = Path(folder) / f"killed-{len(finished)}"
            _prepare(home)
            kills = 0
            while killed < MOMENTS:
                child = _start(home)
                # Short enough for several kills before the recipe is through, and anywhere in what is left of it.
                time.sleep(draw.uniform(0.15, 0.5) * length)
                if child.poll() is not None:
                    break
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
                killed, kills = killed + 1, kills + 1
            finished.append(_finished(_start(home)))
            print(f"    {kills} kills, then finished", file=sys.stderr, flush=True)
        parted = sorted({mine.split()[0] for each in finished for mine in each if mine not in alone})
        told = f"{killed} kills in {len(finished)} recipes of {length:.0f} s; {len(alone)} digests each"
        told += f"; other ones of {', '.join(parted)}" if parted else ""
        same = all(each == alone for each in finished) and len(alone) == 4
        yield Row("digests after kill -9 at random moments are those of an unbroken run", told, "all the same", same)


def _prepare(home: Path) -> None:
    """A fresh transformer of half a million weights, text to learn, and the recipe."""
    home.mkdir()
    store = Store(home / "store")
    lines = [json.dumps({"text": text[:2000]}) + "\n" for text in prose()[0][:24]]
    (home / "text.jsonl").write_text("".join(lines))
    package(store, Sources(weights=(write_tokenizer(home / "words"),)), reference=store.named("words"))
    data = create(store, [home / "text.jsonl"]).entry.descriptor.digest
    parts = (Parent(digest=store.resolve("words").digest, role="base"), Parent(digest=data, role="data"))
    shape = PretrainParams(steps=0, layers=3, width=96, heads=4, length=64)
    execute(store, PLUGIN, Inputs(artifacts=parts), shape, reference=store.named("start"))
    (home / "recipe.yaml").write_text(RECIPE)


def _start(home: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.refit._killed_recipe", str(home / "store"), str(home / "recipe.yaml")]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=Path(__file__).parent.parent.parent,
    )


def _finished(child: subprocess.Popen[str]) -> list[str]:
    try:
        out, err = child.communicate(timeout=1200)
    except BaseException:
        os.killpg(child.pid, signal.SIGKILL)  # it has a session of its own, and would outlive us
        raise
    if child.returncode != 0:
        raise RuntimeError(err[-800:])
    return out.splitlines()
