"""What reading a catalogue gives, and careful access to other people's JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from dockyard.errors import InvalidRequest
from dockyard.tools.model import SEPARATOR, Secret, Server
from dockyard.types import Json


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An entry that was left out, or a part of one, and why. ``line`` counts from 1; 0: not known."""

    where: str
    message: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.where}{f' (line {self.line})' if self.line else ''}: {self.message}"


class Catalogue(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Servers of one source. ``extra`` is what the document said besides; ``problems`` what could not be read of it."""

    format: str
    servers: tuple[Server, ...] = ()
    name: str = ""
    title: str = ""
    source: str = ""
    problems: tuple[Problem, ...] = ()
    extra: dict[str, Json] = {}


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed text: its value, where its first levels begin, and keys that it has twice."""

    value: Any
    lines: dict[tuple[str | int, ...], int] = {}
    twice: tuple[Problem, ...] = ()

    def line(self, *path: str | int) -> int:
        return self.lines.get(path, 0)


def bad(where: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{where} {message}", param=where)


def text(entry: Mapping[str, Any], key: str, default: str = "") -> str:
    """A field that is text; numbers and truth values count as written. Raises InvalidRequest."""
    value = entry.get(key)
    if value is None:
        return default
    return plain(value, key)


def plain(value: Any, where: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise bad(where, f"is {kind_of(value)}, and should be text")


def texts(entry: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """A field that is a list of text; one text counts as a list of it. Raises InvalidRequest."""
    value = entry.get(key)
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, list):
        raise bad(key, f"is {kind_of(value)}, and should be a list of text")
    return tuple(plain(item, f"{key}[{place}]") for place, item in enumerate(value))


def table(entry: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A field that is a table. Raises InvalidRequest."""
    value = entry.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise bad(key, f"is {kind_of(value)}, and should be a table")
    return value


def tables(entry: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """A field that is a list of tables. Raises InvalidRequest."""
    value = entry.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise bad(key, f"is {kind_of(value)}, and should be a list")
    for place, item in enumerate(value):
        if not isinstance(item, dict):
            raise bad(f"{key}[{place}]", f"is {kind_of(item)}, and should be a table")
    return value


def kind_of(value: Any) -> str:
    """How people call a JSON value's type."""
    names = {dict: "a table", list: "a list", str: "text", bool: "a truth value", type(None): "empty"}
    return names.get(type(value), "a number")


_UNFIT = re.compile(r"[^A-Za-z0-9_.-]+")


def fit(name: str) -> str:
    """A server's name made from a foreign one: ``io.github.user/weather`` is ``weather``."""
    short = _UNFIT.sub("-", name.strip().rstrip("/").rsplit("/", 1)[-1])
    while SEPARATOR in short:
        short = short.replace(SEPARATOR, "_")
    return short.strip("-_.")[:64].strip("-_.") or "server"


_VARIABLE = re.compile(r"\$\{(?:env:|input:)?([A-Za-z0-9_.-]+)\}|\$\{\{\s*secrets\.([A-Za-z0-9_.-]+)\s*\}\}")


def variables(values: Iterable[str]) -> list[str]:
    """Names in ``${NAME}``, ``${env:NAME}`` and ``${input:NAME}``, in order."""
    return list(dict.fromkeys(hit[0] or hit[1] for value in values for hit in _VARIABLE.findall(value)))


def in_our_words(value: str) -> str:
    """``${env:NAME}`` and ``${input:NAME}`` as ``${NAME}``."""
    return _VARIABLE.sub(lambda hit: f"${{{hit[1] or hit[2]}}}", value)


def undeclared(secrets: tuple[Secret, ...], env: Mapping[str, str], values: Iterable[str]) -> tuple[Secret, ...]:
    """The secrets, and one for each variable that values use and nobody declares."""
    known = {name for secret in secrets for name in (secret.name, secret.env)}
    known |= {name for name, value in env.items() if "${" not in value}
    return (*secrets, *(Secret(name=name) for name in variables(values) if name not in known))


def changes(original: dict[str, Any], before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The original document with only those fields replaced that are others than when it was read."""
    result = dict(original)
    for key in {**before, **now}:
        if before.get(key) != now.get(key):
            if key in now:
                result[key] = now[key]
            else:
                result.pop(key, None)
    return result
