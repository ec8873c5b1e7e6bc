"""The MCP registry's ``server.json``: one server with its packages and remotes, or the registry's answer of many.

A server.json offers ways to run the same server; the first that can be run here is taken: packages of PyPI and npm,
then images, then remotes. What a user has to give becomes configuration (``{{name.VARIABLE}}``) and secrets. The
document is kept whole and given back; its ways are written anew only where the server is another now.
"""

from __future__ import annotations

from typing import Any

import msgspec

from dockyard.errors import InvalidRequest
from dockyard.tools.catalog._registry_entry import describe, server_of
from dockyard.tools.catalog.found import Catalogue, Document, Problem, kind_of
from dockyard.tools.model import Server


class Registry:
    name = "registry"
    kinds: frozenset[str] = frozenset({"package", "container", "remote"})

    def claims(self, value: Any) -> bool:
        return any(True for _ in _documents(value))

    def read(self, document: Document, source: str) -> Catalogue:
        servers: list[Server] = []
        problems: list[Problem] = list(document.twice)
        seen: dict[str, str] = {}
        for place, one in _documents(document.value):
            name = one.get("name") if isinstance(one, dict) else None
            where = name if isinstance(name, str) and name else f"servers[{place}]"
            try:
                if not isinstance(one, dict):
                    raise InvalidRequest(f"is {kind_of(one)}, and should be a server.json")
                server = server_of(one, source)
            except InvalidRequest as error:
                problems.append(Problem(where=where, message=error.message))
                continue
            if server.name.lower() in seen:
                told = f"has the same name as {seen[server.name.lower()]!r}; the first counts"
                problems.append(Problem(where=where, message=told))
                continue
            seen[server.name.lower()] = where
            servers.append(server)
        return Catalogue(format=self.name, servers=tuple(servers), source=source, problems=tuple(problems))

    def refuses(self, server: Server) -> str | None:
        if server.kind in self.kinds:
            return None
        return f"a server.json can't describe {server.kind!r} servers"

    def write(self, catalogue: Catalogue) -> str:
        """JSON: one server.json, or the registry's list where there are several servers."""
        found = [describe(server) for server in catalogue.servers]
        whole: Any = found[0] if len(found) == 1 else {"servers": [{"server": one} for one in found]}
        return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode() + "\n"


def _documents(value: Any) -> list[tuple[int, Any]]:
    """Every server.json in a document: itself, an answer for one, or an answer for many."""
    if not isinstance(value, dict):
        return []
    if isinstance(value.get("name"), str) and ("packages" in value or "remotes" in value):
        return [(0, value)]
    inner = value.get("server")
    if isinstance(inner, dict) and "name" in inner:
        return [(0, inner)]
    many = value.get("servers", value.get("registry"))
    if isinstance(many, list) and many and all(not isinstance(one, dict) or "snapshot" not in one for one in many):
        found = [(at, one.get("server", one) if isinstance(one, dict) else one) for at, one in enumerate(many)]
        if any(isinstance(one, dict) and "name" in one for _, one in found):
            return found
    return []


PLUGIN = Registry()
