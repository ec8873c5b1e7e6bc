"""Eight adapters on one base: 64 interleaved answers beside PEFT's own, the memory they take, and what they cost.

Adapters are of rank 8 on every linear layer, of random numbers large enough to change the answers. Both sides compute
with the same weights: the starter model's, dequantised to F16 and written to a GGUF file that both read.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks._bars import Row
from benchmarks._serving import pull_starter
from benchmarks.serving import _peft
from dockyard.artifact.formats import read_facts
from dockyard.engines import choose
from dockyard.fleet.runner import Runner, create
from dockyard.hardware import detect
from dockyard.settings import Settings
from dockyard.types import Adapter, LoadOptions, ModelFiles, Request, Sampling

TOKENS = 16
ROUNDS = 3


def rows() -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pull_starter(folder)
        weights = max((folder / "store" / "blobs" / "sha256").iterdir(), key=lambda path: path.stat().st_size)
        command = [sys.executable, "-m", "benchmarks.serving._peft", str(weights), str(folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=1800)
        yield from asyncio.run(_measure(folder))


async def _measure(folder: Path) -> list[Row]:
    expected = json.loads((folder / "expected.json").read_text())
    adapters = [
        Adapter(name=name, path=str(folder / "adapters" / name), digest=f"sha256:{name}")
        for name in expected["answers"]
    ]
    base, _ = await _run(folder, [None] * len(adapters), ())
    mixed, answers = await _run(folder, list(adapters), tuple(adapters))
    right = sum(
        answers[name, index] == text for name, texts in expected["answers"].items() for index, text in enumerate(texts)
    )
    total = len(adapters) * len(_peft.PROMPTS)
    size = sum(file.stat().st_size for file in (folder / "adapters").rglob("*.safetensors"))
    bound = 1.1 * (base[1] + size)
    share = mixed[1] / bound
    return [
        Row("interleaved answers equal to PEFT's", f"{right} of {total}", f"{total}", right == total),
        Row("memory, of base + 8 adapters + 10 %", f"{share:.2f} ({mixed[1] >> 20} MiB; base {base[1] >> 20} MiB, "
            f"adapters {size >> 20} MiB)", "<= 1", share <= 1),
        Row("tokens/s with adapters", f"{mixed[0]:.0f}, the base alone {base[0]:.0f}: {mixed[0] / base[0]:.2f}", "none",
            None),
    ]  # fmt: skip


async def _run(
    folder: Path, adapters: list[Adapter | None], offers: tuple[Adapter, ...]
) -> tuple[tuple[float, int], dict[tuple[str, int], str]]:
    """Tokens a second and resident bytes at the end; the answers by adapter and prompt."""
    path = folder / _peft.NAME
    files = ModelFiles(
        reference="localhost/half:latest", digest="sha256:half", directory=str(folder), format="gguf",
        weights=(str(path),), facts=read_facts([path]), offers=offers,
    )  # fmt: skip
    options = LoadOptions(
        engine="openvino", context=512, parallel=64, flags={"precision": "f32", "kv_precision": "f32"}
    )
    settings = Settings(home=str(folder / "home"))
    engine = choose(files, options, settings, detect()).engine
    runner = create(engine, files, engine.plan(files, options, settings, detect()), settings, folder / "worker.log")
    await runner.start()
    try:
        best, answers = 0.0, {}
        for _ in range(ROUNDS):
            begun = time.monotonic()
            asked = [(adapter, index) for index in range(len(_peft.PROMPTS)) for adapter in adapters]
            texts = await asyncio.gather(*(_ask(runner, adapter, index) for adapter, index in asked))
            best = max(best, len(asked) * TOKENS / (time.monotonic() - begun))
            answers = {
                (adapter.name if adapter else "", index): text
                for (adapter, index), text in zip(asked, texts, strict=True)
            }
        assert runner.pid is not None
        return (best, _resident(runner.pid)), answers
    finally:
        await runner.stop()


async def _ask(runner: Runner, adapter: Adapter | None, index: int) -> str:
    request = Request(
        id=f"{adapter and adapter.name} {index}", kind="complete", prompt=_peft.PROMPTS[index], adapter=adapter,
        sampling=Sampling(max_tokens=TOKENS, temperature=0, ignore_eos=True),
    )  # fmt: skip
    return "".join([chunk.text async for chunks in runner.generate(request) for chunk in chunks])


def _resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
