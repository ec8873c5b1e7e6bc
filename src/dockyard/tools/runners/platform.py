"""Dockyard's own management as a tool server, answered in this process; see ``tools/platform``."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from dockyard.errors import InvalidRequest
from dockyard.settings import Settings
from dockyard.tools.model import Outcome, Server
from dockyard.tools.runners._offered import Offered
from dockyard.types import Json


class Platform:
    name = "platform"

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def refuses(self, server: Server) -> str | None:
        if server.secrets or server.command or server.env:
            return f"server {server.name!r}: the platform takes no command, variables or secrets"
        return None

    @contextlib.asynccontextmanager
    async def connect(self, server: Server, secrets: dict[str, str]) -> AsyncIterator[Any]:  # noqa: ARG002
        """Raises InvalidRequest for an entry with things that it has no use for."""
        from dockyard.tools.platform import functions, hints
        from dockyard.tools.runners._memory import serving

        if (reason := self.refuses(server)) is not None:
            raise InvalidRequest(reason, param="server")
        offered = {name: Offered(name, each, dict(hints(name))) for name, each in functions(self._settings).items()}

        async def call(name: str, arguments: dict[str, Json]) -> Outcome:
            if name not in offered:
                raise InvalidRequest(f"there is no tool {name!r}")
            return await offered[name](arguments)

        async with serving(server.name, [tool.definition for tool in offered.values()], call) as transport:
            yield transport


PLUGIN = Platform
