"""What the handlers of one server share, and who may use which of them."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from dockyard.api._wire import Watchdog, credential
from dockyard.errors import Forbidden
from dockyard.gateway import Gateway
from dockyard.gateway.keyring import Keyring
from dockyard.settings import LOOPBACK, Settings
from dockyard.stack import EMPTY, Stack
from dockyard.telemetry import LogRing
from dockyard.types import Principal

if TYPE_CHECKING:
    from dockyard.artifact.store import Store
    from dockyard.state import State

Scope = Literal["infer", "manage"]
Guard = Callable[[ASGIConnection[Any, Any, Any, Any], BaseRouteHandler], Awaitable[None]]


class Site(msgspec.Struct, kw_only=True):
    """One server. ``fleet`` and ``gateway`` are None on a hub; ``state`` is None inside another program.

    ``trusted`` says that whoever can call has every right, which is so for an app that no socket serves.
    ``loading`` holds the models still to be preloaded. ``kept`` is what ``_kept.kept`` made; ``ends`` are awaited, last
    first, when the application ends and its fleet is still there. ``records`` are of the last requests; ``app`` is the
    application itself, for routes that are other names of its routes. ``toolbox`` is what ``_toolbox.toolbox`` made;
    ``stack`` says which routes there are.
    """

    settings: Settings
    store: Store
    keyring: Keyring
    watchdog: Watchdog
    fleet: Any = None
    gateway: Gateway | None = None
    state: State | None = None
    trusted: bool = False
    logs: LogRing = msgspec.field(default_factory=LogRing)
    loading: list[str] = []
    url: str = ""
    pid: int = msgspec.field(default_factory=os.getpid)
    started: float = msgspec.field(default_factory=time.time)
    stop: Callable[[], None] | None = None
    kept: Any = None
    records: Any = None
    app: Any = None
    toolbox: Any = None
    stack: Stack = EMPTY
    prompts: Any = None
    bases: Any = None
    feeds: Any = None
    ends: list[Callable[[], Awaitable[None]]] = []

    @property
    def keyless(self) -> bool:
        """Reached over a loopback socket and without keys: only what the browser says protects it from web pages."""
        return not self.trusted and self.keyring.open and self.settings.host in LOOPBACK

    async def principal(self, headers: dict[bytes, bytes], scope: Scope | None = None) -> Principal:
        """Who sends these headers. Raises Unauthorized, and Forbidden if ``scope`` is not theirs."""
        found = await self.keyring.authenticate(credential(headers))
        if scope is not None and scope not in found.scopes:
            raise Forbidden(f"key {found.name!r} may not {scope}", hint=f"use a key with the scope `{scope}`")
        return found

    def require(self, scope: Scope | None) -> Guard:
        """A Litestar guard for handlers that need this scope; None: any key."""

        async def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:  # noqa: ARG001
            await self.principal(dict(connection.scope["headers"]), scope)

        return guard
