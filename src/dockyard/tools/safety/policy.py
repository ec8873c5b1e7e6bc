"""Rules of the operator, and what follows from what a conversation has already taken in."""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any, Literal, cast

import msgspec

from dockyard.errors import SettingsError
from dockyard.tools.model import Decision, Session, Tool
from dockyard.tools.safety.canonical import digest

_RULE = re.compile(r"(allow|deny|ask)\s+(\S+?)(?:/(\S+))?(?:\s+by\s+(\S+))?(?:\s+in\s+(\S+))?\s*\Z")

SUSPICIOUS = "suspicious"
"""Taint of a session that has seen text which tells models what to do."""

Taint = Literal["trifecta", "strict", "off"]


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """``action server[/tool] [by principal] [in profile]``; each but the action is a pattern of names."""

    action: Literal["allow", "deny", "ask"]
    server: str
    tool: str = "*"
    principal: str = "*"
    profile: str = "*"

    def covers(self, session: Session, tool: Tool) -> bool:
        return (
            fnmatchcase(tool.server, self.server)
            and fnmatchcase(tool.name, self.tool)
            and fnmatchcase(session.principal.name, self.principal)
            and fnmatchcase(session.profile, self.profile)
        )

    def __str__(self) -> str:
        who = f" by {self.principal}" if self.principal != "*" else ""
        where = f" in {self.profile}" if self.profile != "*" else ""
        return f"{self.action} {self.server}/{self.tool}{who}{where}"


def parse(text: str) -> Rule:
    """Raises SettingsError."""
    found = _RULE.match(text.strip())
    if found is None:
        raise SettingsError(
            f"{text[:200]!r} is no rule for tools",
            param="tools_rules",
            hint="write `allow|deny|ask SERVER[/TOOL] [by PRINCIPAL] [in PROFILE]`, such as `ask git/push* by ci-*`",
        )
    action, server, tool, principal, profile = found.groups()
    return Rule(
        action=cast(Any, action),
        server=server,
        tool=tool or "*",
        principal=principal or "*",
        profile=profile or "*",
    )


class Policy:
    """The first rule that covers a call decides; no rule gives a tool to a principal without the scope that it needs.

    Where no rule does, the call is allowed, unless the tool or taint says to ask.
    """

    def __init__(self, rules: Iterable[str], taint: Taint) -> None:
        self._rules = tuple(parse(rule) for rule in rules)
        self._taint = taint
        self.version = digest([[str(rule) for rule in self._rules], taint])[7:19]

    def decide(self, session: Session, tool: Tool) -> Decision:
        if tool.scope not in session.principal.scopes:
            return Decision(action="deny", reason=f"it needs a key with the scope {tool.scope!r}")
        for rule in self._rules:
            if rule.covers(session, tool):
                return Decision(action=rule.action, reason=f"rule `{rule}`")
        reason = why_ask(session.taint, tool, self._taint) or ("it changes what runs here" if tool.asks else "")
        return Decision(action="ask", reason=reason) if reason else Decision(action="allow")


def why_ask(taint: Iterable[str], tool: Tool, mode: Taint) -> str:
    """Why a person must agree to this tool now; empty if nobody need.

    Words of strangers may be orders. After them, destroying asks; sending asks if secrets were read too ("trifecta"),
    or in any case ("strict", or where the words looked like orders).
    """
    had = set(taint)
    if mode == "off" or not had & {"untrusted-in", SUSPICIOUS}:
        return ""
    after = "text that looks like orders" if SUSPICIOUS in had else "text of strangers"
    if "destructive" in tool.labels:
        return f"it can destroy, and this conversation has read {after}"
    if "external-out" not in tool.labels:
        return ""
    if "private-data" in had:
        return f"it can send, and this conversation has read {after} and private data"
    if mode == "strict" or SUSPICIOUS in had:
        return f"it can send, and this conversation has read {after}"
    return ""
