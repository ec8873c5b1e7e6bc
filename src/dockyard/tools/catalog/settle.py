"""Configuration put into an entry: ``{{server.path|function}}`` as Docker's catalogues write it.

    {{db.paths|volume|into}}     host paths as volumes, one argument for each
    {{db.host|or:localhost}}     a value, or another

Functions: ``volume`` (``p:p``), ``volume-target`` (``p``), ``mount_as:x`` (``p:x``), ``into`` (each item by itself),
``first``, ``last``, ``or:x``. Pure. What is optional and not there is empty, and an argument, volume or variable that
comes out empty is left out; what the entry's schema requires must be there.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from dockyard.errors import InvalidRequest
from dockyard.tools.model import Server
from dockyard.types import Json

_HOLE = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
_PATH = re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*")


def wanted(server: Server) -> dict[str, Any]:
    """The JSON Schema of a server's configuration, whatever format said it: an object with properties and required."""
    properties: dict[str, Any] = {}
    required: list[str] = []
    found: list[Any] = [server.extra.get("schema")]
    docker = server.extra.get("docker")
    if isinstance(docker, dict) and isinstance(docker.get("config"), list):
        found += docker["config"]
    for part in found:
        if isinstance(part, dict):
            given = part.get("properties")
            properties.update(given if isinstance(given, dict) else {})
            needed = part.get("required")
            required += [name for name in needed if isinstance(name, str)] if isinstance(needed, list) else []
    return {"type": "object", "properties": properties, "required": required}


def missing(server: Server) -> list[str]:
    """Names of configuration that is required, used, has no default, and was not given."""
    schema = wanted(server)
    used = {_key(server, path) for path in _paths(server)}
    lacking = []
    for name in dict.fromkeys(schema["required"]):
        rule = schema["properties"].get(name)
        default = rule.get("default") if isinstance(rule, dict) else None
        if any(path.split(".")[0] == name for path in used) and _empty(server.config.get(name)) and _empty(default):
            lacking.append(name)
    return lacking


def require(server: Server) -> None:
    """Raise InvalidRequest if configuration is missing that the server can't run without."""
    lacking = missing(server)
    if lacking:
        raise InvalidRequest(
            f"server {server.name!r} needs configuration: {', '.join(lacking)}",
            param=f"{server.name}.{lacking[0]}",
            hint=f"dockyard mcp profile config PROFILE --set {server.name}.{lacking[0]}=VALUE",
        )


def settled(server: Server) -> Server:
    """The server with its configuration put in. Raises InvalidRequest for what is missing or makes no sense."""
    require(server)
    env = {name: _text(server, value) for name, value in server.env.items()}
    headers = {name: _text(server, value) for name, value in server.headers.items()}
    return msgspec.structs.replace(
        server,
        command=_list(server, server.command),
        volumes=_list(server, server.volumes),
        env={name: value for name, value in env.items() if value or not _HOLE.search(server.env[name])},
        headers={name: value for name, value in headers.items() if value or not _HOLE.search(server.headers[name])},
        cwd=_text(server, server.cwd),
        user=_text(server, server.user),
        url=_text(server, server.url),
        sandbox=msgspec.structs.replace(
            server.sandbox,
            read=_list(server, server.sandbox.read),
            write=_list(server, server.sandbox.write),
            hosts=_list(server, server.sandbox.hosts),
        ),
    )


def _paths(server: Server) -> list[str]:
    box = server.sandbox
    texts = [*server.command, *server.volumes, *server.env.values(), *server.headers.values()]
    texts += [server.cwd, server.user, server.url, *box.read, *box.write, *box.hosts]
    return [hole.split("|")[0].strip() for text in texts for hole in _HOLE.findall(text)]


def _list(server: Server, texts: tuple[str, ...]) -> tuple[str, ...]:
    done: list[str] = []
    for text in texts:
        whole = _HOLE.fullmatch(text)
        if whole is not None:
            value = _value(server, whole.group(1))
            done += (
                [_told(item) for item in value] if isinstance(value, list) else [_told(value)] if value != "" else []
            )
        else:
            done.append(_text(server, text))
    return tuple(done)


def _text(server: Server, text: str) -> str:
    return _HOLE.sub(lambda hole: _told(_value(server, hole.group(1))), text)


def _told(value: Json) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ",".join(_told(item) for item in value)
    return msgspec.json.encode(value).decode()


def _value(server: Server, expression: str) -> Json:
    path, *functions = [part.strip() for part in expression.split("|")]
    value = _look_up(server, path)
    for function in functions:
        name, _, argument = function.partition(":")
        value = _apply(server, name, argument, value)
    return "" if value is None else value


def _key(server: Server, path: str) -> str:
    """A path without the name of the block that it begins with, which is the server's in nearly all catalogues."""
    docker = server.extra.get("docker")
    blocks = [server.name]
    if isinstance(docker, dict):
        listed = docker.get("config")
        named = [one.get("name") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
        said = [docker.get("name"), *named]
        blocks += [name for name in said if isinstance(name, str) and name]
    for block in sorted(blocks, key=len, reverse=True):
        if path.startswith(f"{block}."):
            return path[len(block) + 1 :]
    first, _, rest = path.partition(".")
    return rest if rest and first not in server.config and first not in wanted(server)["properties"] else path


def _look_up(server: Server, path: str) -> Json:
    if not _PATH.fullmatch(path):
        raise InvalidRequest(
            f"server {server.name!r}: {{{{{path[:100]}}}}} is no name of configuration", param="config"
        )
    key = _key(server, path)
    value: Json = server.config
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        rule: Json = wanted(server)
        for part in key.split("."):
            inner = rule.get("properties") if isinstance(rule, dict) else None
            rule = inner.get(part) if isinstance(inner, dict) else None
        value = rule.get("default") if isinstance(rule, dict) else None
    return value


def _apply(server: Server, name: str, argument: str, value: Json) -> Json:
    if name == "or":
        return argument if _empty(value) else value
    if name in ("into", ""):
        return value if isinstance(value, list) or _empty(value) else [value]
    if name in ("first", "last"):
        if isinstance(value, list):
            return (value[0] if name == "first" else value[-1]) if value else ""
        return value
    if name in ("volume", "volume-target", "mount_as"):
        if isinstance(value, list):
            return [_apply(server, name, argument, item) for item in value]
        if _empty(value):
            return ""
        host = _told(value)
        return {"volume": f"{host}:{host}", "volume-target": host, "mount_as": f"{host}:{argument}"}[name]
    raise InvalidRequest(
        f"server {server.name!r}: there is no template function {name[:50]!r}",
        param="config",
        hint="there are volume, volume-target, mount_as:x, into, first, last and or:x",
    )


def _empty(value: Json) -> bool:
    return value is None or value == "" or value == []
