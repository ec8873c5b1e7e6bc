"""A million synthetic vectors of 384 numbers, searched in a process whose memory is measured."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from benchmarks._bars import Row

COUNT = 1_000_000
WIDTH = 384
CLUSTERS = 2000
STEP = 50_000
SEARCHES = 300


def vectors(count: int, seed: int) -> Any:
    """Unit vectors around some centres, as those of texts lie."""
    import numpy

    draw = numpy.random.default_rng(seed)
    centres = numpy.random.default_rng(1).standard_normal((CLUSTERS, WIDTH), dtype="f4")
    made = centres[draw.integers(0, CLUSTERS, count)] + 0.7 * draw.standard_normal((count, WIDTH), dtype="f4")
    return made / numpy.linalg.norm(made, axis=1, keepdims=True)


def build(folder: str, count: int) -> str:
    """Fill the store; the snapshot."""
    from dockyard.knowledge.model import Row as Passage
    from dockyard.knowledge.vectors import Place, open_vectors

    store = open_vectors("lancedb", Place(folder=Path(folder), name="a1", dimension=WIDTH))
    store.rollback("")
    for first in range(0, count, STEP):
        made = vectors(min(STEP, count - first), 100 + first)
        passages = [
            Passage(id=first + n, doc=(first + n) // 10, words=f"passage {first + n}", heading="", start=0, end=9,
                    vector=one.tobytes())
            for n, one in enumerate(made)
        ]  # fmt: skip
        store.add(passages)
        print(first + len(passages), "written", file=sys.stderr, flush=True)
    return store.commit()


def measure(folder: str, snapshot: str, count: int) -> dict[str, float]:
    """Times of searches in milliseconds, the process's peak memory, and how often the nearest of all was found."""
    import resource
    import time

    import numpy

    from dockyard.knowledge.vectors import Place, open_vectors

    store = open_vectors("lancedb", Place(folder=Path(folder), name="a1", dimension=WIDTH))
    wanted = vectors(SEARCHES, 7)
    for one in wanted[:20]:
        store.nearest(snapshot, one.tobytes(), 10, None, vectors=False)
    times, tops = [], []
    for one in wanted:
        begun = time.monotonic()
        found = store.nearest(snapshot, one.tobytes(), 10, None, vectors=False)
        times.append(1000 * (time.monotonic() - begun))
        tops.append(found[0].row.id)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    best = numpy.full(SEARCHES, -2.0)
    nearest = numpy.zeros(SEARCHES, dtype="i8")
    for first in range(0, count, STEP):
        scores = numpy.asarray(wanted) @ numpy.asarray(vectors(min(STEP, count - first), 100 + first)).T
        top = scores.argmax(axis=1)
        better = scores[numpy.arange(SEARCHES), top] > best
        nearest[better] = first + top[better]
        best = numpy.maximum(best, scores.max(axis=1))
    times.sort()
    return {
        "p50": times[len(times) // 2],
        "p95": times[int(0.95 * len(times))],
        "memory": float(peak),
        "recall": float((nearest == numpy.asarray(tops)).mean()),
    }


def rows(count: int = COUNT) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        snapshot = _child("build", folder, str(count))
        found = msgspec.json.decode(_child("measure", folder, snapshot, str(count)), type=dict[str, float])
    told = f"p50 {found['p50']:.1f} ms, p95 {found['p95']:.1f} ms of {SEARCHES}"
    yield Row(f"the 10 nearest of {count:,} vectors", told, "p95 < 100 ms", found["p95"] < 100)
    yield Row(
        "peak memory of the searching process", f"{found['memory'] / 1e9:.2f} GB", "< 2 GB", found["memory"] < 2e9
    )
    yield Row("the nearest of all is the first found", f"{found['recall']:.1%}", "-", None)


def _child(*words: str) -> str:
    command = [sys.executable, "-m", "benchmarks.knowledge.million", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


if __name__ == "__main__":
    if sys.argv[1] == "build":
        print(build(sys.argv[2], int(sys.argv[3])))
    elif sys.argv[1] == "measure":
        print(msgspec.json.encode(measure(sys.argv[2], sys.argv[3], int(sys.argv[4]))).decode())
    else:
        for line in rows(int(sys.argv[1])):
            print(line.line())
