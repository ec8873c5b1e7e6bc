"""llm-compressor, driven in an environment of its own: it can't share one with what trains and converts here.

The child (``_llmcompressor_child.py``) is a plain script without imports of this package, so that any Python that has
``llmcompressor`` runs it. What it writes is compressed-tensors, for vLLM on GPUs.
"""

from __future__ import annotations

import json
import subprocess
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from dockyard.errors import EngineUnavailable, LoadFailed
from dockyard.ops import Job

VERSION = "llmcompressor==0.14.0.1"
SCHEMES = {"fp8": "FP8_DYNAMIC", "w4a16": "W4A16"}


def compress(job: Job, python: Path, to: str, runs: Sequence[Sequence[int]], source: Path, target: Path) -> None:
    """Compress the Hugging Face folder ``source`` into ``target``. Raises LoadFailed."""
    task = job.work / "task.json"
    task.write_text(
        json.dumps({
            "source": str(source), "target": str(target), "scheme": SCHEMES[to],
            "runs": [list(run) for run in runs],
        })
    )  # fmt: skip
    child = Path(__file__).with_name("_llmcompressor_child.py")
    process = subprocess.Popen(
        [str(python), str(child), str(task)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    last: deque[str] = deque(maxlen=20)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip():
                last.append(line.strip())
                job.note(line.strip()[:200])
        code = process.wait()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if code:
        raise LoadFailed(f"llm-compressor failed: {last[-1] if last else f'status {code}'}")


def find_python(job: Job, named: str | None) -> Path:
    """The Python that has llm-compressor. Raises EngineUnavailable with the lines that make one."""
    usual = job.store.root.parent / "environments" / "llmcompressor" / "bin" / "python"
    python = Path(named) if named else usual
    hint = f"python3 -m venv {usual.parent.parent} && {usual} -m pip install {VERSION}"
    if not python.is_file():
        raise EngineUnavailable(f"there is no Python with llm-compressor at {python}", hint=hint)
    known = subprocess.run(
        [str(python), "-c", "import importlib.util as u, sys; sys.exit(u.find_spec('llmcompressor') is None)"],
        capture_output=True,
        check=False,
    )
    if known.returncode:
        raise EngineUnavailable(f"{python} has no llmcompressor", hint=hint)
    return python
