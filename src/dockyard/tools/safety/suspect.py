"""What is suspicious in a tool's definition or a server's instructions: words for models that are not about the tool.

These are patterns, and patterns can be got around; they make the cheap attacks fail and are one line of several. What
they find is held for a person to see; it is not proof.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from dockyard.tools.safety.hidden import hides
from dockyard.tools.safety.redact import texts
from dockyard.types import Json

LONGEST_DESCRIPTION = 8000
LONGEST_DEFINITION = 64_000

_PATTERNS = {
    "hides something from the user": re.compile(
        r"\b(?:do not|don'?t|never|must not|without|avoid|instead of)\b[^.\n]{0,40}"
        r"\b(?:tell|telling|inform|informing|mention|mentioning|reveal|revealing|show|showing|alert|alerting|notify|"
        r"notifying|let)\b[^.\n]{0,40}\b(?:user|human|person|anyone|operator)\b",
        re.I,
    ),
    "overrides earlier instructions": re.compile(
        r"\b(?:ignore|disregard|forget|override|bypass)\b[^.\n]{0,30}\b(?:previous|prior|above|earlier|preceding|"
        r"other|system|safety|all)\b[^.\n]{0,20}\b(?:instruction|prompt|rule|direction|guideline|message|polic)",
        re.I,
    ),
    "speaks as the system": re.compile(
        r"<\s{0,3}/?\s{0,3}(?:important|system|secret|instructions?|admin|assistant|hidden)\s{0,3}>"
        r"|<\|(?:im_start|im_end|system|assistant|start_header_id|eot_id)[^|]{0,20}\|?>?"
        r"|\[/?(?:INST|SYSTEM)\]|<<\s{0,3}/?SYS\s{0,3}>>"
        r"|^[ \t]{0,8}#{1,4}[ \t]{0,3}(?:system|new) (?:prompt|instructions?)\b",
        re.I | re.M,
    ),
    "has a hidden comment": re.compile(r"<!--"),
    "names where secrets are kept": re.compile(
        r"(?:~|\$HOME|/root|/home/[\w.-]+)?/?\.(?:ssh|aws|gnupg|kube|docker|netrc|npmrc|pypirc|config/gcloud)\b"
        r"(?=/|\s|$|[`'\",.;)])|\bid_(?:rsa|ed25519|ecdsa|dsa)\b|/etc/(?:shadow|passwd|sudoers)\b"
        r"|\b(?:mcp|claude_desktop_config)\.json\b|/proc/(?:self|\d+)/environ|\.dockyard\b|\bsecrets\.key\b",
        re.I,
    ),
    "asks for the conversation or the prompt": re.compile(
        r"\b(?:include|pass|send|put|provide|copy|append|insert|add|repeat|output|reveal|print)\b[^.\n]{0,40}"
        r"\b(?:system prompt|(?:entire|whole|full|complete|previous) (?:conversation|chat|context|history|messages?)|"
        r"(?:conversation|chat|message) history|contents? of (?:your|the) (?:memory|context))\b",
        re.I,
    ),
    "orders that it be used first or always": re.compile(
        r"\b(?:you (?:must|should|need to|have to)|always|be sure to|make sure to)\b[^.\n]{0,60}"
        r"\b(?:before|prior to|instead of|after)\b[^.\n]{0,30}\b(?:any|every|all|each|other|another)\b[^.\n]{0,20}"
        r"\b(?:tools?|calls?|actions?|requests?|functions?|commands?)\b"
        r"|\bbefore (?:using|calling|invoking|running) (?:any|this|every|other)[^.\n]{0,40}\b"
        r"(?:read|cat|open|send|fetch|load|access)\b",
        re.I,
    ),
}

_SENDING = re.compile(
    r"\b(?:send|forward|post|upload|exfiltrate|transmit|leak|bcc|copy)\b[^.\n]{0,60}"
    r"\b(?:to|at)\b[^.\n]{0,20}(?:https?://|[\w.+-]+@[\w-]+\.\w|\bmy server\b)",
    re.I,
)
_SHARP = re.compile(r"\b(?:must|always|whenever|instead|never|before|required|first|redirect|do not|don'?t)\b", re.I)
_TOOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}\Z")
_PARAMETER = re.compile(
    r"(?:^|_)(?:system_?prompt|conversation(?:_history)?|chat_history|full_context|model_name|chain_of_thought|"
    r"reasoning|all_messages|ssh_key|private_key|side_?note)(?:$|_)",
    re.I,
)


def orders(text: str) -> str | None:
    """Whether a text of any origin, such as a result, talks to the model as its user or system would; what is wrong."""
    for name in ("hides something from the user", "overrides earlier instructions", "speaks as the system"):
        if _PATTERNS[name].search(text):
            return name
    return "tells to send something away" if _SENDING.search(text) else None


def of_text(text: str) -> list[str]:
    """What is suspicious in text that models read as instructions."""
    flat = unicodedata.normalize("NFKC", text)
    found = [name for name, pattern in _PATTERNS.items() if pattern.search(flat)]
    if hides(text):
        found.append("has characters that can't be seen")
    if _SENDING.search(flat):
        found.append("tells to send something away")
    return found


def of_tool(raw: Json, others: Mapping[str, set[str]], own: set[str]) -> tuple[str, ...]:
    """What is suspicious in a tool's definition. ``others`` are the names of other servers' tools, by server; ``own``
    those of this one.
    """
    name = str(raw.get("name"))
    found: dict[str, None] = {}
    if _TOOL_NAME.match(name) is None:
        found["its name has characters that names of tools don't have"] = None
    for text in texts(raw):
        found.update(dict.fromkeys(of_text(text)))
    description = str(raw.get("description") or "")
    if len(description) > LONGEST_DESCRIPTION or sum(map(len, texts(raw))) > LONGEST_DEFINITION:
        found["is longer than a description needs to be"] = None
    for server, tool in references(raw, others, own):
        found[f"tells models how to use tool {tool!r} of server {server!r}"] = None
    schema = raw.get("inputSchema")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    for parameter in properties if isinstance(properties, dict) else ():
        if _PARAMETER.search(str(parameter)):
            found[f"wants {str(parameter)[:60]!r} of the model"] = None
    return tuple(found)


def references(raw: Json, others: Mapping[str, set[str]], own: set[str]) -> list[tuple[str, str]]:
    """Tools of other servers that a definition gives orders about.

    A name that is also an ordinary word must be marked as a name to count; one that is a key in this definition, such
    as a parameter's, does not.
    """
    found: list[tuple[str, str]] = []
    own = own | set(texts(raw)) - set(texts(raw, keys=False))
    for text in texts(raw, keys=False):
        if not _SHARP.search(text):
            continue
        for server, names in others.items():
            found += [(server, tool) for tool in names - own if tool in text and _names(text, tool, server)]
    return found


def _names(text: str, tool: str, server: str) -> bool:
    name = re.escape(tool)
    if re.search(rf"\b{re.escape(server)}(?:__|[./:]){name}\b", text):
        return True
    if re.search(r"[_\d-]|[a-z][A-Z]", tool):
        return re.search(rf"(?<![\w-]){name}(?![\w-])", text) is not None
    return re.search(rf"[`'\"]{name}[`'\"]|(?<!\w){name}(?:\(\)| tool\b)|\btool {name}\b", text) is not None
