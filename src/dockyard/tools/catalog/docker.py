"""Docker's catalogue: YAML (or JSON) with ``registry: {name: entry}``, and the ``snapshot``s of its artifacts.

Types that Docker knows are ``server``, ``remote`` and ``poci``. A ``poci`` entry is read, listed and written back, and
is not run: each of its tools would be a container of its own for every call.
"""

from __future__ import annotations

from typing import Any

from dockyard.errors import InvalidRequest
from dockyard.tools.catalog._entry import DOCKER_KINDS, entry_of, server_of
from dockyard.tools.catalog.found import Catalogue, Document, Problem, kind_of
from dockyard.tools.catalog.reading import dump_yaml
from dockyard.tools.model import Server


class Docker:
    """``kinds`` are those that this format has a type for."""

    name = "docker"
    kinds: frozenset[str] = frozenset(DOCKER_KINDS.values())

    def claims(self, value: Any) -> bool:
        return isinstance(value, dict) and not value.get("format") and ("registry" in value or _snapshots(value))

    def read(self, document: Document, source: str) -> Catalogue:
        value = document.value
        servers: list[Server] = []
        problems: list[Problem] = list(document.twice)
        seen: dict[str, str] = {}
        for place, name, entry in self._entries(document, problems):
            line = document.line(*place)
            if not isinstance(entry, dict):
                problems.append(Problem(where=name, message=f"is {kind_of(entry)}, and should be a table", line=line))
                continue
            try:
                server = server_of(name, entry, source)
            except InvalidRequest as error:
                told = f"{error.message}{f' ({error.hint})' if error.hint else ''}"
                problems.append(Problem(where=name, message=told, line=line))
                continue
            if server.name.lower() in seen:
                told = f"has the same name as {seen[server.name.lower()]!r}; the first counts"
                problems.append(Problem(where=name, message=told, line=line))
                continue
            seen[server.name.lower()] = name
            servers.append(server)
        extra = {key: each for key, each in value.items() if key not in ("registry", "servers", "name")}
        return Catalogue(
            format=self.name,
            servers=tuple(servers),
            name=str(value.get("name") or ""),
            title=str(value.get("displayName") or value.get("title") or ""),
            source=source,
            problems=tuple(problems),
            extra=extra,
        )

    def _entries(self, document: Document, problems: list[Problem]) -> list[tuple[tuple[str | int, ...], str, Any]]:
        value = document.value
        registry = value.get("registry")
        if isinstance(registry, dict):
            return [(("registry", name), name, entry) for name, entry in registry.items()]
        if "registry" in value:
            line = document.line("registry")
            raise InvalidRequest(f"registry is {kind_of(registry)}, and should be a table{_at(line)}", param="registry")
        found: list[tuple[tuple[str | int, ...], str, Any]] = []
        for at, item in enumerate(value["servers"]):
            snapshot = item.get("snapshot") if isinstance(item, dict) else None
            entry = snapshot.get("server") if isinstance(snapshot, dict) else None
            if not isinstance(entry, dict):
                told = "has no snapshot of its entry"
                problems.append(Problem(where=f"servers[{at}]", message=told, line=document.line("servers", at)))
                continue
            found.append((("servers", at), str(entry.get("name") or f"server-{at}"), entry))
        return found

    def refuses(self, server: Server) -> str | None:
        """Why this format can't say what the server is, or None."""
        if server.kind in self.kinds:
            return None
        return f"{self.name} catalogues have no type for {server.kind!r} servers"

    def write(self, catalogue: Catalogue) -> str:
        """YAML. The servers must be such that ``refuses`` has nothing against."""
        head: dict[str, Any] = {"name": catalogue.name} if catalogue.name else {}
        if catalogue.title:
            head["displayName"] = catalogue.title
        rest = catalogue.extra if catalogue.format in ("docker", "dockyard") else {}
        whole = {**self.head(), **head, **{key: value for key, value in rest.items() if key != "format"}}
        whole["registry"] = dict(entry_of(server) for server in catalogue.servers)
        return dump_yaml(whole)

    def head(self) -> dict[str, Any]:
        return {}


def _snapshots(value: dict[str, Any]) -> bool:
    servers = value.get("servers")
    return isinstance(servers, list) and any(isinstance(one, dict) and "snapshot" in one for one in servers)


def _at(line: int) -> str:
    return f" (line {line})" if line else ""


PLUGIN = Docker()
