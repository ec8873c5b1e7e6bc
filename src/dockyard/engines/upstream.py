"""Models of other servers, served as if they were here: another Dockyard, a hosted API, a cloud.

Which servers there are is the setting ``upstreams``; callers name ``SERVER/model`` and can't bring addresses of their
own. What speaks OpenAI's API is called directly; what does not, through the library of the extra ``upstream``.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Protocol

import msgspec

from dockyard.engines import LoadPlan
from dockyard.engines._upstream_errors import Refusal
from dockyard.engines._upstream_wire import checked
from dockyard.errors import (
    DockyardError,
    EngineError,
    InvalidRequest,
    Overloaded,
    RateLimited,
    SettingsError,
    UpstreamError,
)
from dockyard.hardware import Hardware
from dockyard.settings import Settings, Upstream
from dockyard.types import Chunk, Format, Kind, LoadOptions, ModelFiles, Request

PARALLEL = 64
FIRST_WAIT = 0.5
LONGEST_WAIT = 20.0
"""Seconds that a retry may wait; where a server asks for more, the caller is told."""


class Carrier(Protocol):
    """One way to reach a server."""

    def stream(self, request: Request, model: str) -> AsyncGenerator[list[Chunk], None]: ...

    async def close(self) -> None: ...


class Remote:
    """``parallel`` is how many requests may be under way there; nothing of it takes memory here."""

    name = "upstream"
    serves: frozenset[Kind] = frozenset({"chat", "complete", "embed", "rerank"})
    formats: frozenset[Format] = frozenset()
    isolated = False
    extra = "upstream"

    def __init__(self) -> None:
        self._carrier: Carrier | None = None
        self._model = ""
        self._retries = 0

    def refuses(self, files: ModelFiles, hardware: Hardware) -> str | None:  # noqa: ARG002
        return None if files.digest.startswith("upstream:") else "it serves models of other servers only"

    def plan(self, files: ModelFiles, options: LoadOptions, settings: Settings, hardware: Hardware) -> LoadPlan:  # noqa: ARG002
        server, _, model = files.reference.partition("/")
        upstream = settings.upstreams.get(server)
        if upstream is None:
            raise InvalidRequest(f"there is no upstream {server!r}", param="model", hint="see the setting `upstreams`")
        if options.flags:
            raise InvalidRequest(f"another server's model takes no flags such as {next(iter(options.flags))!r}",
                                 param="flags")  # fmt: skip
        return LoadPlan(
            engine=self.name,
            context=options.context or upstream.context,
            parallel=options.parallel or settings.parallel or PARALLEL,
            details={"server": server, "model": model, "upstream": msgspec.to_builtins(upstream)},
        )

    async def start(self, files: ModelFiles, plan: LoadPlan) -> LoadPlan:  # noqa: ARG002
        upstream = msgspec.convert(plan.details["upstream"], Upstream)
        server = str(plan.details["server"])
        key = await asyncio.to_thread(_key, server, upstream)
        refusal = Refusal(f"upstream {server}", key)
        if upstream.provider == "openai":
            from dockyard.engines._upstream_http import Http

            self._carrier = Http(upstream, key, refusal)
        else:
            from dockyard.engines._upstream_library import Library

            self._carrier = await asyncio.to_thread(Library, upstream, key, refusal)
        self._model = str(plan.details["model"])
        self._retries = upstream.retries
        return plan

    async def generate(self, request: Request) -> AsyncGenerator[list[Chunk], None]:
        if self._carrier is None:
            raise EngineError("no upstream is connected")
        if request.kind not in self.serves:
            raise InvalidRequest(f"another server's model can't be asked to {request.kind}")
        checked(request)
        begun = False
        for attempt in range(self._retries + 1):
            try:
                async with aclosing(self._carrier.stream(request, self._model)) as stream:
                    async for chunks in stream:
                        begun = True
                        yield chunks
                return
            except (UpstreamError, Overloaded, RateLimited) as error:
                wait = _wait(error, attempt)
                if begun or attempt == self._retries or wait is None:
                    raise
            await asyncio.sleep(wait)

    async def close(self) -> None:
        carrier, self._carrier = self._carrier, None
        if carrier is not None:
            await carrier.close()


def _wait(error: DockyardError, attempt: int) -> float | None:
    """Seconds before the next try: what the server asked for, else twice as long each time; None: don't."""
    if isinstance(error, UpstreamError) and error.hint is not None:
        return None  # a hint says what is to be done about it: waiting is not
    if error.retry_after is not None and error.retry_after > LONGEST_WAIT:
        return None
    spread = random.uniform(0.5, 1.0)  # noqa: S311 - so that those who failed together do not come back together
    return max(error.retry_after or 0.0, FIRST_WAIT * float(2**attempt) * spread)


def _key(server: str, upstream: Upstream) -> str:
    """The key, from where the operator keeps it. Raises SettingsError that names the place, never what is in it."""
    if upstream.api_key_env:
        key = os.environ.get(upstream.api_key_env, "")
        place = f"the environment variable {upstream.api_key_env}"
    elif upstream.api_key_file:
        place = f"the file {upstream.api_key_file}"
        try:
            key = Path(upstream.api_key_file).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"upstream {server}: {place} can't be read: {type(error).__name__}", param="upstreams"
            ) from None
    else:
        return ""
    key = key.strip()
    if not key or not key.isascii() or not key.isprintable():
        raise SettingsError(
            f"upstream {server}: {place} holds no key", param="upstreams", hint="one line, without quotes"
        )
    return key


PLUGIN = Remote
