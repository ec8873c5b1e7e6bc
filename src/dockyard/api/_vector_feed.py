"""Takes the files of vector stores in, one sync a store at a time, while callers ask how far it is."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from dockyard.api._knowledge import bases
from dockyard.api._site import Site
from dockyard.errors import Conflict, DockyardError
from dockyard.gateway._fleet_models import FleetModels
from dockyard.knowledge.bases import Base

log = logging.getLogger(__name__)

PATIENCE = 0.5


class Feeds:
    """What is being taken in, by store. ``pending`` are the sources that wait or are under way."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._pending: dict[str, set[int]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._looked: set[str] = set()
        site.ends.append(self._end)

    def pending(self, base: Base) -> set[int]:
        return set(self._pending.get(base.name, ()))

    def add(self, base: Base, sources: list[int]) -> None:
        """Take these in soon."""
        self._pending.setdefault(base.name, set()).update(sources)
        task = self._tasks.get(base.name)
        if task is None or task.done():
            self._tasks[base.name] = asyncio.get_running_loop().create_task(self._run(base))

    def cancel(self, base: Base, sources: set[int]) -> set[int]:
        """Those of these that had not begun, and now will not."""
        waiting = self._pending.get(base.name, set())
        dropped = waiting & sources
        waiting -= dropped
        return dropped

    def look(self, base: Base) -> None:
        """Go on with what an earlier server left."""
        if base.name in self._looked:
            return
        self._looked.add(base.name)
        with base.ledger() as ledger:
            left = [one.id for one in ledger.sources() if not one.synced and not one.problem and one.about]
        if left:
            self.add(base, left)

    async def settled(self, base: Base) -> None:
        """Wait until nothing of this store is under way."""
        task = self._tasks.get(base.name)
        if task is not None and not task.done():
            await asyncio.wait({task})

    async def _run(self, base: Base) -> None:
        from dockyard.knowledge.sync import Options, sync

        models = FleetModels(self._site.fleet, lane="batch")
        while waiting := set(self._pending.get(base.name, ())):
            try:
                await sync(base, models, self._site.settings, Options(sources=tuple(waiting)))
            except Conflict as error:
                if "another sync" in error.message:
                    await asyncio.sleep(PATIENCE)
                    continue
                self._note(base, waiting, error)
            except DockyardError as error:
                self._note(base, waiting, error)
            except Exception:  # the file is told to have failed, and others are taken in
                log.exception("files of vector store %s could not be taken in", base.name)
                self._note(base, waiting, DockyardError("the server failed on this file"))
            self._pending[base.name] -= waiting

    def _note(self, base: Base, waiting: set[int], error: DockyardError) -> None:
        import msgspec

        log.warning("vector store %s: %s", base.name, error.message)
        with base.ledger() as ledger:
            for source in ledger.sources():
                if source.id in waiting:
                    ledger.note_source(msgspec.structs.replace(source, problem=error.message))

    async def _end(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await asyncio.to_thread(bases(self._site).close)


def feeds(site: Site) -> Feeds:
    """The one of this site; belongs to its event loop."""
    if site.feeds is None:
        site.feeds = Feeds(site)
    found: Any = site.feeds
    assert isinstance(found, Feeds)
    return found
