"""The last requests of each model, for ``GET /engines/requests``: in memory only.

What was asked and answered is kept only where the setting ``record_content`` says so; else there are times, outcomes
and counts of tokens.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from typing import Any, cast

import msgspec

from dockyard import errors
from dockyard.api._site import Site
from dockyard.settings import Settings
from dockyard.types import Call, Chunk

MOST = 10
"""Records of a model, as in Model Runner."""
MOST_MODELS = 100
FOLLOWING = 100
"""Records that may wait for one reader."""

_NUMBERS = itertools.count(1)


def records(site: Site) -> Records:
    """Those of this server, kept from the first time that somebody asks for them."""
    if site.records is None:
        assert site.gateway is not None
        found = site.records = Records(site.settings)
        parts = site.gateway.parts
        parts.telemetry.sinks.append(found.note)
        if site.settings.record_content:
            parts.observers.append(found.watch)
    return cast("Records", site.records)


class Records:
    """A telemetry sink; belongs to the event loop."""

    def __init__(self, settings: Settings) -> None:
        self._content = settings.record_content
        self._models: dict[str, deque[dict[str, Any]]] = {}
        self._readers: set[asyncio.Queue[dict[str, Any]]] = set()
        self._said: dict[str, list[str]] = {}

    def watch(self, call: Call) -> None:
        """A call begins: listen to its answer."""
        said = self._said[call.request.id] = []

        def tap(batch: list[Chunk]) -> None:
            said.extend([chunk.reasoning + chunk.text for chunk in batch])

        call.taps.append(tap)

    def note(self, call: Call, outcome: str, seconds: float) -> None:
        """A call has ended."""
        model = call.reference or call.model
        failed = outcome not in ("ok", "cancelled")
        status = errors.by_code(outcome).status if failed else (200 if outcome == "ok" else errors.Cancelled.status)
        request: dict[str, Any] = {"model": call.model, "kind": call.request.kind, "stream": call.stream}
        response: dict[str, Any] = {"finish_reason": call.finish, "seconds": seconds, "usage": _usage(call)}
        if self._content:
            request |= msgspec.to_builtins(call.request)
            response["text"] = "".join(self._said.pop(call.request.id, ()))
        record = {
            "id": f"{model}_{next(_NUMBERS)}",
            "model": model,
            "method": "POST",
            "url": call.dialect,
            "request": msgspec.json.encode(request).decode(),
            "response": msgspec.json.encode(response).decode() if not failed else "",
            "error": outcome if failed else "",
            "timestamp": int(time.time() - seconds),
            "status_code": status,
            "user_agent": "",
            "origin": call.client,
        }
        if model not in self._models and len(self._models) >= MOST_MODELS:
            del self._models[next(iter(self._models))]
        self._models.setdefault(model, deque(maxlen=MOST)).append(record)
        for reader in self._readers:
            if not reader.full():
                reader.put_nowait(record)

    def models(self) -> dict[str, list[dict[str, Any]]]:
        """Records by model, oldest first."""
        return {model: list(records) for model, records in self._models.items()}

    def follow(self) -> asyncio.Queue[dict[str, Any]]:
        """What ends from now on; a reader that is too slow misses some. ``leave`` must be called."""
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(FOLLOWING)
        self._readers.add(queue)
        return queue

    def leave(self, queue: asyncio.Queue[dict[str, Any]]) -> None:
        self._readers.discard(queue)


def _usage(call: Call) -> dict[str, int]:
    used = call.usage
    return {"prompt_tokens": used.prompt_tokens, "completion_tokens": used.completion_tokens}
