"""Python functions as tools: ``module:attribute`` in ``command``; type hints and docstring say what they take.

They run in this process with all that it may do, so only functions of modules that the operator lists in the setting
``tools_functions`` (or below one) are taken; nothing is imported before that is known. A function that is not async
runs in a thread, which nobody can end: one that never returns keeps its thread.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import typing
from collections.abc import AsyncIterator, Callable
from typing import Any

from dockyard.errors import InvalidRequest
from dockyard.settings import Settings
from dockyard.tools.model import Outcome, Server
from dockyard.tools.runners._offered import Offered
from dockyard.types import Json


class Function:
    name = "function"

    def __init__(self, settings: Settings) -> None:
        self._modules = settings.tools_functions

    def refuses(self, server: Server) -> str | None:
        if not server.command:
            return f"server {server.name!r} names no function; command is a list of module:attribute"
        for word in server.command:
            module, _, attribute = word.partition(":")
            if not module or not attribute:
                return f"server {server.name!r}: {word!r} is not module:attribute"
            if not any(module == each or module.startswith(f"{each}.") for each in self._modules):
                return f"server {server.name!r}: the setting tools_functions does not list the module {module!r}"
        return None

    @contextlib.asynccontextmanager
    async def connect(self, server: Server, secrets: dict[str, str]) -> AsyncIterator[Any]:
        """Secrets are not for functions: they run where all of them are. Raises InvalidRequest."""
        from dockyard.tools.runners._memory import serving

        reason = self.refuses(server) or (f"server {server.name!r}: functions get no secrets" if secrets else None)
        if reason is not None:
            raise InvalidRequest(reason, param="command", hint="add the module to tools_functions if you trust it")
        offered = {tool.name: tool for tool in (Offered(path, _imported(path)) for path in server.command)}

        async def call(name: str, arguments: dict[str, Json]) -> Outcome:
            if name not in offered:
                raise InvalidRequest(f"there is no tool {name!r}")
            return await offered[name](arguments)

        async with serving(server.name, [tool.definition for tool in offered.values()], call) as transport:
            yield transport


def _imported(path: str) -> Callable[..., Any]:
    module, _, attribute = path.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for word in attribute.split("."):
            found = getattr(found, word)
    except Exception as error:
        raise InvalidRequest(f"{path} can't be imported: {type(error).__name__}: {error}", param="command") from error
    if not inspect.isroutine(found):
        raise InvalidRequest(f"{path} is not a function", param="command")
    return typing.cast("Callable[..., Any]", found)


PLUGIN = Function
