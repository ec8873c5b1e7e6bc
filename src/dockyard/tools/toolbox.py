"""One façade over all tool servers, and one order of steps on every path: clients, served models, command line.

    visible? → decide → arguments valid? → outgoing (redact) → call → incoming (clean) → audit

Nothing reaches a server, and nothing of a server reaches anybody, but through ``Toolbox.call`` and its kin.
"""

from __future__ import annotations

import asyncio
import difflib
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Protocol

import msgspec

from dockyard.errors import DockyardError, EngineUnavailable, InvalidRequest, NotFound
from dockyard.settings import Settings
from dockyard.tools.bridge import HANDLE, Asking, Parking, exchange
from dockyard.tools.directory import Directory, Kind, validator
from dockyard.tools.model import (
    Approval,
    ApprovalNeeded,
    Decision,
    Outcome,
    Profile,
    Runner,
    Server,
    Session,
    Tool,
    ToolDenied,
    ToolFailed,
)
from dockyard.tools.pool import Limits, Pool, Warm
from dockyard.tools.view import Entry, View, Views
from dockyard.tools.watching import Change, News
from dockyard.types import Json, Principal

log = logging.getLogger(__name__)

MISSING = EngineUnavailable("tool servers need the package `mcp`", hint="pip install 'dockyard[mcp]'")


class Safety(Protocol):
    """What ``safety/`` gives the toolbox: the one place where it is decided what may pass."""

    def define(self, server: Server, raws: list[dict[str, Json]]) -> list[Tool]: ...

    def decide(self, session: Session, tool: Tool, arguments: dict[str, Json]) -> Decision: ...

    def outgoing(self, session: Session, tool: Tool, arguments: dict[str, Json]) -> dict[str, Json]: ...

    def incoming(self, session: Session, tool: Tool, outcome: Outcome) -> Outcome: ...

    def request(self, session: Session, tool: Tool, arguments: dict[str, Json], reason: str) -> Approval: ...

    def redeem(self, approval: str, session: Session, tool: Tool, arguments: dict[str, Json]) -> bool: ...

    def audit(self, session: Session, tool: Tool, arguments: dict[str, Json], **facts: Any) -> None: ...


class Profiles(Protocol):
    """Where profiles are looked up. Raises NotFound."""

    def get(self, name: str) -> Profile: ...


