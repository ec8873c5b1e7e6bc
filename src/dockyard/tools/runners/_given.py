"""What a server is given: its declared variables and headers, with its own secrets put in, and nothing else."""

from __future__ import annotations

import re

from dockyard.tools.model import Server, ToolFailed

_NAME = re.compile(r"\$\{([A-Za-z0-9_.-]+)\}")


def environment(server: Server, secrets: dict[str, str]) -> dict[str, str]:
    """Declared variables and those of secrets. Raises ToolFailed for a secret that has no value."""
    found = {name: fill(value, server, secrets) for name, value in server.env.items()}
    found.update({secret.env: value(server, secret.name, secrets) for secret in server.secrets if secret.env})
    return found


def headers(server: Server, secrets: dict[str, str]) -> dict[str, str]:
    """Declared headers and those of secrets. Raises ToolFailed for a secret that has no value."""
    found = {name: fill(text, server, secrets) for name, text in server.headers.items()}
    found.update({secret.header: value(server, secret.name, secrets) for secret in server.secrets if secret.header})
    bad = [name for name, text in found.items() if "\n" in text or "\r" in text or not name.isascii()]
    if bad:
        raise ToolFailed(f"server {server.name!r}: the header {bad[0]!r} has a line break in it", param="headers")
    return found


def fill(text: str, server: Server, secrets: dict[str, str]) -> str:
    """``${NAME}`` becomes the secret of that name or variable, or the declared variable. Raises ToolFailed."""

    def put(match: re.Match[str]) -> str:
        name = match.group(1)
        for secret in server.secrets:
            if name in (secret.name, secret.env):
                return value(server, secret.name, secrets)
        plain = server.env.get(name)
        if plain is None or "${" in plain:
            raise ToolFailed(
                f"server {server.name!r} uses ${{{name}}}, which it does not declare",
                param="secrets",
                hint="only variables and secrets of its own entry are put in",
            )
        return plain

    return _NAME.sub(put, text)


def value(server: Server, name: str, secrets: dict[str, str]) -> str:
    if name not in secrets:
        raise ToolFailed(
            f"server {server.name!r} needs the secret {name!r}, which has no value",
            param="secrets",
            hint=f"dockyard mcp secret set {name}",
        )
    return secrets[name]
