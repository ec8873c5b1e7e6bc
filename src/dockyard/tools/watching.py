"""News of servers: lists that changed, resources that were updated; who wants to hear of them, and asking for them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator
from typing import Literal

import msgspec

from dockyard.tools.model import Server, ToolFailed
from dockyard.tools.pool import Warm
from dockyard.types import Json

log = logging.getLogger(__name__)

MOST_NEWS = 1000
ASK_SECONDS = 10.0


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Something changed at a server: a list (``what`` says which), or the resource ``uri``."""

    server: str
    what: Literal["tools", "prompts", "resources", "resource"]
    uri: str = ""


class News:
    """Passes changes to those who wait for them, by owner; a listener that is too slow loses the oldest."""

    def __init__(self) -> None:
        self._queues: dict[str, set[asyncio.Queue[Change]]] = {}
        self._wanted: dict[tuple[str, str], Counter[str]] = {}
        self._listening: dict[Warm, asyncio.Task[None]] = {}
        self._numbers = 0

    def publish(self, owner: str, change: Change) -> None:
        for queue in self._queues.get(owner, ()):
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(change)

    async def changes(self, owner: str) -> AsyncIterator[Change]:
        """Changes from now on, for as long as it is iterated."""
        queue: asyncio.Queue[Change] = asyncio.Queue(MOST_NEWS)
        self._queues.setdefault(owner, set()).add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._queues[owner].discard(queue)
            if not self._queues[owner]:
                del self._queues[owner]

    def wants(self, server: Server, owner: str) -> list[str]:
        return sorted(self._wanted.get((server.name, owner), ()))

    async def subscribe(self, warm: Warm, uri: str) -> None:
        """Hear of this resource. Raises ToolFailed if the server refuses."""
        wanted = self._wanted.setdefault((warm.server.name, warm.owner), Counter())
        wanted[uri] += 1
        warm.pinned += 1
        if wanted[uri] > 1:
            return
        try:
            if warm.link.era == "legacy":
                await warm.link.request("resources/subscribe", {"uri": uri}, seconds=ASK_SECONDS)
            else:
                self.listen(warm)
        except ToolFailed:
            self._forget(warm, uri)
            raise

    async def unsubscribe(self, warm: Warm | None, server: Server, owner: str, uri: str) -> None:
        """The opposite; nothing happens if nobody was subscribed."""
        wanted = self._wanted.get((server.name, owner), Counter())
        if wanted[uri] <= 0 or warm is None:
            wanted.pop(uri, None)
            return
        self._forget(warm, uri)
        if wanted[uri] == 0 and warm.link is not None:
            if warm.link.era == "modern":
                self.listen(warm)
            else:
                with contextlib.suppress(ToolFailed):
                    await warm.link.request("resources/unsubscribe", {"uri": uri}, seconds=ASK_SECONDS)

    def _forget(self, warm: Warm, uri: str) -> None:
        wanted = self._wanted[(warm.server.name, warm.owner)]
        wanted[uri] -= 1
        warm.pinned = max(0, warm.pinned - 1)
        if wanted[uri] <= 0:
            del wanted[uri]

    def opened(self, warm: Warm) -> None:
        """A session begins: what was subscribed to is subscribed to again."""
        uris = self.wants(warm.server, warm.owner)
        warm.pinned = len(uris)
        if warm.link.era == "modern":
            self.listen(warm)
        elif uris:
            self._listening[warm] = asyncio.create_task(self._again(warm, uris))

    async def _again(self, warm: Warm, uris: list[str]) -> None:
        for uri in uris:
            with contextlib.suppress(ToolFailed):
                await warm.link.request("resources/subscribe", {"uri": uri}, seconds=ASK_SECONDS)
        self._listening.pop(warm, None)

    def listen(self, warm: Warm) -> None:
        """Have a modern server stream its changes; the stream before this one ends."""
        before = self._listening.pop(warm, None)
        if before is not None:
            before.cancel()
        wanted: dict[str, Json] = {
            f"{kind}ListChanged": True
            for kind in ("tools", "prompts", "resources")
            if warm.link.offers(kind, "listChanged")
        }
        if uris := self.wants(warm.server, warm.owner):
            wanted["resourceSubscriptions"] = uris
        if wanted:
            self._numbers += 1
            name = f"dockyard-listen-{self._numbers}"
            self._listening[warm] = asyncio.create_task(self._stream(warm, wanted, name))

    async def _stream(self, warm: Warm, wanted: dict[str, Json], name: str) -> None:
        try:
            await warm.link.request("subscriptions/listen", {"notifications": wanted}, seconds=None, request_id=name)
        except ToolFailed as error:
            log.debug("server %r does not stream its changes: %s", warm.server.name, error.message)
        finally:
            if self._listening.get(warm) is asyncio.current_task():
                del self._listening[warm]

    async def close(self) -> None:
        left = list(self._listening.values())
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
