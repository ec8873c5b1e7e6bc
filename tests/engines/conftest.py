"""The starter model, loaded once for each way to run llama.cpp, behind the seam that the fleet uses."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dockyard.artifact.formats import read_facts
from dockyard.engines import LoadPlan, builtin, choose
from dockyard.fleet.runner import Runner, create
from dockyard.hardware import detect
from dockyard.settings import Settings
from dockyard.types import Chunk, LoadOptions, Message, ModelFiles, Request, Sampling

LLAMA_SERVER = os.environ.get("DOCKYARD_LLAMA_SERVER") or shutil.which("llama-server")
CONTEXT = 512


def smol(path: Path) -> ModelFiles:
    """What the data plane says of the starter model."""
    facts = read_facts([path])
    return ModelFiles(
        reference="docker.io/ai/smollm2:latest", digest="sha256:0", directory=str(path.parent), format="gguf",
        weights=(str(path),), facts=facts,
    )  # fmt: skip


def settings_of(driver: str) -> Settings:
    if driver != "native":
        return Settings(native_llama=False)
    if LLAMA_SERVER is None:
        pytest.skip("no native llama-server: none on the path, and DOCKYARD_LLAMA_SERVER names none")
    return Settings(llama_server=LLAMA_SERVER)


def prepare(files: ModelFiles, driver: str, log: Path, **options: Any) -> tuple[Runner, LoadPlan]:
    """A runner, not started, as the fleet would make it."""
    settings = settings_of(driver)
    if driver == "openvino":
        pytest.importorskip("openvino_genai", reason="the extra `openvino` is not installed")
        settings, options = Settings(home=str(log.parent / "home")), {"engine": driver, **options}
    chosen = choose(files, LoadOptions(**options), settings, detect()).engine
    plan = chosen.plan(files, LoadOptions(**options), settings, detect())
    return create(chosen, files, plan, settings, log), plan


def ask(text: str, number: int = 0, sampling: Sampling | None = None, **extra: Any) -> Request:
    messages = (Message(role="user", content=text),)
    return Request(id=f"r{number}", messages=messages, sampling=sampling or Sampling(max_tokens=8), extra=extra)


def go_on(prompt: str | list[int], sampling: Sampling | None = None, **extra: Any) -> Request:
    return Request(
        id="c", kind="complete", prompt=prompt, sampling=sampling or Sampling(max_tokens=8, temperature=0), extra=extra
    )


async def collect(runner: Runner, request: Request) -> list[Chunk]:
    return [chunk async for chunks in runner.generate(request) for chunk in chunks]


def said(chunks: list[Chunk], index: int = 0) -> str:
    return "".join(chunk.text for chunk in chunks if chunk.index == index)


# For a module, not the session: other modules look that no worker of theirs is left.
@pytest.fixture(scope="module", params=["embedded", "native"])
async def llama(
    request: pytest.FixtureRequest, starter_gguf: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Runner]:
    """The starter model under llama.cpp: a context of 512 tokens, eight requests together."""
    log = tmp_path_factory.mktemp("logs") / f"{request.param}.log"
    runner, _ = prepare(smol(starter_gguf), request.param, log, context=CONTEXT, parallel=8, threads=1)
    await runner.start()
    yield runner
    await runner.stop()


@pytest.fixture(scope="module", params=["echo", "echo-worker", "embedded", "native", "openvino"])
async def any_engine(
    request: pytest.FixtureRequest, starter_gguf: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Runner]:
    """Every engine there is, loaded."""
    log = tmp_path_factory.mktemp("logs") / f"{request.param}.log"
    files = builtin(request.param) or smol(starter_gguf)
    options = {} if files.digest.startswith("builtin:") else {"context": CONTEXT, "parallel": 8, "threads": 1}
    runner, _ = prepare(files, request.param, log, **options)
    await runner.start()
    yield runner
    await runner.stop()
