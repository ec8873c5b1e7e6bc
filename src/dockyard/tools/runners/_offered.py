"""A Python function as a tool: type hints and docstring say what it takes."""

from __future__ import annotations

import asyncio
import inspect
import re
import typing
from collections.abc import Callable
from typing import Any

import msgspec

from dockyard.errors import DockyardError, InvalidRequest
from dockyard.tools.model import Outcome
from dockyard.types import Json

_ARGUMENT = re.compile(r"^\s+(\w+)\s*(?:\([^)]*\))?:\s+(\S.*)$")


class Offered:
    """One function as a tool; ``path`` is what people know it by. Raises InvalidRequest for what can't be described."""

    def __init__(self, path: str, function: Callable[..., Any], annotations: dict[str, Json] | None = None) -> None:
        self.path = path
        self.function = function
        self.name = self.function.__name__
        self._annotations = annotations
        try:
            self.arguments = _struct(self.function)
            self.schema = _schema(self.arguments, _told(self.function))
        except (TypeError, NameError, ValueError) as error:
            raise InvalidRequest(f"{path} can't be a tool: {error}", param="command") from error

    @property
    def definition(self) -> dict[str, Json]:
        text = (inspect.getdoc(self.function) or "").split("\nArgs:")[0].strip()
        told: dict[str, Json] = {"name": self.name, "description": text, "inputSchema": self.schema}
        return {**told, "annotations": self._annotations} if self._annotations else told

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
            return text(f"{error.message} ({error.hint})" if error.hint else error.message, failed=True)
        except Exception as error:  # noqa: BLE001 - other people's code: its failure is the tool's answer
            return text(f"{type(error).__name__}: {error}", failed=True)


def _outcome(result: object) -> Outcome:
    from dockyard.tools.runners._memory import text

    if isinstance(result, Outcome):
        return result
    if isinstance(result, str):
        return text(result)
    plain = msgspec.to_builtins(result)
    # As the official SDK has it: what is no object is wrapped in one.
    return text(msgspec.json.encode(plain).decode(), structured=plain if isinstance(plain, dict) else {"result": plain})


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
