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


_READS = _words("get list read search find show describe view query lookup count check")
_WRITES = _words("create add update put make set append")
_SENDS = _words(
    "send post publish upload email mail message tweet notify push share comment reply submit invite transfer pay "
    "purchase order forward"
)
_REACHES = _words("fetch browse navigate http curl request crawl scrape webhook download")
_DESTROYS = _words(
    "delete remove drop destroy purge truncate kill terminate overwrite write edit move rename reset revoke exec run "
    "execute eval shell uninstall stop wipe erase rm unlink clean checkout rebase deploy rollback"
)
_STRANGERS = _words(
    "inbox email emails mail mails message messages issue issues comment comments url web website rss feed tweet "
    "tweets review reviews"
)
_PRIVATE = _words(
    "inbox email emails mail mails secret secrets password passwords credential credentials env memory notes contacts "
    "calendar history customer customers payroll"
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
    ordered = [word.lower() for word in _WORD.findall(name)]
    words = set(ordered)
    # What the tool does is its name's first verb: `get_order` orders nothing, and `git_push` pushes.
    verb = next((word for word in ordered if word in _READS | _WRITES | _SENDS), "")
    says = verb in _WRITES | _SENDS
    found: set[Label] = set()
    reaches_out = server.kind in ("remote", "openapi") or bool(server.sandbox.hosts)
    if reaches_out or words & _REACHES or hints.get("openWorldHint") is True:
        found |= {"untrusted-in", "external-out"}
    if words & _STRANGERS:
        found.add("external-out" if says else "untrusted-in")
    if verb in _SENDS:
        found.add("external-out")
    reads = bool(server.secrets or server.volumes or server.sandbox.read or server.sandbox.write)
    if reads or (words & _PRIVATE and not says):
        found.add("private-data")
    if words & _DESTROYS or (hints.get("destructiveHint") is True and hints.get("readOnlyHint") is not True):
        found.add("destructive")
    return frozenset(found)
