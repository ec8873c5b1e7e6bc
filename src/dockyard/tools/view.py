"""What one profile shows to one owner: the things of its servers under their names outside."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Protocol

import msgspec

from dockyard.tools.directory import LISTS, Directory, Kind
from dockyard.tools.model import Enabled, Profile, Server, Tool
from dockyard.tools.naming import outside
from dockyard.types import Json


class Definer(Protocol):
    """Who turns definitions into tools, and cleans other definitions; ``revision`` says when it changed its mind."""

    @property
    def revision(self) -> int: ...

    def define(self, server: Server, raws: list[dict[str, Json]]) -> list[Tool]: ...

    def clean(self, value: Json) -> Json: ...


MOST_VIEWS = 256


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a client may name. ``name`` is the server's own name of it, ``raw`` its definition as clients
    see it and ``listed`` as the server gave it. ``tool`` stands for it in questions of safety. ``asks``: the profile
    wants a person to agree to each use.
    """

    server: Server
    name: str
    raw: dict[str, Json]
    listed: dict[str, Json]
    tool: Tool
    asks: bool = False


class View(msgspec.Struct, kw_only=True):
    """Entries by the names that clients use, in the profile's order of servers and the servers' own order."""

    tools: dict[str, Entry] = {}
    prompts: dict[str, Entry] = {}
    resources: dict[str, Entry] = {}
    templates: dict[str, Entry] = {}
    versions: tuple[int, ...] = ()

    def matching(self, uri: str) -> Entry | None:
        """The first template that this URI is of, or is."""
        from mcp.shared.uri_template import UriTemplate

        for template, entry in self.templates.items():
            if template == uri:
                return entry
            try:
                if UriTemplate.parse(template).match(uri) is not None:
                    return entry
            except ValueError:
                continue
        return None


class Views:
    """Views as they are now, made again only when a listing changed, or what is thought of it."""

    def __init__(self, directory: Directory, definer: Definer) -> None:
        self._directory = directory
        self._definer = definer
        self._made: dict[tuple[str, str], tuple[Profile, View]] = {}

    def of(self, profile: Profile, owner: str) -> View:
        listed = (self._directory.shelf(one.server, owner, kind).version for one in profile.servers for kind in LISTS)
        versions = (self._definer.revision, *listed)
        key = (profile.name, owner)
        made = self._made.get(key)
        if made is not None and made[0] == profile and made[1].versions == versions:
            return made[1]
        if len(self._made) >= MOST_VIEWS:
            self._made.clear()
        view = self._make(profile, owner, versions)
        self._made[key] = (profile, view)
        return view

    def _make(self, profile: Profile, owner: str, versions: tuple[int, ...]) -> View:
        return View(
            tools=self._tools(profile, owner),
            prompts=self._prompts(profile, owner),
            resources=self._addressed(profile, owner, "resources", "uri"),
            templates=self._addressed(profile, owner, "templates", "uriTemplate"),
            versions=versions,
        )

    def _tools(self, profile: Profile, owner: str) -> dict[str, Entry]:
        found: list[tuple[Enabled, Tool, dict[str, Json]]] = []
        for one in profile.servers:
            items = self._directory.shelf(one.server, owner, "tools").items
            by_name = {str(item.get("name")): item for item in items}
            found += [
                (one, tool, by_name.get(tool.name, tool.raw))
                for tool in self._definer.define(one.server, items)
                if one.tools is None or any(fnmatchcase(tool.name, pattern) for pattern in one.tools)
            ]
        names = outside([(one.server.name, tool.name) for one, tool, _ in found], prefix=profile.prefix)
        return {
            name: Entry(
                server=one.server,
                name=tool.name,
                raw={**tool.raw, "name": name},
                listed=listed,
                tool=msgspec.structs.replace(tool, id=name),
                asks=any(fnmatchcase(tool.name, pattern) for pattern in one.approve),
            )
            for name, (one, tool, listed) in zip(names, found, strict=True)
        }

    def _prompts(self, profile: Profile, owner: str) -> dict[str, Entry]:
        found = [
            (one.server, item)
            for one in profile.servers
            for item in self._directory.shelf(one.server, owner, "prompts").items
        ]
        names = outside([(server.name, str(item["name"])) for server, item in found], prefix=profile.prefix)
        return {
            name: _entry(server, str(item["name"]), {**self._definer.clean(item), "name": name}, item, f"prompt {name}")
            for name, (server, item) in zip(names, found, strict=True)
        }

    def _addressed(self, profile: Profile, owner: str, kind: Kind, key: str) -> dict[str, Entry]:
        """Things with an address: the first server of the profile that has it keeps it."""
        found: dict[str, Entry] = {}
        for one in profile.servers:
            for item in self._directory.shelf(one.server, owner, kind).items:
                uri = str(item[key])
                found.setdefault(uri, _entry(one.server, uri, self._definer.clean(item), item, f"resource {uri}"))
        return found


def _entry(server: Server, name: str, raw: dict[str, Json], listed: dict[str, Json], label: str) -> Entry:
    stand_in = Tool(id=label, server=server.name, name=name, raw={"name": label}, labels=frozenset({"untrusted-in"}))
    return Entry(server=server, name=name, raw=raw, listed=listed, tool=stand_in)
