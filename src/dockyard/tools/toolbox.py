"""One façade over all tool servers for everybody: clients, served models, command line.

Nothing reaches a server, and nothing of a server reaches anybody, but through ``Toolbox`` and its ``Steps``.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from typing import Any

from dockyard.errors import EngineUnavailable
from dockyard.settings import Settings
from dockyard.tools.bridge import HANDLE, Asking, Parking, unable
from dockyard.tools.directory import Directory, Kind
from dockyard.tools.model import Outcome, Profile, Runner, Server, Session, Tool, ToolFailed
from dockyard.tools.pool import Limits, Pool, Warm
from dockyard.tools.steps import Profiles, Safety, Steps, outcome_of
from dockyard.tools.view import Entry
from dockyard.tools.watching import Change, News
from dockyard.types import Json, Principal

log = logging.getLogger(__name__)

LEVEL_SECONDS = 10.0
INSTRUCTIONS_SECONDS = 2.0
"""How long a client that begins is kept waiting for servers that do not run yet; clients wait 10 s for a beginning."""
TAINTS = 4096
"""Conversations whose taint is remembered."""
CHANGES: dict[str, tuple[Kind, ...]] = {
    "notifications/tools/list_changed": ("tools",),
    "notifications/prompts/list_changed": ("prompts",),
    "notifications/resources/list_changed": ("resources", "templates"),
}
EVERYTHING: dict[str, Json] = {"elicitation": {"form": {}}, "sampling": {}, "roots": {}}
"""What a session with ``ask`` is taken to answer; what it can't, it refuses then."""


