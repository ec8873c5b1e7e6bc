"""What each server's tools were when they were first seen, and which ones wait for a person since they changed.

One file a server, ``<home>/mcp/pins/<server>.json``, replaced whole under a lock, so that every process of this home
sees the same. The first definition of a tool is trusted if nothing in it is suspicious; any other must be reviewed.
"""

from __future__ import annotations

import difflib
import json
import time
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

import msgspec
from filelock import FileLock

from dockyard.errors import InvalidRequest, NotFound
from dockyard.tools.model import Tool
from dockyard.tools.safety.canonical import digest
from dockyard.tools.safety.hidden import visible
from dockyard.types import Json

INSTRUCTIONS = "(instructions)"
"""Stands for a server's own instructions among its tools' names; no tool can be called so."""

MOST_ACCEPTED = 8
"""Definitions of one tool that count at once; a server may have two forms of it for two profiles."""

Mode = Literal["first", "strict", "off"]


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A definition that is kept from everybody until a person reviews it.

    ``why`` is "changed", "suspicious" or "new"; ``reasons`` are what is suspicious in it; ``diff`` is between the
    definition that was accepted last, if any, and this one. Characters that can't be seen are written as escapes.
    """

    server: str
    tool: str
    why: str
    reasons: tuple[str, ...]
    diff: str
    fingerprint: str
    since: float
    refused: bool = False


class _Waiting(msgspec.Struct, kw_only=True):
    fingerprint: str
    raw: Json
    why: str
    reasons: tuple[str, ...]
    since: float


class _Pin(msgspec.Struct, kw_only=True, omit_defaults=True):
    accepted: list[str] = []
    refused: list[str] = []
    raw: Json = None
    first: float = 0.0
    waiting: _Waiting | None = None


_Pins = dict[str, _Pin]


def fingerprint(raw: Json) -> str:
    """Of a tool's MCP definition, or of instructions; the same for any order of keys."""
    return digest(raw)


