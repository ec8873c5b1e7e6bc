"""Entries of Docker's catalogues, and of our superset of them, to servers and back.

A server keeps the entry it was read from, whole, in ``extra["docker"]``; writing starts from that and replaces only
what is another now, so nothing that Docker or anybody put there is lost.
"""

from __future__ import annotations

from typing import Any

import msgspec

from dockyard.errors import InvalidRequest
from dockyard.tools.catalog.found import bad, changes, fit, table, tables, text, texts, undeclared
from dockyard.tools.model import Label, Sandbox, Secret, Server

DOCKER_KINDS = {"server": "container", "remote": "remote", "poci": "poci"}
OWN_KINDS = {kind: kind for kind in ("process", "package", "openapi", "function", "platform")}
KINDS = {**DOCKER_KINDS, **OWN_KINDS}
TYPES = {kind: type_ for type_, kind in KINDS.items()}
_LABELS = dict[str, tuple[Label, ...]]


def server_of(name: str, entry: dict[str, Any], source: str = "") -> Server:
    """A server from its entry. Raises InvalidRequest that says which field is wrong."""
    fields = _common(entry)
    kind = KINDS.get(text(entry, "type") or _guessed(entry))
    if kind is None:
        raise InvalidRequest(
            f"type {text(entry, 'type')!r} is not known", param="type", hint=f"known types: {', '.join(KINDS)}"
        )
    if kind == "remote":
        fields |= _remote(entry)
    else:
        fields |= {"url": text(entry, "url")}
    used = [*fields["env"].values(), *fields.get("headers", {}).values()]
    fields["secrets"] = undeclared(fields["secrets"], fields["env"], used)
    short = fit(name) if fit(name) != name else name
    extra = {"docker": {**entry, "name": name} if short != name else entry}
    kept = entry.get("extra")
    extra = {**(kept if isinstance(kept, dict) else {}), **extra}
    return Server(name=short, kind=kind, source=source, extra=extra, **fields)


def entry_of(server: Server) -> tuple[str, dict[str, Any]]:
    """The name and the entry that give this server when they are read."""
    original = server.extra.get("docker")
    now = _fields(server)
    if not isinstance(original, dict):
        return server.name, now
    name = str(original.get("name") or server.name)
    if fit(name) != server.name and name != server.name:
        name = server.name
    try:
        before = _fields(server_of(name, original))
    except InvalidRequest:
        before = {}
    return name, changes(original, before, now)


def _guessed(entry: dict[str, Any]) -> str:
    """What an entry without a type is; old catalogues have none."""
    if "remote" in entry or "sseEndpoint" in entry:
        return "remote"
    return "server" if "image" in entry else "process" if "command" in entry else ""


def _common(entry: dict[str, Any]) -> dict[str, Any]:
    try:
        sandbox = msgspec.convert(table(entry, "sandbox"), Sandbox)
        labels = msgspec.convert(table(entry, "labels"), _LABELS)
        seconds = msgspec.convert(entry.get("callSeconds", 60.0), float)
    except msgspec.ValidationError as error:
        raise InvalidRequest(str(error), param="sandbox") from error
    hosts = tuple(dict.fromkeys((*texts(entry, "allowHosts"), *sandbox.hosts)))
    return {
        "title": text(entry, "title"),
        "description": text(entry, "description"),
        "command": texts(entry, "command"),
        "cwd": text(entry, "cwd"),
        "env": {_named(item, "env"): text(item, "value") for item in tables(entry, "env")},
        "secrets": tuple(_secret(item) for item in tables(entry, "secrets")),
        "image": text(entry, "image"),
        "volumes": texts(entry, "volumes"),
        "user": text(entry, "user"),
        "package": text(entry, "package"),
        "hashes": texts(entry, "hashes"),
        "sandbox": msgspec.structs.replace(sandbox, hosts=hosts),
        "config": table(entry, "values"),
        "labels": labels,
        "call_seconds": seconds,
    }


def _remote(entry: dict[str, Any]) -> dict[str, Any]:
    remote = table(entry, "remote")
    url = text(remote, "url") or text(entry, "sseEndpoint") or text(entry, "url")
    if not url:
        raise bad("remote.url", "is missing")
    said = text(remote, "transport_type") or ("sse" if entry.get("sseEndpoint") else "streamable-http")
    if said not in ("sse", "http", "streamable-http", "streamable", "streaming"):
        raise bad("remote.transport_type", f"is {said[:50]!r}, and should be streamable-http or sse")
    headers = {key: text(table(remote, "headers"), key) for key in table(remote, "headers")}
    return {"url": url, "transport": "sse" if said == "sse" else "http", "headers": headers}


def _named(item: dict[str, Any], where: str) -> str:
    name = text(item, "name")
    if not name:
        raise bad(f"{where}[].name", "is missing")
    return name


def _secret(item: dict[str, Any]) -> Secret:
    return Secret(name=_named(item, "secrets"), env=text(item, "env"), header=text(item, "header"))


def _fields(server: Server) -> dict[str, Any]:
    """The fields of an entry that say what the server's fields say; what is empty is not there."""
    box = msgspec.to_builtins(msgspec.structs.replace(server.sandbox, hosts=()))
    found: dict[str, Any] = {
        "type": TYPES.get(server.kind, server.kind),
        "title": server.title,
        "description": server.description,
        "image": server.image,
        "command": list(server.command),
        "cwd": server.cwd,
        "env": [{"name": name, "value": value} for name, value in server.env.items()],
        "secrets": [msgspec.to_builtins(secret) for secret in server.secrets],
        "volumes": list(server.volumes),
        "user": server.user,
        "package": server.package,
        "hashes": list(server.hashes),
        "allowHosts": list(server.sandbox.hosts),
        "sandbox": box,
        "values": server.config,
        "labels": {tool: list(labels) for tool, labels in server.labels.items()},
    }
    if server.kind == "remote":
        transport = "sse" if server.transport == "sse" else "streamable-http"
        found["remote"] = {"url": server.url, "transport_type": transport}
        if server.headers:
            found["remote"]["headers"] = dict(server.headers)
    elif server.url:
        found["url"] = server.url
    if server.call_seconds != 60.0:
        found["callSeconds"] = server.call_seconds
    schema = server.extra.get("schema")
    if schema and "docker" not in server.extra:
        found["config"] = [{"name": server.name, **schema}]
    others = {key: value for key, value in server.extra.items() if key not in ("docker", "schema")}
    if others:
        found["extra"] = others
    return {key: value for key, value in found.items() if value not in ("", [], {}, None)}
