"""Finds the implementations of a kind: files of its package, and entry points of group ``dockyard.<kind>``.

The kind ``engines`` is the package ``dockyard.engines``; every file in it whose name has no leading underscore, and
which binds ``PLUGIN``, is one plug-in, named as the file with ``_`` read as ``-``. An entry point names its object
directly. Nothing is imported before it is asked for; what can't be imported is listed with its error.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path


class Plugin:
    """One implementation: its ``name``, where it comes from, and the object itself once ``load`` was called."""

    def __init__(self, kind: str, name: str, origin: str, entry: EntryPoint) -> None:
        self.kind = kind
        self.name = name
        self.origin = origin
        self._entry = entry
        self._loaded: object | None = None
        self._error: str | None = None

    def load(self) -> object:
        """Import it. Raises whatever its import raises; ``error`` gives that as a sentence."""
        if self._loaded is None:
            self._loaded = self._entry.load()
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


@cache
def find(kind: str) -> dict[str, Plugin]:
    """All plug-ins of a kind by name, nothing imported. Built-ins win over entry points of the same name."""
    found = {plugin.name: plugin for plugin in _from_entry_points(kind)}
    found.update({plugin.name: plugin for plugin in _from_files(kind)})
    return dict(sorted(found.items()))


def _from_files(kind: str) -> list[Plugin]:
    package = f"dockyard.{kind}"
    spec = importlib.util.find_spec(package)
    folders = spec.submodule_search_locations if spec is not None else None
    found = []
    for path in (path for folder in folders or () for path in Path(folder).glob("*.py")):
        if not path.stem.startswith("_") and _binds_plugin(path):
            entry = EntryPoint(path.stem, f"{package}.{path.stem}:PLUGIN", f"dockyard.{kind}")
            found.append(Plugin(kind, path.stem.replace("_", "-"), "dockyard", entry))
    return found


def _from_entry_points(kind: str) -> list[Plugin]:
    return [
        Plugin(kind, entry.name, entry.dist.name if entry.dist else entry.value, entry)
        for entry in entry_points(group=f"dockyard.{kind}")
    ]


def _binds_plugin(path: Path) -> bool:
    """Read, not imported: a file that can't even be parsed counts, so that it is shown as broken."""
    text = path.read_text(encoding="utf-8")
    if "PLUGIN" not in text:
        return False
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return True
    return any(
        isinstance(target, ast.Name) and target.id == "PLUGIN"
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    )
