"""Profiles as files that travel: our own JSON, and Docker's YAML or JSON with its snapshots."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from dockyard.errors import InvalidRequest
from dockyard.tools.catalog._entry import DOCKER_KINDS, entry_of, server_of
from dockyard.tools.catalog.found import fit, kind_of, table, text, texts
from dockyard.tools.catalog.reading import document, dump_yaml
from dockyard.tools.model import Enabled, Profile, Server

FORMATS = ("dockyard", "docker")
OWN = "dockyard-profile"
_READ = ("type", "image", "source", "endpoint", "config", "tools", "snapshot")


def write(profile: Profile, format: str, *, as_json: bool = False) -> str:
    """A profile as text; ours is always JSON. Raises InvalidRequest for what the format has no words for."""
    if format == "dockyard":
        whole: dict[str, Any] = {"format": OWN, "version": 1, **msgspec.to_builtins(profile)}
        return _json(whole)
    if format != "docker":
        raise InvalidRequest(f"there is no format {format!r} of profiles", param="format", hint="dockyard or docker")
    other = [one.server.name for one in profile.servers if one.server.kind not in DOCKER_KINDS.values()]
    if other:
        raise InvalidRequest(
            f"Docker's profiles have no words for {', '.join(other)}",
            param="format",
            hint="only containers and remote servers; the format `dockyard` has them all",
        )
    whole = {
        "version": 1,
        "id": profile.name,
        "name": profile.description or profile.name,
        "servers": [_item(one) for one in profile.servers],
        "secrets": {"default": {"provider": "docker-desktop-store"}},
    }
    return _json(whole) if as_json else dump_yaml(whole)


def read(text_: str) -> Profile:
    """A profile from either format. Raises InvalidRequest, with the line where there is one."""
    found = document(text_, "the profile").value
    if not isinstance(found, dict):
        raise InvalidRequest(f"the profile is {kind_of(found)}, and should be a table", param="profile")
    if found.get("format") == OWN:
        try:
            return msgspec.convert(found, Profile)
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"the profile is not one of ours: {error}", param="profile") from error
    if not isinstance(found.get("servers"), list) or not ("id" in found or "name" in found):
        raise InvalidRequest(
            "this is no profile", param="profile", hint="expected one that `profile export` or Docker wrote"
        )
    return _docker(found)


def _docker(found: dict[str, Any]) -> Profile:
    if found.get("version", 1) != 1:
        raise InvalidRequest(f"version {found['version']!r} of Docker's profiles is not known", param="version")
    shown = text(found, "name")
    name = re.sub(r"[^a-z0-9_.-]+", "-", (text(found, "id") or shown).lower()).strip("-_.")[:64]
    servers = []
    for at, item in enumerate(found["servers"]):
        try:
            if not isinstance(item, dict):
                raise InvalidRequest(f"is {kind_of(item)}, and should be a table")
            servers.append(_enabled(item))
        except InvalidRequest as error:
            raise InvalidRequest(f"servers[{at}]: {error.message}", param=f"servers[{at}]", hint=error.hint) from error
    return Profile(name=name or "profile", description=shown if shown != name else "", servers=tuple(servers))


def _enabled(item: dict[str, Any]) -> Enabled:
    kind, entry = text(item, "type"), table(table(item, "snapshot"), "server")
    if kind not in ("image", "registry", "remote"):
        raise InvalidRequest(f"type {kind[:50]!r} is not known", param="type", hint="image, registry or remote")
    if entry:
        server = server_of(text(entry, "name") or fit(text(item, "image") or text(item, "source")), entry)
    elif kind == "image":
        image = text(item, "image")
        server = Server(name=fit(re.split(r"[:@]", image.rsplit("/", 1)[-1])[0]), kind="container", image=image)
    elif kind == "remote" and item.get("endpoint"):
        server = Server(name=fit(re.sub(r"^https?://", "", text(item, "endpoint"))), kind="remote",
                        url=text(item, "endpoint"))  # fmt: skip
    else:
        raise InvalidRequest("has no snapshot of its entry", param="snapshot")
    kept = {key: value for key, value in item.items() if key not in _READ}
    source = text(item, "source")
    extra = {**server.extra, "docker-profile": {**kept, **({"source": source} if source else {})}}
    return Enabled(
        server=msgspec.structs.replace(server, config=table(item, "config"), extra=extra),
        tools=texts(item, "tools") if item.get("tools") is not None else None,
    )


def _item(one: Enabled) -> dict[str, Any]:
    server = msgspec.structs.replace(one.server, config={})
    kept = server.extra.get("docker-profile")
    extra = {key: value for key, value in server.extra.items() if key != "docker-profile"}
    name, entry = entry_of(msgspec.structs.replace(server, extra=extra))
    item: dict[str, Any] = {"secrets": "default", **(kept if isinstance(kept, dict) else {})}
    if server.kind == "remote":
        item |= {"type": "remote", "endpoint": server.url}
    elif "source" in item:
        item |= {"type": "registry"}
    else:
        item |= {"type": "image", "image": server.image}
    if one.server.config:
        item["config"] = one.server.config
    if one.tools is not None:
        item["tools"] = list(one.tools)
    item["snapshot"] = {"server": {**entry, "name": name}}
    return item


def _json(whole: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode() + "\n"
