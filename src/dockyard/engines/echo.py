"""A deterministic engine that repeats what the user said: for tests, documentation and gateway benchmarks.

It plays what a real model does by rules that a test can foresee: tool calls and JSON filled from the user's words,
reasoning, embeddings and scores that follow shared words (``_echo_script``, ``_echo_numbers``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from dockyard.engines import LoadPlan, _echo
from dockyard.hardware import Hardware
from dockyard.settings import Settings
from dockyard.types import Chunk, Format, Kind, LoadOptions, ModelFiles, Request

_BREATH = 32
"""Chunks after which an answer without a speed limit lets other tasks run."""


class Echo:
    """Answers with the last user message, word by word, at ``settings.echo_tokens_per_second`` (0: at once)."""

    name = "echo"
    serves: frozenset[Kind] = _echo.SERVES
    formats: frozenset[Format] = frozenset()
    isolated = False
    extra = ""

    def __init__(self) -> None:
        self._speed = 0.0
        self._context = 0
        self._known = _echo.Vocabulary()

    def refuses(self, files: ModelFiles, hardware: Hardware) -> str | None:  # noqa: ARG002
        return None

    def plan(self, files: ModelFiles, options: LoadOptions, settings: Settings, hardware: Hardware) -> LoadPlan:  # noqa: ARG002
        return _echo.plan(self.name, files, options, settings, 0)

    async def start(self, files: ModelFiles, plan: LoadPlan) -> LoadPlan:  # noqa: ARG002
        self._speed = float(plan.details["speed"])
        self._context = plan.context
        return plan

    async def generate(self, request: Request) -> AsyncGenerator[list[Chunk], None]:
        if request.kind in ("chat", "complete"):
            chunks = _echo.answer(request, self._context, self._known)
        else:
            # Vectors of long texts take long enough to keep other requests waiting.
            yield await asyncio.to_thread(_echo.answer, request, self._context, self._known)
            return
        if self._speed:
            loop = asyncio.get_running_loop()
            begun = loop.time()
            for count, chunk in enumerate(chunks, 1):
                await asyncio.sleep(begun + count / self._speed - loop.time())
                yield [chunk]
            return
        for count, chunk in enumerate(chunks, 1):
            if not count % _BREATH:
                await asyncio.sleep(0)
            yield [chunk]

    async def close(self) -> None:
        return None


PLUGIN = Echo
