"""What a server keeps for its callers: responses, conversations, files and batches, opened when first asked for.

An application without a database, which is one inside another program, keeps them in memory and in a folder that goes
with it.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litestar import Request

from dockyard.api._site import Site
from dockyard.state import IN_MEMORY, State
from dockyard.state._place import place_of
from dockyard.state.batches import Batches
from dockyard.state.conversations import Conversations
from dockyard.state.files import Files
from dockyard.state.responses import Responses
from dockyard.types import Principal

if TYPE_CHECKING:
    from dockyard.gateway.batch import Runner

log = logging.getLogger(__name__)

SWEEP_SECONDS = 3600.0
_MAKING = threading.Lock()


class Kept:
    """The tables of one site. Use ``opened`` to get at them. ``running`` holds background responses by id;
    ``runner`` is there once batches run.
    """

    responses: Responses
    conversations: Conversations
    files: Files
    batches: Batches

    def __init__(self, site: Site) -> None:
        self._site = site
        self._opening = asyncio.Lock()
        self._open = False
        self._jobs: set[asyncio.Task[None]] = set()
        self.running: dict[str, Any] = {}
        self.runner: Runner | None = None

    async def opened(self) -> Kept:
        """This, with its tables at hand. Raises SettingsError if the database can't be used."""
        async with self._opening:
            if not self._open:
                await self._make()
                self._open = True
                self.spawn(self._sweep())
                self._site.ends.append(self._end)
        return self

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine until it ends or the application does."""
        task = asyncio.get_running_loop().create_task(work)
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)
        return task

    async def _make(self) -> None:
        site = self._site
        state, home = site.state, site.settings.home_path
        if state is None:
            state, folder = State(IN_MEMORY), Path(tempfile.mkdtemp(prefix="dockyard-files-"))
            await state.open()
            place = "memory"

            async def drop() -> None:
                await state.close()
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

            site.ends.append(drop)
        else:
            place, folder = await asyncio.to_thread(place_of, home), home / "files"
        self.responses = Responses(state, place)
        self.conversations = Conversations(state)
        self.files = Files(state, place, folder)
        self.batches = Batches(state, place, self.files)
        await self.responses.settle()

    async def _sweep(self) -> None:
        while True:
            try:
                await self.responses.sweep()
                await self.files.sweep()
            except Exception:  # the next round may go better, and nobody waits for this one
                log.exception("what has expired could not be removed")
            await asyncio.sleep(SWEEP_SECONDS)

    async def _end(self) -> None:
        for job in list(self._jobs):
            job.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)


def kept(site: Site) -> Kept:
    """The one of this site."""
    with _MAKING:
        if site.kept is None:
            site.kept = Kept(site)
    found: Kept = site.kept
    return found


async def caller(site: Site, request: Request[Any, Any, Any]) -> tuple[Kept, Principal]:
    """What is kept, and for whom."""
    return await kept(site).opened(), await site.principal(dict(request.scope["headers"]))


def page_of(rows: list[dict[str, Any]], *, more: bool) -> dict[str, Any]:
    """A page as OpenAI's clients read it."""
    first, last = (rows[0]["id"], rows[-1]["id"]) if rows else (None, None)
    return {"object": "list", "data": rows, "first_id": first, "last_id": last, "has_more": more}
