"""One ``server.json`` to a server and back. Older spellings (``registry_type``) are read as well."""

from __future__ import annotations

import re
from typing import Any

from dockyard.errors import InvalidRequest
from dockyard.tools.catalog.found import bad, fit, table, tables, text
from dockyard.tools.model import Secret, Server
from dockyard.types import Json

SCHEMA = "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"
_CURLY = re.compile(r"(?<!\{)\{([A-Za-z0-9_.-]+)\}(?!\})")
_VALUED = ("value", "valueHint", "default", "isRequired", "isSecret", "format")
"""One of these says that a named argument has a value; without any it is a flag."""
_RUNNABLE = ("pypi", "npm", "oci")


class _Asked:
    """What a user must or may give, gathered while a document is read."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.properties: dict[str, Json] = {}
        self.required: list[str] = []
        self.secrets: list[Secret] = []

    def value(self, key: str, item: dict[str, Any], *, env: str = "", header: str = "") -> str | None:
        """The text for an input: fixed, a hole for configuration, or a secret's variable; None: carried by a secret."""
        fixed = item.get("value")
        if fixed is not None:
            return self.filled(text(item, "value"), item, env, header)
        if item.get("isSecret") or item.get("is_secret"):
            if env or header:
                self.secrets.append(Secret(name=f"{self.name}.{key}", env=env, header=header))
                return None
            self.secrets.append(Secret(name=f"{self.name}.{key}"))
            return f"${{{self.name}.{key}}}"
        self.ask(key, item)
        return f"{{{{{self.name}.{key}}}}}"

    def filled(self, value: str, item: dict[str, Any], env: str, header: str) -> str | None:
        """A fixed text whose ``{variables}`` are asked for."""
        variables = table(item, "variables")

        def put(hole: re.Match[str]) -> str:
            rule = variables.get(hole[1])
            if not isinstance(rule, dict):
                return hole[0]
            return self.value(hole[1], rule) or hole[0]

        whole = _CURLY.fullmatch(value)
        if whole is not None and isinstance(variables.get(whole[1]), dict) and (env or header):
            return self.value(whole[1], variables[whole[1]], env=env, header=header)
        return _CURLY.sub(put, value)

    def ask(self, key: str, item: dict[str, Any]) -> None:
        kind = {"number": "number", "boolean": "boolean"}.get(text(item, "format"), "string")
        rule: dict[str, Json] = {"type": kind}
        for theirs, ours in (("description", "description"), ("default", "default"), ("choices", "enum")):
            if item.get(theirs) is not None:
                rule[ours] = item[theirs]
        self.properties[key] = rule
        if (item.get("isRequired") or item.get("is_required")) and key not in self.required:
            self.required.append(key)


def server_of(document: dict[str, Any], source: str = "") -> Server:
    """A server from its server.json. Raises InvalidRequest that says what is wrong."""
    full = text(document, "name")
    if not full:
        raise bad("name", "is missing")
    asked = _Asked(fit(full))
    ways = [_snake(package) for package in tables(document, "packages")]
    types = [text(way, "registryType") for way in ways]
    fields: dict[str, Any] | None = None
    for wanted in _RUNNABLE:
        if wanted in types and fields is None:
            fields = _package(ways[types.index(wanted)], wanted, text(document, "version"), asked)
    if fields is None and tables(document, "remotes"):
        fields = _remote(tables(document, "remotes")[0], asked)
    if fields is None:
        told = ", ".join(dict.fromkeys(types)) or "none"
        raise InvalidRequest(f"no way to run it here: packages of {told}, and no remotes", param="packages")
    extra: dict[str, Json] = {"registry": document}
    if asked.properties:
        extra["schema"] = {"type": "object", "properties": asked.properties, "required": asked.required}
    return Server(
        name=asked.name,
        title=text(document, "title"),
        description=text(document, "description"),
        secrets=tuple(dict.fromkeys(asked.secrets)),
        source=source,
        extra=extra,
        **fields,
    )


def describe(server: Server) -> dict[str, Any]:
    """The server.json that gives this server when it is read."""
    original = server.extra.get("registry")
    if not isinstance(original, dict):
        return _fresh(server)
    before = server_of(original)
    named = {"title": (before.title, server.title), "description": (before.description, server.description)}
    result = {**original, **{key: now for key, (was, now) in named.items() if was != now}}
    if _way(before) != _way(server):
        fresh = _fresh(server)
        for key in ("packages", "remotes"):
            result.pop(key, None)
            if key in fresh:
                result[key] = fresh[key]
    return result


def _way(server: Server) -> tuple[Any, ...]:
    fields = (server.kind, server.command, server.env, server.secrets, server.image, server.package)
    return (*fields, server.hashes, server.url, server.transport, server.headers)


def _snake(package: dict[str, Any]) -> dict[str, Any]:
    """Fields of older documents under today's names."""
    return {re.sub(r"_([a-z])", lambda hit: hit[1].upper(), key): value for key, value in package.items()}


