"""What a tool can do to a conversation, from what its entry declares, where its server runs, its hints and its name.

Declared labels count alone. Otherwise labels are added up: a hint of the server's own can add one, but none takes away
what the server's place or the tool's name says, since a hostile server would say that it is harmless.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from dockyard.tools.model import Label, Server
from dockyard.types import Json


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_DESTROYS = _words(
    "delete remove drop destroy purge truncate kill terminate overwrite write edit move rename reset "
    "revoke exec execute eval shell uninstall stop wipe erase format rm unlink clean checkout rebase "
    "deploy rollback"
)
_SENDS = _words(
    "send post publish upload email mail message tweet notify push webhook share comment reply submit "
    "fetch http curl request browse navigate invite transfer pay purchase order"
)
_HEARS = _words(
    "fetch browse navigate inbox email emails mail issue issues comment comments scrape crawl download "
    "http curl url web rss feed tweet tweets reviews"
)
_READS = _words(
    "inbox email emails mail secret secrets password passwords credential credentials env memory notes "
    "contacts calendar history customer customers payroll"
)
_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")


def labels_of(server: Server, raw: dict[str, Json]) -> frozenset[Label]:
    """The labels of a tool by its MCP definition."""
    name = str(raw.get("name"))
    declared = [found for pattern, found in server.labels.items() if fnmatchcase(name, pattern)]
    if declared:
        return frozenset(label for one in declared for label in one)
    hints = raw.get("annotations")
    hints = hints if isinstance(hints, dict) else {}
    words = {word.lower() for word in _WORD.findall(name)}
    found: set[Label] = set()
    reaches_out = server.kind in ("remote", "openapi") or bool(server.sandbox.hosts)
    if reaches_out or hints.get("openWorldHint") is True:
        found |= {"untrusted-in", "external-out"}
    if words & _HEARS:
        found.add("untrusted-in")
    if words & _SENDS:
        found.add("external-out")
    if words & _READS or server.secrets or server.volumes or server.sandbox.read or server.sandbox.write:
        found.add("private-data")
    if words & _DESTROYS or (hints.get("destructiveHint") is True and hints.get("readOnlyHint") is not True):
        found.add("destructive")
    return frozenset(found)
