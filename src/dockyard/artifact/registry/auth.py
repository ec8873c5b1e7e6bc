"""What goes into the ``Authorization`` header: nothing, basic, or a bearer token fetched from the registry's realm.

Follows the distribution project's token specification: an anonymous or basic ``GET`` of the realm, or an OAuth2
``POST`` where there is an identity token. Tokens are kept by scope until shortly before they expire.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from urllib.parse import urlencode, urlsplit

import msgspec

from dockyard.artifact.registry.credentials import Credentials
from dockyard.artifact.registry.headers import Challenge, challenges
from dockyard.artifact.registry.transport import Transport
from dockyard.errors import SourceError

_CLIENT = "dockyard"
_DEFAULT_LIFE = 60.0
_MAX_TOKEN_BYTES = 1 << 20


class Authorizer:
    """Answers one registry's challenges; threads share it. ``find`` is asked once, when credentials are needed."""

    def __init__(self, host: str, transport: Transport, find: Callable[[], Credentials | None]) -> None:
        self._host = host
        self._transport = transport
        self._find = find
        self._found: Credentials | None = None
        self._searched = False
        self._scheme = ""
        self._realm = ""
        self._service = ""
        self._tokens: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def header(self, scope: str) -> str | None:
        """The header's value for a request that needs ``scope``, as far as the registry's ways are known by now."""
        with self._lock:
            if self._scheme == "basic":
                credentials = self._credentials()
                return credentials.basic() if credentials else None
            if self._scheme == "bearer":
                return f"Bearer {self._token(scope)}"
        return None

    def challenged(self, text: str, scope: str, refused: str | None) -> str | None:
        """The header's value after a 401 with this ``WWW-Authenticate``; None if there is nothing (else) to try.

        ``refused`` is what the request carried, so that a token another thread has renewed meanwhile is used.
        """
        offered = {challenge.scheme: challenge for challenge in reversed(challenges(text))}
        with self._lock:
            if "bearer" in offered:
                return self._bearer(offered["bearer"], scope, refused)
            if "basic" in offered:
                credentials = self._credentials()
                self._scheme = "basic"
                value = credentials.basic() if credentials else None
                return value if value != refused else None
        return None

    def _bearer(self, challenge: Challenge, scope: str, refused: str | None) -> str | None:
        realm = challenge.params.get("realm", "")
        if urlsplit(realm).scheme not in ("http", "https"):
            raise SourceError(f"registry {self._host} names no usable token server (realm {realm!r})")
        self._scheme, self._realm = "bearer", realm
        self._service = challenge.params.get("service", "")
        wanted = scope or challenge.params.get("scope", "")
        known = self._tokens.get(wanted)
        if known is not None and refused is not None and f"Bearer {known[0]}" == refused:
            del self._tokens[wanted]
            if challenge.params.get("error") == "insufficient_scope":
                return None
        value = f"Bearer {self._token(wanted)}"
        return value if value != refused else None

    def _credentials(self) -> Credentials | None:
        if not self._searched:
            self._found = self._find()
            self._searched = True
        return self._found

    def _token(self, scope: str) -> str:
        known = self._tokens.get(scope)
        if known is not None and known[1] > time.monotonic():
            return known[0]
        token, life = self._fetch(scope)
        self._tokens[scope] = (token, time.monotonic() + max(0.0, life - 10.0))
        return token

    def _fetch(self, scope: str) -> tuple[str, float]:
        credentials = self._credentials()
        scopes = scope.split()
        if credentials is not None:
            self._transport.refuse_leak(self._realm)
        if credentials is not None and credentials.identity_token:
            fields = {"grant_type": "refresh_token", "client_id": _CLIENT, "service": self._service}
            fields |= {"refresh_token": credentials.identity_token, "scope": " ".join(scopes)}
            answer = self._transport.request(
                "POST",
                self._realm,
                headers={"Content-Type": "application/x-www-form-urlencoded"},
                body=urlencode(fields).encode(),
            )
        else:
            query = [("service", self._service)] if self._service else []
            query += [("scope", one) for one in scopes]
            if credentials is not None and credentials.username:
                query.append(("account", credentials.username))
            joint = "&" if urlsplit(self._realm).query else "?"
            answer = self._transport.request(
                "GET",
                f"{self._realm}{joint}{urlencode(query)}",
                authorization=credentials.basic() if credentials else None,
            )
        data = answer.body(_MAX_TOKEN_BYTES)
        if answer.status in (400, 401, 403):
            raise SourceError(
                f"the token server of registry {self._host} refused "
                + ("these credentials" if credentials else "anonymous access")
                + f" ({answer.status})",
                hint=f"log in with `docker login {self._host}`, or set DOCKER_USERNAME and DOCKER_PASSWORD",
            )
        if answer.status != 200:
            raise SourceError(f"the token server of registry {self._host} answered {answer.status}")
        return self._read(data)

    def _read(self, data: bytes) -> tuple[str, float]:
        try:
            fields = msgspec.json.decode(data, type=dict[str, object])
        except msgspec.DecodeError:
            fields = {}
        token = fields.get("token") or fields.get("access_token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise SourceError(f"the token server of registry {self._host} answered without a token")
        life = fields.get("expires_in")
        return token, float(life) if isinstance(life, int | float) and life > 0 else _DEFAULT_LIFE
