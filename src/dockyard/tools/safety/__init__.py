"""The one place that says what may pass between models, clients and tool servers, and cleans what does.

definitions of tools ── define: labels, pins, suspicion ──> offered, or held for review
a call ── decide: rules, taint ──> allow | deny | ask a person (approvals)
  arguments ── outgoing: no secret of another server, no credentials ──> server
  result ── incoming: secrets out, hidden text out, cut, taint ──> model
all of it ──> audit
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from dockyard.errors import DockyardError
from dockyard.settings import Settings
from dockyard.tools import platform
from dockyard.tools.model import Approval, Decision, Outcome, Server, Session, Tool, ToolDenied
from dockyard.tools.safety import suspect
from dockyard.tools.safety.approvals import Approvals, Standing
from dockyard.tools.safety.audit import Audit
from dockyard.tools.safety.canonical import digest
from dockyard.tools.safety.cleaning import Cleaner
from dockyard.tools.safety.labels import labels_of
from dockyard.tools.safety.pins import INSTRUCTIONS, Held, Pins, fingerprint
from dockyard.tools.safety.policy import SUSPICIOUS, Policy
from dockyard.tools.secrets import SecretStore
from dockyard.types import Json, Principal

__all__ = ["INSTRUCTIONS", "Held", "Safety", "fingerprint"]

log = logging.getLogger(__name__)

E = TypeVar("E", bound=BaseException)


class Safety:
    """The safety of one home. Cheap to make; files are read when they are first needed."""

    def __init__(self, settings: Settings, home: Path | None = None, secrets: SecretStore | None = None) -> None:
        home = home or settings.home_path
        self.secrets = secrets or SecretStore(home)
        self.log = Audit(home)
        self._settings = settings
        self._policy = Policy(settings.tools_rules, cast(Any, settings.tools_taint))
        self._pins = Pins(home, cast(Any, settings.tools_pin))
        self._approvals = Approvals(home, settings.tools_approval_seconds, self._policy.version)
        self._cleaner = Cleaner(settings, self.secrets)
        self._offered: dict[str, tuple[Server, list[dict[str, Json]]]] = {}

    # what servers offer

    @property
    def revision(self) -> int:
        """Changes when ``define`` may give another answer for the same definitions: a review, here or elsewhere."""
        return self._pins.revision

    def define(self, server: Server, raws: list[dict[str, Json]]) -> list[Tool]:
        """The tools among these definitions that may be offered, labelled. The others are held: see ``quarantine``."""
        self._cleaner.introduce(server)
        found = {str(raw.get("name")): raw for raw in raws if raw.get("name") != INSTRUCTIONS}
        self._offered[server.name] = (server, raws)
        others = {name: self._pins.names(name) for name in {*self._offered, *self._pins.servers()} - {server.name}}
        reasons = {name: suspect.of_tool(raw, others, set(found)) for name, raw in found.items()}
        passing = self._pins.passes(server.name, found, reasons)
        self._look_back(server.name, set(found))
        return [
            Tool(
                id=f"{server.name}__{name}",
                server=server.name,
                name=name,
                raw=raw,
                labels=labels_of(server, raw),
                fingerprint=fingerprint(raw),
                scope="manage" if server.kind == platform.KIND else "infer",
                asks=server.kind == platform.KIND and name not in platform.READS,
            )
            for name, raw in found.items()
            if name in passing
        ]

    def _look_back(self, server: str, names: set[str]) -> None:
        """Hold tools of other servers, seen earlier, that give orders about this one's."""
        for other, (_, raws) in self._offered.items():
            if other == server:
                continue
            own = {str(raw.get("name")) for raw in raws}
            for raw in raws:
                if about := suspect.references(raw, {server: names}, own):
                    reasons = tuple(f"tells models how to use tool {tool!r} of server {at!r}" for at, tool in about)
                    self._pins.hold(other, str(raw.get("name")), reasons)

    def instructions(self, server: Server, text: str) -> str:
        """A server's own instructions if they may be passed on, else nothing."""
        reasons = {INSTRUCTIONS: tuple(suspect.of_text(text))}
        return text if text and self._pins.passes(server.name, {INSTRUCTIONS: text}, reasons) else ""

    def quarantine(self, server: str | None = None) -> list[Held]:
        """Definitions that wait for a review or were refused."""
        return self._pins.held(server)

    def review(self, server: str, tool: str, accept: bool, fingerprint: str | None = None) -> None:
        """A person's verdict on a held definition; see ``Pins.review``."""
        self._pins.review(server, tool, accept, fingerprint)

    def forget(self, server: str) -> None:
        """Trust the next definitions of this server as if it were new."""
        self._pins.forget(server)

    def fingerprints(self, server: str) -> dict[str, str]:
        """Of the definitions that were accepted last, by tool."""
        return self._pins.fingerprints(server)

    # calls

    def visible(self, session: Session, tool: Tool) -> bool:
        """Whether this session may know of the tool: one that is denied or held by now is not listed."""
        return self._policy.decide(session, tool).action != "deny" and not self._pins.holds(tool)

    def decide(self, session: Session, tool: Tool, arguments: dict[str, Json], *, asks: bool = False) -> Decision:
        """What is to be done about a call. ``asks``: the profile wants each use of this tool to be approved."""
        if self._pins.holds(tool):
            return Decision(action="deny", reason="it waits for a review")
        decision = self._policy.decide(session, tool)
        if decision.action == "allow" and asks:
            decision = Decision(action="ask", reason="the profile asks before this tool is used")
        if decision.action == "ask" and self._approvals.refused(session, tool, arguments):
            return Decision(action="deny", reason="a person refused this call")
        return decision

    def outgoing(self, session: Session, tool: Tool, arguments: dict[str, Json]) -> dict[str, Json]:
        """Arguments that may go to the tool's server. Raises ToolDenied if another's secret is in them."""
        try:
            return self._cleaner.outgoing(tool, arguments)
        except ToolDenied as error:
            log.warning("session %s of %r: %s", session.id, session.principal.name, error.message)
            raise

    def incoming(self, session: Session, tool: Tool, outcome: Outcome) -> Outcome:
        """A result without secrets and hidden text, not too long; what it is, is remembered of the session.

        ``meta["dockyard/safety"]`` says where text of strangers is from, and what was done to a result that is not
        as it was. Raises ToolFailed where a result can't be cleaned, ToolDenied where settings block it.
        """
        clean, ordering = self._cleaner.incoming(tool, outcome)
        session.taint |= {label for label in tool.labels if label in ("untrusted-in", "private-data")}
        if ordering:
            session.taint.add(SUSPICIOUS)
            log.warning("a result of tool %r %s", tool.id, ordering)
        return clean

    def clean(self, value: Json) -> Json:
        """Anything of a server that is no result, such as a message, log line or progress, without secrets."""
        return self._cleaner.clean(value)

    def error(self, error: E) -> E:
        """The same error with nothing in its words that may not pass."""
        if isinstance(error, DockyardError):
            error.message = str(self.clean(error.message))
            error.hint = None if error.hint is None else str(self.clean(error.hint))
            error.args = (error.message,)
            error.__cause__ = error.__context__ = None
        return error

    # approvals

    def request(self, session: Session, tool: Tool, arguments: dict[str, Json], reason: str) -> Approval:
        """A question about this call, the same if it was asked already."""
        return self._approvals.request(session, tool, arguments, self.clean(arguments), reason)

    def approvals(self, principal: Principal | None = None) -> list[tuple[Approval, Standing]]:
        """Questions and how they stand; those of one principal unless it may manage."""
        return self._approvals.known(principal)

    def grant(self, id: str, principal: Principal, ok: bool) -> Approval:
        """Answer a question. Raises NotFound, Forbidden, Conflict."""
        return self._approvals.grant(id, principal, ok)

    def redeem(self, approval: str | None, session: Session, tool: Tool, arguments: dict[str, Json]) -> bool:
        """Whether the call is approved; the approval is used up. Without an id, any granted one that fits counts."""
        return self._approvals.redeem(approval or "", session, tool, arguments)

    # the record

    def audit(
        self,
        session: Session,
        tool: Tool,
        arguments: dict[str, Json],
        *,
        decision: Literal["allow", "deny", "ask"] | str,
        seconds: float,
        error: str = "",
        size: int = 0,
        method: str = "tools/call",
    ) -> None:
        """Write down a call: ``error`` is a code, ``size`` the bytes of its result."""
        facts: dict[str, Json] = {
            "at": round(time.time(), 3),
            "principal": session.principal.name,
            "client": session.client[:200],
            "session": session.id,
            "profile": session.profile,
            "method": method,
            "server": tool.server,
            "tool": tool.name,
            "fingerprint": tool.fingerprint,
            "arguments_digest": digest(arguments),
            "decision": decision,
            "error": error,
            "seconds": round(seconds, 6),
            "size": size,
            "taint": sorted(session.taint),
        }
        if self._settings.tools_audit_values:
            facts["arguments"] = self.clean(arguments)
        self.log.write(facts)

    def secrets_of(self, server: Server) -> dict[str, str]:
        """The values of a server's secrets, which are its alone to be sent from now on. Raises NotFound."""
        return self._cleaner.secrets_of(server)
