"""What servers offer, as they last said it: tools, prompts, resources and templates, by server and owner.

A listing is fetched when first wanted, and again after the server said that it changed, or was started anew. A server
that is slow, broken or dead is left out of a listing; the others are not kept waiting for it. One that has listed
before keeps its place: a call starts it again, or says what is wrong with it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from dockyard.errors import DockyardError
from dockyard.tools.bridge import Asking
from dockyard.tools.model import Server, ToolFailed
from dockyard.tools.pool import Pool, Warm
from dockyard.types import Json

log = logging.getLogger(__name__)

Kind = Literal["tools", "prompts", "resources", "templates"]

LISTS: dict[Kind, tuple[str, str, str]] = {
    "tools": ("tools/list", "tools", "tools"),
    "prompts": ("prompts/list", "prompts", "prompts"),
    "resources": ("resources/list", "resources", "resources"),
    "templates": ("resources/templates/list", "resourceTemplates", "resources"),
}
"""For each kind its method, the key of the items, and the capability of a server that has any."""

NAMED: dict[Kind, str] = {"tools": "name", "prompts": "name", "resources": "uri", "templates": "uriTemplate"}

STARTING = "it is still starting"
MOST_SHELVES = 16384
AGAIN_SECONDS = 30.0
"""After this, a server that was too slow to list is asked again."""
SOON_SECONDS = 2.0
"""After this, one that failed at once."""


class Shelf(msgspec.Struct, kw_only=True, eq=False):
    """One kind of things of one server for one owner. ``version`` grows whenever ``items`` is another list."""

    items: list[dict[str, Json]] = []
    fresh: bool = False
    version: int = 0
    error: str = ""
    hint: str = ""
    again: float = 0.0
    """Monotonic time before which it is not asked again."""
    flawed: dict[str, str] = {}
    """Things left out, with what is wrong with them."""
    work: asyncio.Task[None] | None = None
    instructions: str = ""
    """What the server said of itself when this was listed."""

    @property
    def late(self) -> asyncio.Task[None] | None:
        """The listing that is under way, where there was none before."""
        return self.work if self.work is not None and not self.work.done() and not self.version else None


class Directory:
    """``changed`` is called with a server, an owner and a kind when a listing has become another. ``seconds`` is how
    long a listing of all servers waits for one of them.
    """

    def __init__(self, pool: Pool, changed: Callable[[Server, str, Kind], None], seconds: float) -> None:
        self._pool = pool
        self._changed = changed
        self._seconds = seconds
        self._shelves: dict[tuple[str, bytes, str, Kind], Shelf] = {}

    def shelf(self, server: Server, owner: str, kind: Kind) -> Shelf:
        key = (server.name, msgspec.json.encode(server), owner, kind)
        found = self._shelves.get(key)
        if found is None:
            if len(self._shelves) >= MOST_SHELVES:
                for oldest in list(self._shelves)[: MOST_SHELVES // 2]:
                    del self._shelves[oldest]
            found = self._shelves[key] = Shelf()
        return found

    def doubt(self, server: Server, owner: str, kinds: tuple[Kind, ...] = tuple(LISTS)) -> None:
        """These listings may have changed."""
        for kind in kinds:
            shelf = self.shelf(server, owner, kind)
            shelf.fresh = False
            shelf.again = 0.0

    async def all(self, servers: list[Server], owner: str, kind: Kind) -> list[Shelf]:
        """A shelf for each server, as fresh as it can be had in time."""
        shelves = [self.shelf(server, owner, kind) for server in servers]
        late = []
        for server, shelf in zip(servers, shelves, strict=True):
            if shelf.fresh or time.monotonic() < shelf.again:
                continue
            if shelf.work is None or shelf.work.done():
                shelf.work = asyncio.create_task(self._fetch(server, owner, kind, shelf))
            late.append(shelf.work)
        if late:
            await asyncio.wait(late, timeout=self._seconds)
        return shelves

    async def _fetch(self, server: Server, owner: str, kind: Kind, shelf: Shelf) -> None:
        began = time.monotonic()
        try:
            async with self._pool.using(server, owner, Asking()) as warm:
                await self.take(warm, kind)
        except (DockyardError, TimeoutError) as error:
            reason = str(error) or f"server {server.name!r} did not list its {kind} in time"
            hint = getattr(error, "hint", None) or ""
            told = f"{reason} ({hint})" if hint else reason
            if reason != shelf.error:
                log.warning("%s of server %r are left out: %s", kind, server.name, told)
            quick = time.monotonic() - began < SOON_SECONDS
            shelf.error, shelf.hint, shelf.fresh = reason, hint, False
            shelf.again = time.monotonic() + (SOON_SECONDS if quick else AGAIN_SECONDS)
        if time.monotonic() - began > self._seconds:
            self._changed(server, owner, kind)

    async def take(self, warm: Warm, kind: Kind) -> Shelf:
        """Fetch a listing over this session. Raises ToolFailed, TimeoutError."""
        from dockyard.tools.sdk import Refusal, pages
        from dockyard.tools.sdk_check import flaw_of_item

        shelf = self.shelf(warm.server, warm.owner, kind)
        method, key, capability = LISTS[kind]
        found: list[dict[str, Json]] = []
        shelf.fresh = True  # a change that is announced from here on makes it stale again
        try:
            if warm.link.offers(capability):
                found = await pages(warm.link, method, key, seconds=warm.server.call_seconds)
        except Refusal as error:
            if error.rpc != METHOD_NOT_FOUND:
                shelf.fresh = False
                raise
        except BaseException:
            shelf.fresh = False
            raise
        flawed: dict[str, str] = {}
        kept: dict[str, dict[str, Json]] = {}
        for item in found:
            name = str(item.get(NAMED[kind]))[:200]
            wrong = "its name is used twice" if name in kept else flaw_of_item(method, key, item)
            if wrong is None and kind == "tools":
                wrong = flaw_of_schemas(item)
            if wrong is None:
                kept[name] = item
            else:
                flawed[name] = wrong
        for name, wrong in flawed.items():
            log.warning("%s %r of server %r is left out: %s", kind[:-1], name, warm.server.name, wrong)
        if kind == "tools":
            warm.link.listed(list(kept.values()))
        items = list(kept.values())
        if items != shelf.items:
            shelf.items, shelf.version = items, shelf.version + 1
        shelf.error, shelf.hint, shelf.flawed, shelf.again = "", "", flawed, 0.0
        shelf.instructions = warm.link.instructions
        return shelf

    def errors(self, server: Server) -> dict[str, str]:
        """What is wrong with what this server lists, by thing or by kind."""
        found: dict[str, str] = {}
        for (name, _, _, kind), shelf in self._shelves.items():
            if name == server.name:
                found.update({f"{kind[:-1]} {thing}": wrong for thing, wrong in shelf.flawed.items()})
                if shelf.error or shelf.late:
                    found[kind] = shelf.error or STARTING
        return found


METHOD_NOT_FOUND = -32601


def flaw_of_schemas(tool: dict[str, Json]) -> str | None:
    """What makes a tool's schemas unusable, or None. References beyond the schema itself are never followed."""
    for key in ("inputSchema", "outputSchema"):
        schema = tool.get(key)
        if schema is None:
            continue
        try:
            validator(schema)
        except ToolFailed as error:
            return f"{key}: {error.message}"
    return None


def validator(schema: Any) -> Any:
    """A compiled validator of a JSON Schema. Raises ToolFailed for one that is none."""
    from jsonschema import SchemaError
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing import Registry

    try:
        kind = validator_for(schema, default=Draft202012Validator)
        kind.check_schema(schema)
        return kind(schema, registry=Registry())
    except (SchemaError, RecursionError, TypeError, ValueError) as error:
        raise ToolFailed(f"not a JSON Schema ({type(error).__name__})") from error
