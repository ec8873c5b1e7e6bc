"""The keys that open this server: those of the settings, those of the database, and the server's own for its owner.

Only SHA-256 digests are kept. Without any key, whoever can connect is the owner: ``api.server`` only allows that on a
loopback address. Keys of the database are read again every ``REFRESH_SECONDS``, and at once when an unknown one comes.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import Protocol

from dockyard.errors import Unauthorized
from dockyard.settings import Settings
from dockyard.state import StoredKey as Key
from dockyard.types import Principal

REFRESH_SECONDS = 10.0
UNKNOWN_SECONDS = 0.1
OWNER = Principal(name="local", scopes=frozenset({"infer", "manage"}))
MANAGE = ":manage"


class Source(Protocol):
    """Where further keys come from: ``state.State``."""

    async def keys(self) -> list[Key]: ...


class Keyring:
    """Tells who a credential belongs to. ``source`` may be None: then the settings' keys are all."""

    def __init__(self, settings: Settings, source: Source | None = None, *, owner_token: str | None = None) -> None:
        self._fixed: dict[str, Key] = {}
        self._stored: dict[str, Key] = {}
        self._owner = digest(owner_token) if owner_token else None
        self._source = source
        self._read = float("-inf")
        self._default_limit = settings.requests_per_minute
        for text in settings.api_keys:
            secret, scopes = text, {"infer"}
            if text.endswith(MANAGE):
                secret, scopes = text.removesuffix(MANAGE), {"infer", "manage"}
            found = digest(secret)
            principal = Principal(name=f"settings-{found[:8]}", scopes=frozenset(scopes))
            self._fixed[found] = Key(digest=found, principal=principal)

    @property
    def open(self) -> bool:
        """True where no key exists, so that whoever can connect may do everything."""
        return not self._fixed and not self._stored

    async def authenticate(self, credential: str | None) -> Principal:
        """The principal of a bearer key. Raises Unauthorized."""
        now = time.monotonic()
        if now - self._read > REFRESH_SECONDS:
            await self.refresh()
        if not self._fixed and not self._stored:
            return OWNER
        if not credential:
            raise Unauthorized("no API key was given", hint="send the header `Authorization: Bearer KEY`")
        wanted = digest(credential)
        key = self._find(wanted)
        if key is None and self._owner is not None and hmac.compare_digest(wanted, self._owner):
            return OWNER
        if key is None and now - self._read > UNKNOWN_SECONDS:
            await self.refresh()
            key = self._find(wanted)
        if key is None:
            raise Unauthorized("this API key is not known", hint="`dockyard key ls` lists the keys of this server")
        if key.expires is not None and key.expires < time.time():
            raise Unauthorized(f"key {key.principal.name!r} has expired")
        return key.principal

    def limit(self, principal: Principal) -> int:
        """Requests a minute that this principal may make; 0: any number."""
        for key in self._stored.values():
            if key.principal.name == principal.name and key.requests_per_minute:
                return key.requests_per_minute
        return self._default_limit

    async def named(self, name: str) -> Principal:
        """Who works under this name, for what goes on after its request. Raises Unauthorized if the key is gone."""
        if time.monotonic() - self._read > REFRESH_SECONDS:
            await self.refresh()
        for key in (*self._fixed.values(), *self._stored.values()):
            if key.principal.name == name and (key.expires is None or key.expires >= time.time()):
                return key.principal
        if name == OWNER.name:
            return OWNER
        raise Unauthorized(f"key {name!r} is not known any more", hint="`dockyard key ls` lists the keys")

    async def refresh(self) -> None:
        """Read the stored keys again."""
        self._read = time.monotonic()
        if self._source is not None:
            self._stored = {key.digest: key for key in await self._source.keys()}

    def _find(self, wanted: str) -> Key | None:
        # Looked up by a digest that nobody can steer, then compared in constant time.
        key = self._fixed.get(wanted) or self._stored.get(wanted)
        return key if key is not None and hmac.compare_digest(key.digest, wanted) else None


def digest(secret: str) -> str:
    """What is kept of a key. Keys are 256 random bits, so a plain hash can't be guessed back."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
