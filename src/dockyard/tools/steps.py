"""The one order of steps of every request that a tool server answers.

visible? → decide → arguments valid? → outgoing (redact) → call → incoming (clean) → audit
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import time
from collections.abc import Iterator
from typing import Any, Protocol

import msgspec

from dockyard.errors import DockyardError, InvalidRequest, NotFound
from dockyard.tools.bridge import Asking, exchange
from dockyard.tools.directory import STARTING, Directory, Kind, validator
from dockyard.tools.model import (
    SEPARATOR,
    Approval,
    ApprovalNeeded,
    Decision,
    Outcome,
    Profile,
    Server,
    Session,
    Tool,
    ToolDenied,
    ToolFailed,
)
from dockyard.tools.pool import Pool, Warm
from dockyard.tools.view import Entry, View, Views
from dockyard.types import Json

MOST_VALIDATORS = 2000
MOST_INSTRUCTIONS = 8192
"""Characters of what a server says of itself."""
RESULT = ("content", "structuredContent", "isError", "resultType", "_meta")
"""The fields of a tool's result that the protocol names."""
DECISIONS: dict[type, str] = {ToolDenied: "deny", ApprovalNeeded: "ask"}


class Safety(Protocol):
    """What ``safety.Safety`` gives: the one place where it is decided what may pass."""

    @property
    def revision(self) -> int: ...

    def define(self, server: Server, raws: list[dict[str, Json]]) -> list[Tool]: ...

    def instructions(self, server: Server, text: str) -> str: ...

    def quarantine(self, server: str | None = None) -> list[Any]: ...

    def visible(self, session: Session, tool: Tool) -> bool: ...

    def decide(self, session: Session, tool: Tool, arguments: dict[str, Json], *, asks: bool = False) -> Decision: ...

    def outgoing(self, session: Session, tool: Tool, arguments: dict[str, Json]) -> dict[str, Json]: ...

    def incoming(self, session: Session, tool: Tool, outcome: Outcome) -> Outcome: ...

    def clean(self, value: Json) -> Json: ...

    def error(self, error: Any) -> Any: ...

    def request(self, session: Session, tool: Tool, arguments: dict[str, Json], reason: str) -> Approval: ...

    def redeem(self, approval: str | None, session: Session, tool: Tool, arguments: dict[str, Json]) -> bool: ...

    def audit(
        self,
        session: Session,
        tool: Tool,
        arguments: dict[str, Json],
        *,
        decision: str,
        seconds: float,
        error: str = "",
        size: int = 0,
        method: str = "tools/call",
    ) -> None: ...

    def secrets_of(self, server: Server) -> dict[str, str]: ...


class Profiles(Protocol):
    """Where profiles are looked up. Raises NotFound."""

    def get(self, name: str) -> Profile: ...


