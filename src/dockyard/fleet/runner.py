"""What the fleet holds for each loaded model: something that runs one engine, wherever it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

import msgspec

from dockyard.engines import ChunkStream, Engine, InlineEngine, LoadPlan
from dockyard.errors import WorkerCrashed
from dockyard.settings import Settings
from dockyard.types import ModelFiles, Request


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """News of a finished load: the plan as it came out, resident bytes after it (None inline), and how long it took."""

    plan: LoadPlan
    measured: int | None = None
    seconds: float = 0.0


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How a runner came to its end. ``expected`` is True after ``stop``.

    ``reason`` is a sentence ("killed by SIGKILL", "exit status 1", "hung: no heartbeat for 60 s"); ``log_tail`` the
    last lines it logged, oldest first.
    """

    expected: bool
    reason: str
    log_tail: tuple[str, ...] = ()


class Runner(Protocol):
    """One engine with one model loaded, seen from the gateway's event loop. Not reusable: start, use, stop, drop.

    All methods belong to the event loop that called ``start``.
    """

    @property
    def pid(self) -> int | None:
        """The worker process; None before ``start`` and for inline engines."""
        ...

    @property
    def alive(self) -> bool:
        """True from a successful ``start`` until it stops or dies."""
        ...

    @property
    def log_path(self) -> Path | None:
        """Where the worker's output goes; None for inline engines."""
        ...

    async def start(self) -> Started:
        """Spawn and load. Raises LoadFailed (or what the engine raised), leaving nothing behind; so does cancelling."""
        ...

    def generate(self, request: Request) -> ChunkStream:
        """Begin a request; ``request.id`` must be unique among those open. ``aclose`` cancels at once.

        Iterating raises the engine's DockyardError, or WorkerCrashed if the worker dies under it.
        Requests beyond ``plan.parallel`` queue in the worker, first come first served; how many may come is the
        caller's to decide.
        """
        ...

    def rss(self) -> int | None:
        """Resident bytes of the worker and its children as last reported; None where there is no worker."""
        ...

    async def wait_exit(self) -> Exit:
        """Wait until it has ended, however that happens. May be awaited by several, and after the end."""
        ...

    async def stop(self, drain: float = 0.0) -> None:
        """Let open requests finish for up to ``drain`` seconds, then end it for certain. Idempotent."""
        ...


def create(
    engine: Engine,
    files: ModelFiles,
    plan: LoadPlan,
    settings: Settings,
    log_path: Path,
    begun: Callable[[int], None] | None = None,
) -> Runner:
    """The runner that this engine wants: a worker process if it is isolated, else inline.

    ``begun`` is called with the number of the process before anything is loaded in it.
    """
    if not engine.isolated:
        return InlineRunner(cast("InlineEngine", engine), files, plan)
    from dockyard.fleet.worker_process import WorkerProcess

    return WorkerProcess(files, plan, log_path, load_seconds=settings.load_seconds, begun=begun)


class InlineRunner:
    """Runs an inline engine in the gateway's own event loop. A stream that is open when it stops ends by itself."""

    log_path: Path | None = None
    pid: int | None = None

    def __init__(self, engine: InlineEngine, files: ModelFiles, plan: LoadPlan) -> None:
        self._engine = engine
        self._files = files
        self._plan = plan
        self._ended = asyncio.Event()
        self._alive = False

    @property
    def alive(self) -> bool:
        return self._alive

    async def start(self) -> Started:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        plan = await self._engine.start(self._files, self._plan)
        self._alive = True
        return Started(plan=plan, seconds=loop.time() - begun)

    def generate(self, request: Request) -> ChunkStream:
        if not self._alive:
            raise WorkerCrashed(f"{self._files.reference} is not loaded")
        return self._engine.generate(request)

    def rss(self) -> int | None:
        return None

    async def wait_exit(self) -> Exit:
        await self._ended.wait()
        return Exit(expected=True, reason="stopped")

    async def stop(self, drain: float = 0.0) -> None:  # noqa: ARG002 - streams that are open end by themselves
        if self._ended.is_set():
            return
        self._alive = False
        self._ended.set()
        await self._engine.close()
