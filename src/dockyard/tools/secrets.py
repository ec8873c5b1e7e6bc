"""Secrets of tool servers, kept encrypted in the home, and given to nobody but the server that declares them.

``<home>/mcp/secrets.enc`` is encrypted with the key in ``secrets.key`` beside it, which only its owner may read. This
keeps secrets out of backups, listings and screens that show the one file; whoever can read both, as any program of the
same user can, can read the secrets.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from filelock import FileLock

from dockyard.errors import EngineUnavailable, InvalidRequest, NotFound, SettingsError
from dockyard.tools.model import Server

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

LEAST = 6
"""Characters a value needs to be told from ordinary text; shorter ones are kept, but never found in what passes."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}\Z")


def variable(name: str) -> str:
    """The environment's variable for a secret: "github.token" is ``DOCKYARD_SECRET_GITHUB_TOKEN``."""
    return "DOCKYARD_SECRET_" + re.sub(r"[^A-Z0-9]", "_", name.upper())


class SecretStore:
    """The secrets of one home, by name. Every process sees what another has set."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "mcp"
        self._read: tuple[tuple[int, int, int] | None, dict[str, str]] = (None, {})

    @property
    def _path(self) -> Path:
        return self._folder / "secrets.enc"

    def list(self) -> list[str]:
        """The names, in order."""
        return sorted(self.values())

    def get(self, name: str) -> str:
        """Raises NotFound."""
        found = self.values().get(name)
        if found is None:
            raise NotFound(f"there is no secret {name!r}", param="name", hint=f"`dockyard mcp secret set {name}`")
        return found

    def set(self, name: str, value: str) -> None:
        """Keep a value in the place of an earlier one. Raises InvalidRequest."""
        if not _NAME.match(name):
            raise InvalidRequest(
                f"a secret can't be named {name[:130]!r}", param="name", hint="letters, digits, and . _ / - inside"
            )
        if not value or "\0" in value:
            raise InvalidRequest(f"the value of secret {name!r} is empty, or has a NUL in it", param="value")
        with self._turn():
            self._write({**self.values(), name: value})

    def remove(self, name: str) -> None:
        """Raises NotFound."""
        with self._turn():
            self.get(name)
            self._write({key: value for key, value in self.values().items() if key != name})

    def values(self) -> dict[str, str]:
        """Every value by name; read again when the file is another. Raises SettingsError for one that can't be read."""
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return {}
        stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if self._read[0] != stamp:
            self._read = (stamp, self._decrypt(self._path.read_bytes()))
        return self._read[1]

    def of(self, server: Server, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
        """The values that a server declares, by ``Secret.name``: the store's, else that of its ``variable``.
        No other variable is read: an entry of a catalogue could name any. Raises NotFound for one that is nowhere.
        """
        stored = self.values() if server.secrets else {}
        found: dict[str, str] = {}
        for secret in server.secrets:
            value = stored.get(secret.name) or environ.get(variable(secret.name))
            if not value:
                raise NotFound(
                    f"server {server.name!r} needs the secret {secret.name!r}, which is not set",
                    param=secret.name,
                    hint=f"`dockyard mcp secret set {secret.name}`, or {variable(secret.name)} in the environment",
                )
            found[secret.name] = value
        return found

    def _turn(self) -> FileLock:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return FileLock(self._folder / "secrets.lock", timeout=10, mode=0o600)

    def _write(self, values: dict[str, str]) -> None:
        part = self._path.with_suffix(".part")
        _private(part, self._cipher().encrypt(msgspec.json.encode(values)))
        part.replace(self._path)

    def _decrypt(self, body: bytes) -> dict[str, str]:
        from cryptography.fernet import InvalidToken

        try:
            return msgspec.json.decode(self._cipher().decrypt(body), type=dict[str, str])
        except (InvalidToken, msgspec.DecodeError) as error:
            raise SettingsError(
                f"{self._path} can't be read with the key beside it",
                hint="put the key back that it was written with, or remove both files and set the secrets again",
            ) from error

    def _cipher(self) -> Fernet:
        try:
            from cryptography.fernet import Fernet
        except ModuleNotFoundError as error:
            raise EngineUnavailable("secrets need the package `mcp`", hint="pip install 'dockyard[mcp]'") from error
        path = self._folder / "secrets.key"
        if not path.exists():
            if self._path.exists():
                raise SettingsError(f"{path}, the key of {self._path.name}, is gone")
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _private(path, Fernet.generate_key())
        try:
            return Fernet(path.read_bytes().strip())
        except ValueError as error:
            raise SettingsError(f"{path} is no key") from error


def _private(path: Path, body: bytes) -> None:
    """Write a file that only its owner can read, even while it is written."""
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