class Pins:
    """The pins of one home. ``mode`` is the setting ``tools_pin``: with "off" everything passes."""

    def __init__(self, home: Path, mode: Mode) -> None:
        self._folder = home / "mcp" / "pins"
        self._mode = mode
        self._read: dict[str, tuple[tuple[int, int], _Pins]] = {}

    def passes(self, server: str, found: dict[str, Json], reasons: dict[str, tuple[str, ...]]) -> set[str]:
        """The names among ``found`` (name to definition) that are as they were; the others are held from now on.

        ``reasons`` are what is suspicious in a definition, by name. New ones are pinned if nothing is.
        """
        if self._mode == "off":
            return set(found)
        prints = {name: fingerprint(raw) for name, raw in found.items()}
        pins = self._pins(server)
        if not all(self._settled(pins.get(name), prints[name]) for name in found):
            with self._turn(server):
                pins = self._pins(server)
                known = any(pin.accepted for name, pin in pins.items() if name != INSTRUCTIONS)
                for name, raw in found.items():
                    self._take(pins, name, raw, prints[name], reasons.get(name, ()), known)
                self._write(server, pins)
        return {name for name in found if prints[name] in pins[name].accepted}

    def _settled(self, pin: _Pin | None, print_: str) -> bool:
        if pin is None:
            return False
        held = pin.waiting is not None and pin.waiting.fingerprint == print_
        return held or print_ in pin.accepted or print_ in pin.refused

    def _take(self, pins: _Pins, name: str, raw: Json, print_: str, reasons: tuple[str, ...], known: bool) -> None:
        pin = pins.setdefault(name, _Pin())
        if self._settled(pin, print_):
            return
        now = time.time()
        new = not pin.accepted and not pin.refused and pin.waiting is None
        if new and not reasons and not (known and self._mode == "strict"):
            pin.accepted, pin.raw, pin.first = [print_], raw, now
            return
        why = "changed" if pin.accepted else "suspicious" if reasons else "new"
        pin.waiting = _Waiting(fingerprint=print_, raw=raw, why=why, reasons=reasons, since=now)

    def hold(self, server: str, name: str, reasons: tuple[str, ...]) -> None:
        """Take back what was trusted at first sight, for a reason seen later; what a person accepted stays."""
        with self._turn(server):
            pins = self._pins(server)
            pin = pins.get(name)
            if pin is None or not pin.first or pin.waiting is not None:
                return
            print_ = pin.accepted.pop()
            pin.waiting = _Waiting(
                fingerprint=print_, raw=pin.raw, why="suspicious", reasons=reasons, since=time.time()
            )
            pin.raw, pin.first = None, 0.0
            self._write(server, pins)
            self._reviewed()

    def holds(self, tool: Tool) -> bool:
        """Whether this very definition is held now."""
        pin = self._pins(tool.server).get(tool.name)
        return pin is not None and tool.fingerprint not in pin.accepted and self._settled(pin, tool.fingerprint)

    def held(self, server: str | None = None) -> list[Held]:
        """Everything that waits for a review or was refused, by server and tool."""
        names = [server] if server is not None else sorted(unquote(path.stem) for path in self._folder.glob("*.json"))
        found = []
        for one in names:
            for name, pin in sorted(self._pins(one).items()):
                if (waiting := pin.waiting) is not None:
                    found.append(
                        Held(
                            server=one,
                            tool=name,
                            why=waiting.why,
                            reasons=waiting.reasons,
                            diff=difference(pin.raw, waiting.raw),
                            fingerprint=waiting.fingerprint,
                            since=waiting.since,
                            refused=waiting.fingerprint in pin.refused,
                        )
                    )
        return found

    def review(self, server: str, tool: str, accept: bool, fingerprint: str | None = None) -> None:
        """Let a held definition pass, or refuse it for good. ``fingerprint`` is that of the one that was looked at.

        Raises NotFound, and InvalidRequest if the definition has changed since it was looked at.
        """
        with self._turn(server):
            pins = self._pins(server)
            pin = pins.get(tool)
            if pin is None or pin.waiting is None:
                raise NotFound(f"no tool {tool!r} of server {server!r} waits for a review", param="tool")
            waiting = pin.waiting
            if fingerprint is not None and fingerprint != waiting.fingerprint:
                raise InvalidRequest(
                    f"tool {tool!r} of server {server!r} has changed again since it was looked at", param="fingerprint"
                )
            if accept:
                pin.accepted = [*pin.accepted, waiting.fingerprint][-MOST_ACCEPTED:]
                pin.refused = [one for one in pin.refused if one != waiting.fingerprint]
                pin.raw, pin.waiting, pin.first = waiting.raw, None, 0.0
            elif waiting.fingerprint not in pin.refused:
                pin.refused.append(waiting.fingerprint)
            self._write(server, pins)
            self._reviewed()

    def forget(self, server: str) -> None:
        """Trust the next definitions of this server as if it were new."""
        with self._turn(server):
            self._path(server).unlink(missing_ok=True)
            self._reviewed()

    def fingerprints(self, server: str) -> dict[str, str]:
        """What was accepted last of each tool."""
        return {name: pin.accepted[-1] for name, pin in self._pins(server).items() if pin.accepted}

    def names(self, server: str) -> set[str]:
        return {name for name in self._pins(server) if name != INSTRUCTIONS}

    def servers(self) -> list[str]:
        return sorted(unquote(path.stem) for path in self._folder.glob("*.json"))

    @property
    def revision(self) -> int:
        """Another number after a review, here or in another process."""
        try:
            return (self._folder / "reviewed").stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def _reviewed(self) -> None:
        (self._folder / "reviewed").touch()

    def _pins(self, server: str) -> _Pins:
        path = self._path(server)
        try:
            stat = path.stat()
        except FileNotFoundError:
            return {}
        stamp = (stat.st_mtime_ns, stat.st_ino)
        read = self._read.get(server)
        if read is None or read[0] != stamp:
            read = self._read[server] = (stamp, msgspec.convert(json.loads(path.read_bytes()), _Pins))
        return read[1]

    def _write(self, server: str, pins: _Pins) -> None:
        self._read.pop(server, None)
        path = self._path(server)
        part = path.with_suffix(".part")
        # Strings of a hostile server need not be Unicode; this writer escapes them, msgspec's would refuse.
        part.write_text(json.dumps(msgspec.to_builtins(pins), ensure_ascii=True, indent=1))
        part.replace(path)

    def _turn(self, server: str) -> FileLock:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return FileLock(self._path(server).with_suffix(".lock"), timeout=10)

    def _path(self, server: str) -> Path:
        return self._folder / f"{quote(server, safe='')}.json"


def difference(old: Json, new: Json) -> str:
    """A diff that a person can read: one line a value, hidden characters as escapes."""
    return "\n".join(
        difflib.unified_diff([] if old is None else _lines(old), _lines(new), "accepted", "offered", lineterm="", n=2)
    )


def _lines(raw: Json) -> list[str]:
    """Values by their path; a long text is broken where its own lines are."""
    found: list[str] = []

    def walk(value: Json, path: str) -> None:
        if isinstance(value, dict) and value:
            for key in sorted(value):
                walk(value[key], f"{path}.{visible(key)}" if path else visible(key))
        elif isinstance(value, list) and value:
            for at, one in enumerate(value):
                walk(one, f"{path}[{at}]")
        elif isinstance(value, str):
            found.extend(f"{path}: {visible(line)}" for line in value.split("\n"))
        else:
            found.append(f"{path}: {json.dumps(value)}")

    walk(raw, "")
    return found