def _package(way: dict[str, Any], kind: str, version: str, asked: _Asked) -> dict[str, Any]:
    identifier = text(way, "identifier") or text(way, "name")
    if not identifier:
        raise bad("packages[].identifier", "is missing")
    transport = table(way, "transport")
    if text(transport, "type") not in ("", "stdio"):
        raise bad(
            "packages[].transport", f"is {text(transport, 'type')[:50]!r}; packages are spoken to over stdio here"
        )
    env: dict[str, str] = {}
    for item in tables(way, "environmentVariables"):
        name = text(item, "name")
        value = asked.value(name, item, env=name) if name else None
        if value is not None:
            env[name] = value
    fields: dict[str, Any] = {"env": env, "command": tuple(_arguments(tables(way, "packageArguments"), asked))}
    said = text(way, "version") or version
    if kind == "oci":
        named = "@" in identifier or ":" in identifier.rsplit("/", 1)[-1]
        return {**fields, "kind": "container", "image": identifier if named or not said else f"{identifier}:{said}"}
    mark = "==" if kind == "pypi" else "@"
    package = f"{kind}:{identifier}{mark}{said}" if said else f"{kind}:{identifier}"
    digest = text(way, "fileSha256")
    return {**fields, "kind": "package", "package": package, "hashes": (f"sha256:{digest}",) if digest else ()}


def _arguments(items: list[dict[str, Any]], asked: _Asked) -> list[str]:
    found: list[str] = []
    for item in items:
        kind = text(item, "type", "positional")
        if kind == "named":
            name = text(item, "name")
            found.append(name)
            if not any(item.get(key) not in (None, False) for key in _VALUED):
                continue
            value = asked.value(name.lstrip("-") or "value", item)
            if value is not None:
                found.append(value)
        elif kind == "positional":
            value = asked.value(text(item, "valueHint") or text(item, "name") or "value", item)
            if value is not None:
                found.append(value)
        else:
            raise bad("packageArguments[].type", f"is {kind[:50]!r}, and should be positional or named")
    return found


def _remote(way: dict[str, Any], asked: _Asked) -> dict[str, Any]:
    kind, url = text(way, "type") or text(way, "transport_type"), text(way, "url")
    if kind not in ("streamable-http", "sse", "http", ""):
        raise bad("remotes[].type", f"is {kind[:50]!r}, and should be streamable-http or sse")
    if not url:
        raise bad("remotes[].url", "is missing")
    headers: dict[str, str] = {}
    for item in tables(way, "headers"):
        name = text(item, "name")
        value = asked.value(name, item, header=name) if name else None
        if value is not None:
            headers[name] = value
    filled = asked.filled(url, way, "", "")
    return {"kind": "remote", "url": filled, "transport": "sse" if kind == "sse" else "http", "headers": headers}


def _fresh(server: Server) -> dict[str, Any]:
    version = re.search(r"(?:==|(?<=[^:/])@|:)([A-Za-z0-9][A-Za-z0-9.+-]*)$", server.package or server.image)
    result: dict[str, Any] = {
        "$schema": SCHEMA,
        "name": f"io.dockyard/{server.name}",
        "description": server.description or server.title or server.name,
        "version": version[1] if version else "0.0.0",
    }
    if server.title:
        result["title"] = server.title
    rules = server.extra.get("schema")
    schema: dict[str, Any] = rules if isinstance(rules, dict) else {}
    if server.kind == "remote":
        way: dict[str, Any] = {"type": "sse" if server.transport == "sse" else "streamable-http"}
        way |= _variables("url", server.url, server, schema)
        items = [{"name": name, **_variables("value", value, server, schema)} for name, value in server.headers.items()]
        items += [_secret(one.header) for one in server.secrets if one.header]
        result["remotes"] = [{**way, "headers": items} if items else way]
        return result
    items = [{"name": name, **_variables("value", value, server, schema)} for name, value in server.env.items()]
    items += [_secret(one.env) for one in server.secrets if one.env]
    way = {**_identified(server), "transport": {"type": "stdio"}}
    if server.command:
        way["packageArguments"] = [
            {"type": "positional", **_variables("value", argument, server, schema)} for argument in server.command
        ]
    if items:
        way["environmentVariables"] = items
    result["packages"] = [way]
    return result


def _identified(server: Server) -> dict[str, Any]:
    if server.kind == "container":
        return {"registryType": "oci", "identifier": server.image}
    kind, _, rest = server.package.partition(":")
    name, mark, version = rest.partition("==") if kind == "pypi" else rest.rpartition("@")
    if kind != "pypi" and not name:
        name, version = rest, ""
    way = {"registryType": kind, "identifier": name if mark else rest}
    if version and mark:
        way["version"] = version
    if len(server.hashes) == 1 and server.hashes[0].startswith("sha256:"):
        way["fileSha256"] = server.hashes[0].removeprefix("sha256:")
    return way


_HOLE = re.compile(r"\{\{\s*(?:[^{}|]*\.)?([A-Za-z0-9_-]+)(?:\|[^{}]*)?\s*\}\}")
_SECRET = re.compile(r"\$\{([A-Za-z0-9_.-]+)\}")


def _variables(key: str, value: str, server: Server, schema: dict[str, Any]) -> dict[str, Any]:
    """A text with holes as the registry writes it: ``{name}`` and what fills it."""
    variables: dict[str, Any] = {}

    def configured(hole: re.Match[str]) -> str:
        rule = (schema.get("properties") or {}).get(hole[1]) or {}
        item: dict[str, Any] = {"isRequired": True} if hole[1] in (schema.get("required") or []) else {}
        if isinstance(rule, dict):
            item |= {k: str(v) for k, v in rule.items() if k in ("description", "default")}
        variables[hole[1]] = item
        return f"{{{hole[1]}}}"

    def secret(hole: re.Match[str]) -> str:
        name = hole[1].removeprefix(f"{server.name}.")
        variables[name] = {"isRequired": True, "isSecret": True}
        return f"{{{name}}}"

    told = _SECRET.sub(secret, _HOLE.sub(configured, value))
    return {key: told, "variables": variables} if variables else {key: told}


def _secret(name: str) -> dict[str, Any]:
    return {"name": name, "isRequired": True, "isSecret": True}
