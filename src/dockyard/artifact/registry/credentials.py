"""Who we are to a registry: Docker's own configuration, its credential helpers, and two environment variables.

Looked up for each registry when it first asks for credentials, in this order: ``DOCKER_USERNAME`` and
``DOCKER_PASSWORD`` with ``DOCKER_REGISTRY`` naming the registry (docker.io if unset); ``credHelpers``, ``auths`` and
``credsStore`` of ``$DOCKER_CONFIG/config.json`` (``~/.docker/config.json``). Nothing here is ever logged.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from dockyard.errors import SettingsError

HELPER_SECONDS = 30.0
_HELPER_NAME = re.compile(r"[A-Za-z0-9._-]+")
_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io")


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """A name and password, or an identity token that a token server exchanges (OAuth2 refresh token)."""

    username: str = ""
    password: str = ""
    identity_token: str = ""

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, …)"

    def basic(self) -> str:
        """The value of an ``Authorization`` header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def find(host: str, environ: Mapping[str, str] = os.environ) -> Credentials | None:
    """The credentials configured for a registry, or None. A broken configuration raises SettingsError."""
    if environ.get("DOCKER_USERNAME") and environ.get("DOCKER_PASSWORD"):
        named = environ.get("DOCKER_REGISTRY") or "docker.io"
        if _host(named) == _host(host):
            return Credentials(username=environ["DOCKER_USERNAME"], password=environ["DOCKER_PASSWORD"])
    folder = Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME") or Path.home()) / ".docker")
    return of_config(read_config(folder / "config.json"), host, environ)


def read_config(path: Path) -> dict[str, Any]:
    """Docker's config.json as a dict; empty where there is none."""
    try:
        found = json.loads(path.read_bytes() or b"{}")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"{path} can't be read: {error}", hint="repair it, or point DOCKER_CONFIG elsewhere"
        ) from None
    if not isinstance(found, dict):
        raise SettingsError(f"{path} is not a JSON object", hint="repair it, or point DOCKER_CONFIG elsewhere")
    return found


def of_config(config: Mapping[str, Any], host: str, environ: Mapping[str, str] = os.environ) -> Credentials | None:
    """What a Docker configuration says for ``host``: its own helper first, then ``auths``, then the general store."""
    keys = _HUB_KEYS if _host(host) == "docker.io" else (host, f"https://{host}", f"http://{host}")
    helpers = config.get("credHelpers")
    if isinstance(helpers, dict):
        for key in keys:
            if isinstance(helpers.get(key), str):
                return _ask_helper(helpers[key], key, environ)
    stored = config.get("credsStore")
    found = _of_auths(config.get("auths"), host)
    if found is None and isinstance(stored, str) and stored:
        for key in keys[:2]:
            found = _ask_helper(stored, key, environ)
            if found is not None:
                return found
    return found


def _of_auths(auths: Any, host: str) -> Credentials | None:
    if not isinstance(auths, dict):
        return None
    for key, entry in auths.items():
        if _host(key) != _host(host) or not isinstance(entry, dict):
            continue
        username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
        if isinstance(entry.get("auth"), str) and entry["auth"]:
            try:
                username, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                raise SettingsError(f"Docker's config.json: `auth` of {key} is not base64 of name:password") from None
        token = str(entry.get("identitytoken") or "")
        if username or token:
            return Credentials(username=username, password=password.rstrip("\0"), identity_token=token)
    return None


def _ask_helper(name: str, server: str, environ: Mapping[str, str]) -> Credentials | None:
    """Run ``docker-credential-NAME get``; None where it holds nothing for that server."""
    if not _HELPER_NAME.fullmatch(name):
        raise SettingsError(f"Docker's config.json names a credential helper {name!r}", hint="a name has no path in it")
    program = f"docker-credential-{name}"
    try:
        done = subprocess.run(
            [program, "get"],
            input=server.encode(),
            capture_output=True,
            timeout=HELPER_SECONDS,
            env=dict(environ),
            check=False,
        )
    except FileNotFoundError:
        raise SettingsError(
            f"Docker's config.json names the credential helper {program}, which is not on the path",
            hint="install it, or remove it from config.json",
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SettingsError(f"{program} failed: {type(error).__name__}") from None
    if done.returncode != 0:
        if b"not found" in done.stdout.lower() + done.stderr.lower():
            return None
        raise SettingsError(f"{program} failed with status {done.returncode} for {server}")
    try:
        answer = json.loads(done.stdout)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        raise SettingsError(f"{program} answered something that is not its protocol") from None
    if username == "<token>":
        return Credentials(identity_token=secret)
    return Credentials(username=username, password=secret) if username or secret else None


def _host(key: str) -> str:
    """``auths`` keys come as hosts and as URLs; Docker Hub's has four spellings."""
    host = key.partition("://")[2] or key
    host = host.partition("/")[0].lower()
    return "docker.io" if host in ("index.docker.io", "registry-1.docker.io", "docker.io") else host