class Steps:
    """Takes requests through all steps, or refuses them on the way."""

    def __init__(self, safety: Safety, profiles: Profiles, pool: Pool, directory: Directory) -> None:
        self._safety = safety
        self._profiles = profiles
        self._pool = pool
        self._directory = directory
        self._views = Views(directory, safety)
        self._validators: dict[bytes, Any] = {}

    def profile(self, session: Session) -> Profile:
        """What this session may use: its own selection, or else all of its profile."""
        return session.given if session.given is not None else self._profiles.get(session.profile)

    async def listed(self, session: Session, kind: Kind) -> View:
        """What the session may see, after everything of this kind was listed."""
        profile = self.profile(session)
        owner = session.principal.name
        await self._directory.all([one.server for one in profile.servers], owner, kind)
        return self._views.of(profile, owner)

    async def tools(self, session: Session) -> dict[str, Entry]:
        """The tools that this session may know of, by their names outside."""
        return self._shown(session, await self.listed(session, "tools"))

    def _shown(self, session: Session, view: View) -> dict[str, Entry]:
        return {name: entry for name, entry in view.tools.items() if self._safety.visible(session, entry.tool)}

    async def instructions(self, session: Session, seconds: float) -> str:
        """What the servers of this session say of themselves, as far as it may be passed on and is known in time."""
        profile = self.profile(session)
        owner = session.principal.name
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._directory.all([one.server for one in profile.servers], owner, "tools")
        shown = {entry.server.name for entry in self._shown(session, self._views.of(profile, owner)).values()}
        parts = []
        for one in profile.servers:
            shelf = self._directory.shelf(one.server, owner, "tools")
            text = str(self._safety.clean(self._safety.instructions(one.server, shelf.instructions)))
            if text and one.server.name in shown:
                kept = text if len(text) <= MOST_INSTRUCTIONS else text[:MOST_INSTRUCTIONS] + "…"
                called = f", whose tools are called {one.server.name}{SEPARATOR}… here" if profile.prefix else ""
                parts.append(f"# Server {one.server.name}{called}\n\n{kept}")
        return "\n\n".join(parts)

    async def take(
        self, session: Session, method: str, params: dict[str, Json], asking: Asking, approval: str | None
    ) -> dict[str, Json]:
        """A request's result, fit to pass on, or "input_required". Raises what went wrong, fit to pass on too."""
        began = time.monotonic()
        entry = await self.find(session, method, params)
        arguments = dict(params.get("arguments") or {}) if method == "tools/call" else {}
        decision, code, size = "allow", "", 0
        try:
            if method == "tools/call":
                self._decide(session, entry, arguments, approval)
                self._check(entry.tool, arguments)
                arguments = self._safety.outgoing(session, entry.tool, arguments)
                sent = {**params, "name": entry.name, "arguments": arguments}
            else:
                # Arguments of prompts, addresses of resources and half-typed values reach the server as well.
                sent = self._safety.outgoing(session, entry.tool, _meant(entry, method, params))
            result = self._received(session, entry, method, await self._send(session, entry, method, sent, asking))
            size = len(msgspec.json.encode(result))
            return result
        except DockyardError as error:
            decision, code = DECISIONS.get(type(error), "allow"), error.code
            raise self._safety.error(error) from None
        finally:
            self._safety.audit(
                session,
                entry.tool,
                arguments,
                decision=decision,
                seconds=time.monotonic() - began,
                error=code,
                size=size,
                method=method,
            )

    async def find(self, session: Session, method: str, params: dict[str, Json]) -> Entry:
        """Whose request this is. Raises NotFound naming what is near."""
        if method == "tools/call":
            tools, name = (await self.listed(session, "tools")).tools, str(params.get("name"))
            if name not in tools and (late := self._late(session, name)):
                # Whoever calls may know the tool from before, and what is started first may have to be fetched.
                await asyncio.wait([work for _, work in late], timeout=max(one.call_seconds for one, _ in late))
                tools = (await self.listed(session, "tools")).tools
            if name not in tools:
                self._missing(session, name)
            found = _known(tools, name, "tool", "name")
            if self._safety.visible(session, found.tool):
                return found
            why = self._safety.decide(session, found.tool, {}).reason
            raise ToolDenied(f"tool {found.tool.id!r} is refused: {why}")
        if method == "prompts/get":
            return _known((await self.listed(session, "prompts")).prompts, str(params.get("name")), "prompt", "name")
        if method == "completion/complete":
            ref = params.get("ref") or {}
            if "name" in ref:
                return _known((await self.listed(session, "prompts")).prompts, str(ref["name"]), "prompt", "ref")
            return await self.holder(session, str(ref.get("uri")))
        return await self.holder(session, str(params.get("uri")))

    def _late(self, session: Session, name: str) -> list[tuple[Server, asyncio.Task[None]]]:
        """The servers that may have a tool of this name and have not told yet, with what waits for them."""
        profile = self.profile(session)
        may = [one for one in profile.servers if not profile.prefix or name.startswith(one.server.name + SEPARATOR)]
        shelves = [(one.server, self._directory.shelf(one.server, session.principal.name, "tools")) for one in may]
        return [(server, shelf.late) for server, shelf in shelves if shelf.late is not None]

    def _missing(self, session: Session, name: str) -> None:
        """Raises what is known of a tool that is not listed: it is held, or its server could not be asked."""
        for one in self.profile(session).servers:
            server, begins = one.server.name, f"{one.server.name}{SEPARATOR}"
            if not name.startswith(begins):
                continue
            if any(f"{begins}{held.tool}" == name for held in self._safety.quarantine(server)):
                raise ToolDenied(f"tool {name!r} waits for a review", hint="`dockyard mcp quarantine ls` says why")
            shelf = self._directory.shelf(one.server, session.principal.name, "tools")
            if shelf.error:
                hint = shelf.hint or "mend its entry if that is the cause; the next call asks it again"
                raise ToolFailed(f"server {server!r} could not list its tools: {shelf.error}", hint=hint)
            if shelf.late:
                raise ToolFailed(f"server {server!r} has not listed its tools: {STARTING}", hint="call again")

    async def holder(self, session: Session, uri: str) -> Entry:
        """Who has this resource. Raises NotFound."""
        found = (await self.listed(session, "resources")).resources.get(uri)
        if found is None:
            found = (await self.listed(session, "templates")).matching(uri)
        if found is None:
            raise NotFound(f"no server of profile {session.profile!r} has the resource {uri[:200]!r}", param="uri")
        return found

    def _decide(self, session: Session, entry: Entry, arguments: dict[str, Json], approval: str | None) -> None:
        """Raises ToolDenied, ApprovalNeeded."""
        decision = self._safety.decide(session, entry.tool, arguments, asks=entry.asks)
        if decision.action == "deny":
            raise ToolDenied(f"tool {entry.tool.id!r} is refused: {decision.reason}")
        if decision.action == "ask" and not self._safety.redeem(approval, session, entry.tool, arguments):
            needed = ApprovalNeeded(f"tool {entry.tool.id!r} needs a person's approval: {decision.reason}")
            needed.approval = self._safety.request(session, entry.tool, arguments, decision.reason)
            needed.hint = (
                f"`dockyard mcp approvals grant {needed.approval.id}`, then call again with that id as approval"
            )
            raise needed

    def _check(self, tool: Tool, arguments: dict[str, Json]) -> None:
        """Raises InvalidRequest for arguments that the tool's schema does not allow."""
        for error in self._faults(tool.schema, arguments, tool.server):
            where = ".".join(str(part) for part in error.absolute_path)
            raise InvalidRequest(
                f"arguments of {tool.id!r}: {where + ': ' if where else ''}{error.message[:300]}",
                param=f"arguments.{where}" if where else "arguments",
            )

    def _faults(self, schema: Json, value: Json, server: str) -> Iterator[Any]:
        """What in a value breaks a schema. Raises ToolFailed for a schema that can't be followed."""
        from referencing.exceptions import Unresolvable

        try:
            yield from self._validator(schema).iter_errors(value)
        except (Unresolvable, RecursionError) as error:
            raise ToolFailed(
                f"server {server!r} gave a schema that can't be followed ({type(error).__name__})",
                hint="references that lead out of a schema are not fetched",
            ) from error

    def _validator(self, schema: Json) -> Any:
        key = msgspec.json.encode(schema)
        found = self._validators.get(key)
        if found is None:
            if len(self._validators) >= MOST_VALIDATORS:
                self._validators.clear()
            found = self._validators[key] = validator(schema)
        return found

    async def _send(
        self, session: Session, entry: Entry, method: str, params: dict[str, Json], asking: Asking
    ) -> dict[str, Json]:
        asking.ask = self._careful(session, entry.tool, asking.ask)
        async with self._pool.using(entry.server, session.principal.name, asking) as warm:
            if method == "tools/call":
                await self._unchanged(warm, entry)
            elif method == "completion/complete" and not warm.link.offers("completions"):
                return {"completion": {"values": [], "total": 0, "hasMore": False}}
            try:
                return await exchange(warm.link, method, params, asking, entry.server.call_seconds)
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
        if entry.listed not in shelf.items:
            raise ToolFailed(
                f"server {warm.server.name!r} changed or dropped its tool {entry.name!r}", hint="list the tools again"
            )

    def _careful(self, session: Session, tool: Tool, ask: Any) -> Any:
        """What a server asks its client is a result like any other, and the answer like arguments."""
        if ask is None:
            return None

        async def asking(method: str, params: Json) -> Json:
            clean = self._safety.incoming(session, tool, Outcome(structured=params)).structured
            answer = await ask(method, clean)
            return self._safety.outgoing(session, tool, answer) if isinstance(answer, dict) else answer

        return asking

    def _received(self, session: Session, entry: Entry, method: str, result: dict[str, Json]) -> dict[str, Json]:
        """A result that is fit to pass on. Raises ToolFailed for one that breaks the protocol or the tool's schema."""
        from dockyard.tools.sdk import MESSAGE_LIMIT
        from dockyard.tools.sdk_check import flaw

        size = len(msgspec.json.encode(result))
        if size > MESSAGE_LIMIT:  # pipes are bounded before, other transports by less narrow limits of their own
            raise ToolFailed(
                f"server {entry.server.name!r} answered {method!r} with {size} bytes; {MESSAGE_LIMIT} are allowed"
            )
        wrong = flaw(method, result)
        if wrong is not None:
            raise ToolFailed(f"server {entry.server.name!r} answered {method!r} with an invalid result: {wrong}")
        if method != "tools/call" or result.get("resultType") == "input_required":
            seen = self._safety.incoming(session, entry.tool, Outcome(structured=result)).structured
            return seen if isinstance(seen, dict) else {}
        schema = entry.listed.get("outputSchema")
        if schema is not None and not result.get("isError"):
            self._promised(entry, schema, result.get("structuredContent"))
        clean = self._safety.incoming(session, entry.tool, outcome_of(result))
        # Cleaning may have made a name of the protocol's out of another: such a field was checked by nobody.
        changed = {name: one for name, one in clean.extra.items() if name not in RESULT}
        changed |= {name: one for name, one in result.items() if name in RESULT}
        changed |= {"content": clean.content, "isError": clean.is_error}
        if "structuredContent" in result:
            changed["structuredContent"] = clean.structured
        if clean.meta:
            changed["_meta"] = clean.meta
        else:
            changed.pop("_meta", None)
        return changed

    def _promised(self, entry: Entry, schema: Json, content: Json) -> None:
        for error in self._faults(schema, content, entry.server.name):
            raise ToolFailed(
                f"server {entry.server.name!r}: tool {entry.name!r} broke its own outputSchema at "
                f"{'.'.join(str(part) for part in error.absolute_path) or 'the top'} ({error.validator})"
            )


def _meant(entry: Entry, method: str, params: dict[str, Json]) -> dict[str, Json]:
    """The params as the server knows them: its own name in place of the one that clients see."""
    if method == "prompts/get":
        return {**params, "name": entry.name}
    if method == "completion/complete" and "name" in params.get("ref", {}):
        return {**params, "ref": {**params["ref"], "name": entry.name}}
    return params


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


def outcome_of(result: dict[str, Json]) -> Outcome:
    """A tool's result in MCP's form as a struct."""
    return Outcome(
        content=result.get("content") or [],
        structured=result.get("structuredContent"),
        is_error=bool(result.get("isError")),
        meta=result.get("_meta") or {},
        extra={name: one for name, one in result.items() if name not in RESULT},
    )
