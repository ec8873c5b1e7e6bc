"""What clients keep: ``mcpServers`` (Claude, Cursor, Gemini …), ``servers`` (VS Code), ``context_servers`` (Zed).

``npx``, ``uvx`` and ``docker run`` lines become packages and containers, which are pinned and fenced; any other command
is a process. ``${NAME}`` of a variable that is not given a value there becomes a secret.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from dockyard.errors import InvalidRequest
from dockyard.tools.catalog import _launchers
from dockyard.tools.catalog.found import (
    Catalogue,
    Document,
    Problem,
    changes,
    fit,
    in_our_words,
    kind_of,
    plain,
    table,
    text,
    texts,
    undeclared,
)
from dockyard.tools.model import Secret, Server

ROOTS = ("mcpServers", "servers", "context_servers")


class Clients:
    name = "mcp-servers"
    kinds: frozenset[str] = frozenset({"process", "package", "container", "remote"})

    def claims(self, value: Any) -> bool:
        return _root(value) is not None

    def read(self, document: Document, source: str) -> Catalogue:
        root = _root(document.value)
        if root is None:
            raise InvalidRequest("there is no mcpServers, servers or context_servers", param="mcpServers")
        servers: list[Server] = []
        problems: list[Problem] = list(document.twice)
        seen: dict[str, str] = {}
        for name, entry in root[1].items():
            line = document.line(root[0], name)
            try:
                if not isinstance(entry, dict):
                    raise InvalidRequest(f"is {kind_of(entry)}, and should be a table")
                server = server_of(name, entry, source)
            except InvalidRequest as error:
                problems.append(Problem(where=name, message=error.message, line=line))
                continue
            if server.name.lower() in seen:
                told = f"has the same name as {seen[server.name.lower()]!r}; the first counts"
                problems.append(Problem(where=name, message=told, line=line))
                continue
            seen[server.name.lower()] = name
            servers.append(server)
        extra = {key: value for key, value in document.value.items() if key not in ("mcp", root[0])}
        return Catalogue(
            format=self.name,
            servers=tuple(servers),
            source=source,
            problems=tuple(problems),
            extra={"root": root[0], "beside": extra},
        )

    def refuses(self, server: Server) -> str | None:
        if server.kind in self.kinds:
            return None
        return f"clients can't start {server.kind!r} servers by themselves; let them connect to the gateway"

    def write(self, catalogue: Catalogue) -> str:
        """JSON under the key that was read, else ``mcpServers``."""
        ours = catalogue.format == self.name
        root = str(catalogue.extra.get("root") or "mcpServers") if ours else "mcpServers"
        beside = catalogue.extra.get("beside") if ours else None
        whole = {**(beside if isinstance(beside, dict) else {})}
        whole[root] = dict(entry_of(server) for server in catalogue.servers)
        return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode() + "\n"


def _root(value: Any) -> tuple[str, dict[str, Any]] | None:
    if not isinstance(value, dict):
        return None
    for place in (value, value.get("mcp")):
        for key in ROOTS:
            if isinstance(place, dict) and isinstance(place.get(key), dict):
                return key, place[key]
    return None


def server_of(name: str, entry: dict[str, Any], source: str = "") -> Server:
    """A server from a client's entry. Raises InvalidRequest that says which field is wrong."""
    said = text(entry, "type") or text(entry, "transport")
    url = text(entry, "url") or text(entry, "httpUrl") or text(entry, "serverUrl")
    short = fit(name)
    extra: dict[str, Any] = {"mcp-servers": entry, **({"mcp-servers-name": name} if short != name else {})}
    common: dict[str, Any] = {
        "name": short,
        "description": text(entry, "description"),
        "source": source,
        "extra": extra,
    }
    if url or said in ("http", "sse", "streamable-http", "streamableHttp"):
        if not url:
            raise InvalidRequest("url is missing", param="url")
        headers = {key: in_our_words(text(table(entry, "headers"), key)) for key in table(entry, "headers")}
        transport: Literal["sse", "http"] = "sse" if said == "sse" else "http"
        secrets = undeclared((), {}, [*headers.values(), in_our_words(url)])
        return Server(
            kind="remote", url=in_our_words(url), transport=transport, headers=headers, secrets=secrets, **common
        )
    if said not in ("", "stdio", "local"):
        raise InvalidRequest(f"type {said[:50]!r} is not known", param="type", hint="stdio, http or sse")
    words, env = _words(entry)
    secrets, kept = _environment(env)
    fields = _launchers.fields(words)
    secrets = undeclared(secrets, kept, [*fields.get("command", ()), *kept.values()])
    return Server(env=kept, secrets=secrets, cwd=in_our_words(text(entry, "cwd")), **fields, **common)


def _words(entry: dict[str, Any]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The argument list and the variables; Zed has them in a table, others side by side."""
    command = entry.get("command")
    place = command if isinstance(command, dict) else entry
    first = text(place, "path") if isinstance(command, dict) else None
    head = (first,) if first is not None else texts(entry, "command")
    if not head or not head[0]:
        raise InvalidRequest("there is neither a command nor a url", param="command")
    env = table(place, "env")
    words = tuple(in_our_words(word) for word in (*head, *texts(place, "args")))
    return words, {key: plain(value, f"env.{key}") for key, value in env.items() if value is not None}


def _environment(env: dict[str, str]) -> tuple[tuple[Secret, ...], dict[str, str]]:
    """Variables that are nothing but ``${NAME}`` are secrets; the others stay."""
    secrets: list[Secret] = []
    kept: dict[str, str] = {}
    for key, value in env.items():
        words = in_our_words(value)
        if words.startswith("${") and words.endswith("}") and words.count("${") == 1:
            secrets.append(Secret(name=words[2:-1], env=key))
        else:
            kept[key] = words
    return tuple(secrets), kept


def entry_of(server: Server) -> tuple[str, dict[str, Any]]:
    """The name and the entry that give this server when they are read."""
    original, now = server.extra.get("mcp-servers"), _fields(server)
    if not isinstance(original, dict):
        return server.name, now
    name, entry = str(server.extra.get("mcp-servers-name") or server.name), dict(original)
    try:
        before = _fields(server_of(name, entry))
    except InvalidRequest:
        before = {}
    if before != now and isinstance(entry.get("command"), dict):
        entry.pop("command")
        return name, {**entry, **now}
    return name, changes(entry, before, now)


def _fields(server: Server) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if server.kind == "remote":
        found = {"type": server.transport, "url": server.url, "headers": dict(server.headers)}
        found["headers"] |= {one.header: f"${{{one.name}}}" for one in server.secrets if one.header}
    else:
        words = _launchers.words(server)
        env = {**server.env, **{one.env: f"${{{one.name}}}" for one in server.secrets if one.env}}
        found = {"command": words[0] if words else "", "args": list(words[1:]), "env": env, "cwd": server.cwd}
    found["description"] = server.description
    return {key: value for key, value in found.items() if value not in ("", [], {})}


PLUGIN = Clients()
