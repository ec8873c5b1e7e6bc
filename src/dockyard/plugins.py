"""Finds the implementations of a kind: files of its package, and entry points of group ``dockyard.<kind>``.

The kind ``engines`` is the package ``dockyard.engines``; every file in it whose name has no leading underscore, and
which binds ``PLUGIN``, is one plug-in, named as the file with ``_`` read as ``-``. An entry point names its object
directly. Nothing is imported before it is asked for; what can't be imported is listed with its error.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from importlib.metadata import EntryPoints


class Plugin:
    """One implementation: its ``name``, where it comes from, and the object itself once ``load`` was called."""

    def __init__(self, kind: str, name: str, origin: str, fetch: Callable[[], object]) -> None:
        self.kind = kind
        self.name = name
        self.origin = origin
        self._fetch = fetch
        self._loaded: Any = None
        self._error: str | None = None

    def load(self) -> Any:
        """Import it; what it is, the contract of its kind says. Raises what its import raises; ``error`` says why."""
        if self._loaded is None:
            self._loaded = self._fetch()
        return self._loaded

    @property
    def error(self) -> str | None:
        """Why it can't be used, or None; imports it."""
        if self._loaded is None and self._error is None:
            try:
                self.load()
            except Exception as error:  # noqa: BLE001 - other people's code: a broken plug-in is a record, not a crash
                self._error = f"{type(error).__name__}: {error}"
        return self._error


_BINDS = re.compile(r"^PLUGIN\s*(?::[^=\n]+)?=(?!=)", re.MULTILINE)


@cache
def find(kind: str) -> dict[str, Plugin]:
    """All plug-ins of a kind by name, nothing imported. Built-ins win over entry points of the same name."""
    found = {plugin.name: plugin for plugin in _from_entry_points(kind)}
    return dict(sorted({**found, **builtin(kind)}.items()))


@cache
def builtin(kind: str) -> dict[str, Plugin]:
    """Those of Dockyard itself, found without a look at what else is installed, which takes long."""
    return {plugin.name: plugin for plugin in sorted(_from_files(kind), key=lambda plugin: plugin.name)}


def named(kind: str, name: str) -> Plugin | None:
    """The plug-in of this name, if there is one."""
    return builtin(kind).get(name) or find(kind).get(name)


def _folders(kind: str) -> list[Path]:
    spec = importlib.util.find_spec(f"dockyard.{kind}")
    return [Path(folder) for folder in (spec.submodule_search_locations if spec is not None else None) or ()]


def _from_files(kind: str) -> list[Plugin]:
    paths = (path for folder in _folders(kind) for path in folder.glob("*.py"))
    stems = [path.stem for path in paths if not path.stem.startswith("_") and _binds_plugin(path)]
    return [
        Plugin(kind, stem.replace("_", "-"), "dockyard", partial(_bound, f"dockyard.{kind}.{stem}")) for stem in stems
    ]


def _bound(module: str) -> object:
    return importlib.import_module(module).PLUGIN


def _from_entry_points(kind: str) -> list[Plugin]:
    return [
        Plugin(kind, entry.name, entry.dist.name if entry.dist else entry.value, entry.load)
        for entry in _entries()(group=f"dockyard.{kind}")
    ]


def forget() -> None:
    """Look again, after something was installed or removed."""
    for known in (find, builtin, _entries):
        known.cache_clear()


@cache
def _entries() -> Callable[..., EntryPoints]:
    """Selects from those of all that is installed, which are many files to read."""
    from importlib.metadata import entry_points  # a program that starts has no need of it

    return entry_points().select


def _binds_plugin(path: Path) -> bool:
    """Read, not imported: a file that can't even be parsed counts, so that it is shown as broken."""
    return _BINDS.search(path.read_text(encoding="utf-8")) is not None