class Toolbox:
    """All tool servers of one Dockyard. Safe to make in a cold server: nothing is imported or started before a use.

    ``safety``, ``profiles`` and ``runner`` (by kind) are those of the home; others are for programs with their own.
    ``store`` lets profiles be pushed and pulled. Close it, or servers live as long as this process.
    """

    def __init__(
        self,
        settings: Settings,
        store: Any = None,
        *,
        safety: Safety | None = None,
        profiles: Profiles | None = None,
        runner: Callable[[str], Runner] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.settings = settings
        self.safety: Any = safety if safety is not None else _safety(settings)
        self.profiles: Any = profiles if profiles is not None else _profiles(settings, store)
        self._news = News()
        limits = limits or Limits()
        self._pool = Pool(
            runner or self._runner, self.safety.secrets_of, noted=self._noted, opened=self._opened, limits=limits
        )
        self._directory = Directory(self._pool, self._changed, limits.list_seconds)
        self._steps = Steps(self.safety, self.profiles, self._pool, self._directory)
        self._parking = Parking()
        self._taints: OrderedDict[tuple[str, str, str, str], set[str]] = OrderedDict()

    def _runner(self, kind: str) -> Runner:
        from dockyard.tools.runners import runner

        return runner(kind, self.settings)

    async def start(self) -> None:
        """Check that tools can be had at all. Raises EngineUnavailable."""
        try:
            await asyncio.to_thread(importlib.import_module, "dockyard.tools.sdk")
        except ModuleNotFoundError as error:
            raise EngineUnavailable(
                "tool servers need the package `mcp`", hint="pip install 'dockyard[mcp]'"
            ) from error

    async def close(self) -> None:
        """End every session; returns when no process of a server is left."""
        await self._parking.close()
        await self._news.close()
        await self._pool.close()

    def session(self, principal: Principal, profile: str = "default", client: str = "", *, handle: str = "") -> Session:
        """A conversation. Raises NotFound for an unknown profile.

        With a ``handle``, what has flowed into earlier ones of this principal, profile, client and handle counts in
        this one too: for clients that begin anew with each request.
        """
        self.profiles.get(profile)
        session = Session(principal=principal, profile=profile, client=client)
        if handle:
            key = (principal.name, profile, client, handle)
            taint = self._taints.pop(key, None)
            session.taint = self._taints[key] = session.taint if taint is None else taint
            if len(self._taints) > TAINTS:
                self._taints.popitem(last=False)
        return session

    def profile(self, session: Session) -> Profile:
        """What this session may use: its own selection, or else all of its profile."""
        return self._steps.profile(session)

    async def listed(self, session: Session, kind: Kind) -> dict[str, Entry]:
        """Everything of a kind that this session may see, by the names outside; servers that fail are left out."""
        if kind == "tools":
            return await self._steps.tools(session)
        found: dict[str, Entry] = getattr(await self._steps.listed(session, kind), kind)
        return found

    async def instructions(self, session: Session) -> str:
        """What servers want models to know of them, cleaned and held for review as tools' definitions are.

        Servers that do not run yet are started for it; one that takes long is left out.
        """
        return await self._steps.instructions(session, INSTRUCTIONS_SECONDS)

    async def tools(self, session: Session) -> list[Tool]:
        """The tools of this session's profile, in an order that stays; servers that fail are left out."""
        return [entry.tool for entry in (await self.listed(session, "tools")).values()]

    async def prompts(self, session: Session) -> list[dict[str, Json]]:
        """The prompts, as MCP has them."""
        return [entry.raw for entry in (await self.listed(session, "prompts")).values()]

    async def resources(self, session: Session) -> list[dict[str, Json]]:
        """The resources, as MCP has them."""
        return [entry.raw for entry in (await self.listed(session, "resources")).values()]

    async def templates(self, session: Session) -> list[dict[str, Json]]:
        """The templates of resources, as MCP has them."""
        return [entry.raw for entry in (await self.listed(session, "templates")).values()]

    async def call(
        self,
        session: Session,
        tool_id: str,
        arguments: dict[str, Json],
        *,
        approval: str | None = None,
        on_progress: Any = None,
    ) -> Outcome:
        """Use a tool. ``on_progress`` is awaited with (done, total, text).

        Raises NotFound, InvalidRequest, ToolDenied, ApprovalNeeded and ToolFailed.
        """
        asking = Asking(key=session.id if session.ask else "", ask=session.ask, on_progress=on_progress)
        if session.ask is not None:
            asking.capabilities = EVERYTHING
        params: dict[str, Json] = {"name": tool_id, "arguments": arguments}
        return outcome_of(await self.exchange(session, "tools/call", params, asking, approval=approval))

    async def get_prompt(self, session: Session, name: str, arguments: dict[str, Json] | None = None) -> Json:
        """The messages of a prompt, as MCP has them."""
        return await self.exchange(session, "prompts/get", {"name": name, "arguments": arguments or {}}, Asking())

    async def read_resource(self, session: Session, uri: str) -> Json:
        """What a resource holds, as MCP has it."""
        return await self.exchange(session, "resources/read", {"uri": uri}, Asking())

    async def complete(self, session: Session, params: dict[str, Json]) -> Json:
        """Completions of an argument; ``params`` as MCP's ``completion/complete`` has them."""
        return await self.exchange(session, "completion/complete", params, Asking())

    async def exchange(
        self,
        session: Session,
        method: str,
        params: dict[str, Json],
        asking: Asking,
        *,
        approval: str | None = None,
    ) -> dict[str, Json]:
        """Any request of a client that a server answers: its result as MCP has it, or "input_required"."""
        if not asking.relays:
            return await self._steps.take(session, method, params, asking, approval)
        if not (asking.capabilities or asking.state):
            # A client that declared nothing is refused its server's questions: there is nothing to park a call for.
            asking.ask = _nobody
            return await self._steps.take(session, method, params, asking, approval)
        who = f"{session.principal.name}\0{session.profile}"
        if asking.state is not None and asking.state.startswith(HANDLE):
            return await self._parking.resume(who, [method, params], asking)
        return await self._parking.begin(
            who, [method, params], asking, lambda: self._steps.take(session, method, params, asking, approval)
        )

    async def subscribe(self, session: Session, uri: str) -> None:
        """Have ``changes`` tell when this resource is updated, until ``unsubscribe``. Raises NotFound, ToolFailed."""
        entry = await self._steps.holder(session, uri)
        async with self._pool.using(entry.server, session.principal.name, Asking()) as warm:
            await self._news.subscribe(warm, uri)

    async def unsubscribe(self, session: Session, uri: str) -> None:
        """The opposite of ``subscribe``."""
        entry = await self._steps.holder(session, uri)
        warm = next(iter(self._running(session, entry.server)), None)
        await self._news.unsubscribe(warm, entry.server, session.principal.name, uri)

    async def changes(self, session: Session) -> AsyncIterator[Change]:
        """What changes at this session's servers, from now on."""
        async for change in self._news.changes(session.principal.name):
            if any(one.server.name == change.server for one in self.profile(session).servers):
                yield change

    def _running(self, session: Session, server: Server) -> list[Warm]:
        owner = session.principal.name
        return [one for one in self._pool.sessions(server) if one.owner == owner and one.link is not None]

    async def level(self, session: Session, level: str) -> None:
        """Tell legacy servers that run which log messages this client wants."""
        for one in self.profile(session).servers:
            for warm in self._running(session, one.server):
                if warm.link.era == "legacy" and warm.link.offers("logging"):
                    try:
                        await warm.link.request("logging/setLevel", {"level": level}, seconds=LEVEL_SECONDS)
                    except ToolFailed as error:
                        log.info("server %r does not take a log level: %s", one.server.name, error.message)

    async def roots_changed(self, session: Session) -> None:
        """Tell legacy servers that run that the client's roots are others now."""
        for one in self.profile(session).servers:
            for warm in self._running(session, one.server):
                await warm.link.notify("notifications/roots/list_changed")

    async def status(self, profile: str | Profile = "default") -> list[dict[str, Json]]:
        """The servers of a profile and how they are: state, era, processes, starts, calls, and what is wrong."""
        return [
            {**self._pool.report(one.server), "flaws": self.safety.clean(self._directory.errors(one.server))}
            for one in (self.profiles.get(profile) if isinstance(profile, str) else profile).servers
        ]

    def _noted(self, warm: Warm, method: str, params: dict[str, Json]) -> None:
        """A notification of a server."""
        kinds = CHANGES.get(method)
        if kinds is not None:
            self._directory.doubt(warm.server, warm.owner, kinds)
            self._changed(warm.server, warm.owner, kinds[0])
        elif method == "notifications/resources/updated":
            uri = str(self.safety.clean(params.get("uri")))
            self._news.publish(warm.owner, Change(server=warm.server.name, what="resource", uri=uri))
        elif method == "notifications/message":
            for asking in warm.calls:
                if asking.on_log is not None:
                    asking.say(asking.on_log(self.safety.clean(params)))

    def _opened(self, warm: Warm) -> None:
        self._directory.doubt(warm.server, warm.owner)
        self._news.opened(warm)

    def _changed(self, server: Server, owner: str, kind: Kind) -> None:
        what: Any = "resources" if kind == "templates" else kind
        self._news.publish(owner, Change(server=server.name, what=what))


async def _nobody(method: str, params: Json) -> Json:  # noqa: ARG001 - whatever is asked
    raise unable(method)


def _safety(settings: Settings) -> Any:
    from dockyard.tools.safety import Safety as Found

    return Found(settings)


def _profiles(settings: Settings, store: Any) -> Any:
    from dockyard.tools.profiles import Profiles as Found

    return Found(settings.home_path, store)
