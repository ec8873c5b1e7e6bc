"""Python functions as tools: ``module:attribute`` in ``command``; type hints and docstring say what they take.

They run in this process with all that it may do, so only functions of modules that the operator lists in the setting
``tools_functions`` (or below one) are taken; nothing is imported before that is known. A function that is not async
runs in a thread, which nobody can end: one that never returns keeps its thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import re
import typing
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from dockyard.errors import DockyardError, InvalidRequest
from dockyard.settings import Settings
from dockyard.tools.model import Outcome, Server
from dockyard.types import Json

_ARGUMENT = re.compile(r"^\s+(\w+)\s*(?:\([^)]*\))?:\s+(\S.*)$")


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
        offered = {tool.name: tool for tool in map(Offered, server.command)}

        async def call(name: str, arguments: dict[str, Json]) -> Outcome:
            if name not in offered:
                raise InvalidRequest(f"there is no tool {name!r}")
            return await offered[name](arguments)

        async with serving(server.name, [tool.definition for tool in offered.values()], call) as transport:
            yield transport


class Offered:
    """One function as a tool. Raises InvalidRequest for what can't be imported or described."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.function = _imported(path)
        self.name = self.function.__name__
        try:
            self.arguments = _struct(self.function)
            self.schema = _schema(self.arguments, _told(self.function))
        except (TypeError, NameError, ValueError) as error:
            raise InvalidRequest(f"{path} can't be a tool: {error}", param="command") from error

    @property
    def definition(self) -> dict[str, Json]:
        text = (inspect.getdoc(self.function) or "").split("\nArgs:")[0].strip()
        return {"name": self.name, "description": text, "inputSchema": self.schema}

    async def __call__(self, arguments: dict[str, Json]) -> Outcome:
        from dockyard.tools.runners._memory import text

        try:
            given = msgspec.convert(arguments, self.arguments)
        except msgspec.ValidationError as error:
            return text(f"{self.name}: {error}", failed=True)
        values = {name: getattr(given, name) for name in self.arguments.__struct_fields__}
        try:
            if inspect.iscoroutinefunction(self.function):
                result = await self.function(**values)
            else:
                result = await asyncio.to_thread(self.function, **values)
            return _outcome(result)
        except DockyardError as error:
            return text(error.message, failed=True)
        except Exception as error:  # noqa: BLE001 - other people's code: its failure is the tool's answer
            return text(f"{type(error).__name__}: {error}", failed=True)


def _outcome(result: object) -> Outcome:
    from dockyard.tools.runners._memory import text

    if isinstance(result, Outcome):
        return result
    if isinstance(result, str):
        return text(result)
    plain = msgspec.to_builtins(result)
    return text(msgspec.json.encode(plain).decode(), structured=plain if isinstance(plain, dict) else None)


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


def _struct(function: Callable[..., Any]) -> type[msgspec.Struct]:
    """The function's parameters as a struct that forbids others."""
    hints = typing.get_type_hints(function, include_extras=True)
    fields: list[Any] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"the parameter {name!r} can't be given by name")
        kind = hints.get(name, Any)
        fields.append((name, kind) if parameter.default is parameter.empty else (name, kind, _default(parameter)))
    return msgspec.defstruct(function.__name__, fields, kw_only=True, forbid_unknown_fields=True)


def _default(parameter: inspect.Parameter) -> Any:
    value = parameter.default
    return msgspec.field(default_factory=lambda: value) if isinstance(value, list | dict | set) else value


def _schema(struct: type[msgspec.Struct], told: dict[str, str]) -> dict[str, Json]:
    (schema,), parts = msgspec.json.schema_components([struct], ref_template="#/$defs/{name}")
    own = parts.pop(struct.__name__, schema)
    own.pop("title", None)
    for name, described in told.items():
        if name in own["properties"]:
            own["properties"][name].setdefault("description", described)
    return {**own, "$defs": parts} if parts else dict(own)


def _told(function: Callable[..., Any]) -> dict[str, str]:
    """What the section ``Args:`` of a docstring says of each parameter."""
    section = (inspect.getdoc(function) or "").partition("\nArgs:\n")[2]
    found = {}
    for line in section.splitlines():
        if line and not line[0].isspace():
            break
        match = _ARGUMENT.match(line)
        if match:
            found[match.group(1)] = match.group(2)
    return found


PLUGIN = Function