class Toolbox:
    """All tool servers of one Dockyard. Safe to make in a cold server: nothing is imported or started before a use.

    ``safety``, ``profiles``, ``secrets`` (values of a server's secrets by name) and ``runner`` (by kind) are found
    by themselves; others are for programs that bring their own.
    """

    def __init__(
        self,
        settings: Settings,
        state: Any = None,
        store: Any = None,
        *,
        safety: Safety,
        profiles: Profiles,
        secrets: Callable[[Server], dict[str, str]],
        runner: Callable[[str], Runner] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.settings = settings
        self.profiles = profiles
        self.safety = safety
        self._news = News()
        self._pool = Pool(runner or self._runner, secrets, noted=self._noted, opened=self._opened, limits=limits)
        self._directory = Directory(self._pool, self._changed)
        self._views = Views(self._directory, safety.define)
        self._parking = Parking()
        self._validators: dict[bytes, Any] = {}

    def _runner(self, kind: str) -> Runner:
        from dockyard.tools.runners import runner

        return runner(kind, self.settings)

    async def start(self) -> None:
        """Check that tools can be had at all. Raises EngineUnavailable."""
        try:
            await asyncio.to_thread(__import__, "dockyard.tools.sdk")
        except ModuleNotFoundError as error:
            raise MISSING from error

    async def close(self) -> None:
        """End every session; returns when no process of a server is left."""
        await self._parking.close()
        await self._news.close()
        await self._pool.close()

    def session(self, principal: Principal, profile: str = "default", client: str = "") -> Session:
        """A conversation. Raises NotFound for an unknown profile."""
        self.profiles.get(profile)
        return Session(principal=principal, profile=profile, client=client)

    def profile(self, session: Session) -> Profile:
        """What this session may use: its own selection, or else all of its profile."""
        return session.given if session.given is not None else self.profiles.get(session.profile)

    def view(self, session: Session) -> View:
        """What this session may see, as far as it was listed."""
        return self._views.of(self.profile(session), session.principal.name)

    async def listed(self, session: Session, kind: Kind) -> View:
        """The same, after everything of this kind was listed."""
        profile = self.profile(session)
        servers = [one.server for one in profile.servers]
        await self._directory.all(servers, session.principal.name, kind)
        return self._views.of(profile, session.principal.name)

    async def tools(self, session: Session) -> list[Tool]:
        """The tools of this session's profile, in an order that stays; servers that fail are left out."""
        return [entry.tool for entry in (await self.listed(session, "tools")).tools.values()]

    async def prompts(self, session: Session) -> list[dict[str, Json]]:
        return [entry.raw for entry in (await self.listed(session, "prompts")).prompts.values()]

    async def resources(self, session: Session) -> list[dict[str, Json]]:
        return [entry.raw for entry in (await self.listed(session, "resources")).resources.values()]

    async def templates(self, session: Session) -> list[dict[str, Json]]:
        return [entry.raw for entry in (await self.listed(session, "templates")).templates.values()]

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
            asking.capabilities = {"elicitation": {"form": {}}, "sampling": {}, "roots": {}}
        result = await self.exchange(
            session, "tools/call", {"name": tool_id, "arguments": arguments}, asking, approval=approval
        )
        return _outcome(result)

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
            return await self._steps(session, method, params, asking, approval)
        who = f"{session.principal.name}\0{session.profile}"
        if asking.state is not None and asking.state.startswith(HANDLE):
            return await self._parking.resume(who, [method, params], asking)
        return await self._parking.begin(
            who, [method, params], asking, lambda: self._steps(session, method, params, asking, approval)
        )

    async def _steps(
        self, session: Session, method: str, params: dict[str, Json], asking: Asking, approval: str | None
    ) -> dict[str, Json]:
        began = time.monotonic()
        entry = await self._find(session, method, params)
        arguments = dict(params.get("arguments") or {}) if method == "tools/call" else {}
        facts: dict[str, Any] = {"decision": "allow", "error": ""}
        try:
            if method == "tools/call":
                self._decide(session, entry, arguments, approval)
                self._check(entry.tool, arguments)
                arguments = self.safety.outgoing(session, entry.tool, arguments)
                sent = {**params, "name": entry.name, "arguments": arguments}
            else:
                sent = self._meant(entry, method, params)
            result = await self._send(session, entry, method, sent, asking)
            return self._received(session, entry, method, result)
        except DockyardError as error:
            facts["decision"] = {ToolDenied: "deny", ApprovalNeeded: "ask"}.get(type(error), "allow")  # type: ignore[call-overload]
            facts["error"] = error.code
            raise
        finally:
            self.safety.audit(session, entry.tool, arguments, seconds=time.monotonic() - began, **facts)

    async def _find(self, session: Session, method: str, params: dict[str, Json]) -> Entry:
        """Whose request this is. Raises NotFound naming what is near."""
        if method == "tools/call":
            return _known((await self.listed(session, "tools")).tools, str(params.get("name")), "tool", "name")
        if method == "prompts/get":
            return _known((await self.listed(session, "prompts")).prompts, str(params.get("name")), "prompt", "name")
        if method == "completion/complete":
            ref = params.get("ref") or {}
            if "name" in ref:
                return _known((await self.listed(session, "prompts")).prompts, str(ref["name"]), "prompt", "ref")
            return await self._holder(session, str(ref.get("uri")))
        return await self._holder(session, str(params.get("uri")))

    async def _holder(self, session: Session, uri: str) -> Entry:
        view = await self.listed(session, "resources")
        found = view.resources.get(uri)
        if found is None:
            found = (await self.listed(session, "templates")).matching(uri)
        if found is None:
            raise NotFound(f"no server of profile {session.profile!r} has the resource {uri[:200]!r}", param="uri")
        return found

    def _decide(self, session: Session, entry: Entry, arguments: dict[str, Json], approval: str | None) -> None:
        """Raises ToolDenied, ApprovalNeeded."""
        decision = self.safety.decide(session, entry.tool, arguments)
        if decision.action == "allow" and entry.asks:
            decision = Decision(action="ask", reason="the profile asks before this tool is used")
        if decision.action == "deny":
            raise ToolDenied(f"tool {entry.tool.id!r} is refused: {decision.reason}")
        if decision.action == "ask":
            if approval is not None and self.safety.redeem(approval, session, entry.tool, arguments):
                return
            needed = ApprovalNeeded(
                f"tool {entry.tool.id!r} needs a person's approval: {decision.reason}",
                hint="approve it, and call again with the approval's id",
            )
            needed.approval = self.safety.request(session, entry.tool, arguments, decision.reason)
            raise needed

    def _check(self, tool: Tool, arguments: dict[str, Json]) -> None:
        """Raises InvalidRequest for arguments that the tool's schema does not allow."""
        for error in self._validator(tool.schema).iter_errors(arguments):
            where = ".".join(str(part) for part in error.absolute_path)
            raise InvalidRequest(
                f"arguments of {tool.id!r}: {where + ': ' if where else ''}{error.message[:300]}",
                param=f"arguments.{where}" if where else "arguments",
            )

    def _validator(self, schema: Json) -> Any:
        key = msgspec.json.encode(schema)
        found = self._validators.get(key)
        if found is None:
            if len(self._validators) > 2000:
                self._validators.clear()
            found = self._validators[key] = validator(schema)
        return found

    def _meant(self, entry: Entry, method: str, params: dict[str, Json]) -> dict[str, Json]:
        """The params as the server knows them: its own name in place of the one that clients see."""
        if method == "prompts/get":
            return {**params, "name": entry.name}
        if method == "completion/complete" and "name" in params.get("ref", {}):
            return {**params, "ref": {**params["ref"], "name": entry.name}}
        return params

    async def _send(
        self, session: Session, entry: Entry, method: str, params: dict[str, Json], asking: Asking
    ) -> dict[str, Json]:
        server = entry.server
        asking.ask = self._careful(session, entry.tool, asking.ask)
        async with self._pool.using(server, session.principal.name, asking) as warm:
            if method == "tools/call":
                await self._unchanged(warm, entry)
            try:
                return await exchange(warm.link, method, params, asking, server.call_seconds)
            except ToolFailed as error:
                if type(error) is ToolFailed:
                    self._pool.doubt(warm)
                raise

    async def _unchanged(self, warm: Warm, entry: Entry) -> None:
        """A session that began, or said that its tools changed, since the tool was looked up: is it still the same?"""
        if self._directory.shelf(warm.server, warm.owner, "tools").fresh:
            return
        try:
            shelf = await self._directory.take(warm, "tools")
        except TimeoutError:
            raise ToolFailed(f"server {warm.server.name!r} did not list its tools in time") from None
        if not any(item == entry.tool.raw or item == entry.listed for item in shelf.items):
            raise ToolFailed(
                f"server {warm.server.name!r} changed or dropped its tool {entry.name!r}", hint="list the tools again"
            )

    def _careful(self, session: Session, tool: Tool, ask: Any) -> Any:
        """What a server asks its client is a result like any other, and the answer like arguments."""
        if ask is None:
            return None

        async def asking(method: str, params: Json) -> Json:
            clean = self.safety.incoming(session, tool, Outcome(structured=params)).structured
            answer = await ask(method, clean)
            return self.safety.outgoing(session, tool, answer) if isinstance(answer, dict) else answer

        return asking

    def _received(self, session: Session, entry: Entry, method: str, result: dict[str, Json]) -> dict[str, Json]:
        """A result that is fit to pass on. Raises ToolFailed for one that breaks the protocol or the tool's schema."""
        from dockyard.tools.sdk_check import flaw

        server = entry.server.name
        wrong = flaw(method, result)
        if wrong is not None:
            raise ToolFailed(f"server {server!r} answered {method!r} with an invalid result: {wrong}")
        if method == "tools/call" and result.get("resultType") != "input_required":
            schema = entry.tool.raw.get("outputSchema")
            if schema is not None and not result.get("isError"):
                self._promised(entry, schema, result.get("structuredContent"))
            clean = self.safety.incoming(session, entry.tool, _outcome(result))
            changed: dict[str, Json] = {**result, "content": clean.content}
            if "structuredContent" in result:
                changed["structuredContent"] = clean.structured
            return changed
        seen = self.safety.incoming(session, entry.tool, Outcome(structured=result)).structured
        assert isinstance(seen, dict)
        return seen

    def _promised(self, entry: Entry, schema: Json, content: Json) -> None:
        for error in self._validator(schema).iter_errors(content):
            raise ToolFailed(
                f"server {entry.server.name!r}: tool {entry.name!r} broke its own outputSchema at "
                f"{'.'.join(str(part) for part in error.absolute_path) or 'the top'} ({error.validator})"
            )

    async def subscribe(self, session: Session, uri: str) -> None:
        """Have ``changes`` tell when this resource is updated, until ``unsubscribe``."""
        entry = await self._holder(session, uri)
        async with self._pool.using(entry.server, session.principal.name, Asking()) as warm:
            await self._news.subscribe(warm, uri)

    async def unsubscribe(self, session: Session, uri: str) -> None:
        entry = await self._holder(session, uri)
        owner = session.principal.name
        warm = next((one for one in self._pool.sessions(entry.server) if one.owner == owner and one.link), None)
        await self._news.unsubscribe(warm, entry.server, owner, uri)

    async def changes(self, session: Session) -> AsyncIterator[Change]:
        """What changes at this session's servers, from now on."""
        async for change in self._news.changes(session.principal.name):
            if any(one.server.name == change.server for one in self.profile(session).servers):
                yield change

    async def level(self, session: Session, level: str) -> None:
        """Tell legacy servers that run which log messages this client wants."""
        for one in self.profile(session).servers:
            for warm in self._pool.sessions(one.server):
                if warm.owner == session.principal.name and warm.link and warm.link.offers("logging"):
                    if warm.link.era == "legacy":
                        await warm.link.request("logging/setLevel", {"level": level}, seconds=10.0)

    async def roots_changed(self, session: Session) -> None:
        """Tell legacy servers that run that the client's roots are others now."""
        for one in self.profile(session).servers:
            for warm in self._pool.sessions(one.server):
                if warm.owner == session.principal.name and warm.link:
                    await warm.link.notify("notifications/roots/list_changed")

    async def status(self, profile: str | Profile = "default") -> list[dict[str, Json]]:
        """The servers of a profile and how they are: state, era, process, starts, calls, what is wrong."""
        found: list[dict[str, Json]] = []
        of = self.profiles.get(profile) if isinstance(profile, str) else profile
        for one in of.servers:
            record = self._pool.record(one.server)
            running = [warm for warm in self._pool.sessions(one.server) if warm.link is not None]
            resting = record.failures > 0 and not running
            found.append(
                {
                    "name": one.server.name,
                    "kind": one.server.kind,
                    "state": "ready" if running else "failed" if resting else "idle",
                    "era": record.era,
                    "version": running[0].link.version if running else None,
                    "server": running[0].link.info if running else None,
                    "pids": [warm.link.pid for warm in running if warm.link.pid is not None],
                    "sessions": len(running),
                    "starts": record.starts,
                    "calls": record.calls,
                    "reason": record.reason if resting else "",
                    "flaws": self._directory.errors(one.server),
                }
            )
        return found

    def _noted(self, warm: Warm, method: str, params: dict[str, Json]) -> None:
        """A notification of a server."""
        what = {
            "notifications/tools/list_changed": "tools",
            "notifications/prompts/list_changed": "prompts",
            "notifications/resources/list_changed": "resources",
        }.get(method)
        if what is not None:
            kinds: tuple[Any, ...] = ("resources", "templates") if what == "resources" else (what,)
            self._directory.doubt(warm.server, warm.owner, kinds)
            self._news.publish(warm.owner, Change(server=warm.server.name, what=what))  # type: ignore[arg-type]
        elif method == "notifications/resources/updated":
            uri = str(params.get("uri"))
            self._news.publish(warm.owner, Change(server=warm.server.name, what="resource", uri=uri))
        elif method == "notifications/message":
            for asking in warm.calls:
                if asking.on_log is not None:
                    asking.say(asking.on_log(params))

    def _opened(self, warm: Warm) -> None:
        self._directory.doubt(warm.server, warm.owner)
        self._news.opened(warm)

    def _changed(self, server: Server, owner: str, kind: Kind) -> None:
        what: Any = "resources" if kind == "templates" else kind
        self._news.publish(owner, Change(server=server.name, what=what))


def _known(entries: dict[str, Entry], name: str, kind: str, param: str) -> Entry:
    found = entries.get(name)
    if found is None:
        near = difflib.get_close_matches(name, entries, n=1)
        raise NotFound(
            f"there is no {kind} {name[:200]!r}",
            param=param,
            hint=f"did you mean {near[0]!r}?" if near else f"list the {kind}s to see which there are",
        )
    return found


def _outcome(result: dict[str, Json]) -> Outcome:
    return Outcome(
        content=result.get("content") or [],
        structured=result.get("structuredContent"),
        is_error=bool(result.get("isError")),
        meta=result.get("_meta") or {},
    )
