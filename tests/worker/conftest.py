"""Workers around the echo engine: everything but a model is real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from dockyard.engines import builtin, create
from dockyard.fleet.worker_process import WorkerProcess
from dockyard.hardware import detect
from dockyard.settings import Settings
from dockyard.types import Chunk, LoadOptions, Message, ModelFiles, Request, Sampling

MakeWorker = Callable[..., WorkerProcess]


def echo_files() -> ModelFiles:
    files = builtin("echo-worker")
    assert files is not None
    return files


def ask(text: str, number: int = 0, sampling: Sampling | None = None, **extra: Any) -> Request:
    return Request(
        id=f"r{number}", messages=(Message(role="user", content=text),), sampling=sampling or Sampling(), extra=extra
    )


async def collect(worker: WorkerProcess, request: Request) -> list[Chunk]:
    return [chunk async for chunks in worker.generate(request) for chunk in chunks]


def said(chunks: list[Chunk], index: int = 0) -> str:
    return "".join(chunk.text for chunk in chunks if chunk.index == index)


@pytest.fixture
async def worker_of(tmp_path: Path) -> AsyncIterator[MakeWorker]:
    """Makes workers that are gone when the test is over."""
    made: list[WorkerProcess] = []

    def make(
        *, speed: float = 0.0, parallel: int = 8, flags: dict[str, Any] | None = None, **more: Any
    ) -> WorkerProcess:
        engine = create("echo-worker")
        options = LoadOptions(parallel=parallel, flags={"faults": True, **(flags or {})})
        plan = engine.plan(echo_files(), options, Settings(echo_tokens_per_second=speed), detect())
        worker = WorkerProcess(echo_files(), plan, tmp_path / "logs" / "echo.log", **more)
        made.append(worker)
        return worker

    yield make
    async with asyncio.TaskGroup() as group:
        for worker in made:
            group.create_task(worker.stop())
