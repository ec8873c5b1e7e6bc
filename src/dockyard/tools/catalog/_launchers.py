"""Command lines that fetch and run something, ``npx``, ``uvx`` and ``docker run``, as what they run; and back."""

from __future__ import annotations

import re
from typing import Any

from dockyard.tools.model import Server

_NPM = re.compile(r"(@[a-z0-9~-][a-z0-9._~-]*/)?[a-z0-9~-][a-z0-9._~-]*(@[A-Za-z0-9][A-Za-z0-9.+-]*)?")
_PYPI = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)(\[[A-Za-z0-9,._-]+\])?(?:(?:==|@)([A-Za-z0-9.+!-]+))?")
_ENGINES = ("docker", "podman")


def fields(words: tuple[str, ...]) -> dict[str, Any]:
    """``kind`` and what goes with it. What is not understood to the last word stays a process."""
    program = words[0].rsplit("/", 1)[-1].removesuffix(".exe").removesuffix(".cmd")
    found: dict[str, Any] | None = None
    if program in ("npx", "bunx"):
        found = _npm(words[1:])
    elif program == "uvx":
        found = _pypi(words[1:])
    elif program == "uv" and words[1:3] == ("tool", "run"):
        found = _pypi(words[3:])
    elif program in _ENGINES and words[1:2] == ("run",):
        found = _container(words[2:])
    return found or {"kind": "process", "command": words}


def words(server: Server) -> tuple[str, ...]:
    """The command line that a client starts the server with."""
    if server.kind == "package":
        kind, _, package = server.package.partition(":")
        if kind == "npm":
            return ("npx", "-y", package, *server.command)
        name, mark, version = package.partition("==")
        return ("uvx", f"{name}@{version}" if mark else name, *server.command)
    if server.kind == "container":
        found = ["docker", "run", "-i", "--rm"]
        for name in (*server.env, *(secret.env for secret in server.secrets if secret.env)):
            found += ["-e", name]
        for volume in server.volumes:
            found += ["-v", volume]
        if server.user:
            found += ["-u", server.user]
        return (*found, server.image, *server.command)
    return server.command


def _npm(rest: tuple[str, ...]) -> dict[str, Any] | None:
    while rest and rest[0] in ("-y", "--yes", "-q", "--quiet"):
        rest = rest[1:]
    if not rest or not _NPM.fullmatch(rest[0]):
        return None
    return {"kind": "package", "package": f"npm:{rest[0].removesuffix('@latest')}", "command": rest[1:]}


def _pypi(rest: tuple[str, ...]) -> dict[str, Any] | None:
    while rest and rest[0] in ("-q", "--quiet", "--isolated"):
        rest = rest[1:]
    if not rest:
        return None
    hit = _PYPI.fullmatch(rest[0])
    if hit is None or hit[2]:
        return None
    version = hit[3] if hit[3] not in (None, "latest") else ""
    return {"kind": "package", "package": f"pypi:{hit[1]}{f'=={version}' if version else ''}", "command": rest[1:]}


def _container(rest: tuple[str, ...]) -> dict[str, Any] | None:
    """``docker run`` with flags that we give a container anyhow, or know; None with any other."""
    volumes: list[str] = []
    user, at = "", 0
    while at < len(rest) and rest[at].startswith("-"):
        word, mark, value = rest[at].partition("=")
        if word in ("-i", "--rm", "--init", "-it", "-t", "--interactive"):
            at += 1
            continue
        if not mark and at + 1 < len(rest):
            value, at = rest[at + 1], at + 1
        if word in ("-e", "--env") and "=" not in value:
            pass
        elif word in ("-v", "--volume"):
            volumes.append(value)
        elif word in ("-u", "--user"):
            user = value
        else:
            return None
        at += 1
    if at >= len(rest):
        return None
    return {
        "kind": "container",
        "image": rest[at],
        "command": rest[at + 1 :],
        "volumes": tuple(volumes),
        "user": user,
    }
