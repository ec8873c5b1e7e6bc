"""Steps a second and memory of tuning SmolLM2-135M with LoRA, against TRL's trainer used as its documentation has it.

Both get the same examples (prompt and completion), the same adapter, batch, length and threads, each in a process of
its own, in turns; medians count. The first step, which allocates, is left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks._bars import Row, median, spread

TURNS, STEPS = 3, 8
ROOT = Path(__file__).parent.parent.parent


def rows() -> Iterator[Row]:
    found: dict[str, list[dict[str, float]]] = {"ours": [], "trl": []}
    for _ in range(TURNS):
        for which in found:
            command = [sys.executable, "-m", "benchmarks.refit._speed_run", which, str(STEPS)]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=900, check=False)
            if done.returncode != 0:
                raise RuntimeError(done.stderr[-800:])
            found[which].append(json.loads(done.stdout.splitlines()[-1]))
    rates = {which: [each["rate"] for each in runs] for which, runs in found.items()}
    memory = {which: [each["memory"] / 1e6 for each in runs] for which, runs in found.items()}
    loss = {which: runs[0]["loss"] for which, runs in found.items()}
    ratio = median(rates["ours"]) / median(rates["trl"])
    told = f"{ratio:.2f} ({spread(rates['ours'], '.3f')} of {spread(rates['trl'], '.3f')} steps/s)"
    yield Row("training steps a second, of TRL's", told, ">= 1", ratio >= 1)
    ratio = median(memory["ours"]) / median(memory["trl"])
    told = f"{ratio:.2f} ({spread(memory['ours'])} of {spread(memory['trl'])} MB)"
    yield Row("peak memory, of TRL's", told, "<= 1.05", ratio <= 1.05)
    yield Row("loss of the first step, ours and TRL's", f"{loss['ours']:.4f}, {loss['trl']:.4f}", "-", None)
