"""The catalogues of a home, one JSON file each in ``<home>/mcp/catalogs``.

``own`` has what was declared here. ``builtin`` is no file: it has the servers that Dockyard brings along.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from dockyard.errors import Conflict, InvalidRequest, NotFound
from dockyard.tools import platform
from dockyard.tools.catalog.found import Catalogue
from dockyard.tools.model import Server

OWN = "own"
BUILTIN = "builtin"
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


class Catalogues:
    """Written as a whole under one lock between processes."""

    def __init__(self, home: Path) -> None:
        self.folder = Path(home) / "mcp" / "catalogs"

    def names(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob("*.json") if _NAME.fullmatch(path.stem))

    def get(self, name: str) -> Catalogue:
        """Raises NotFound, and InvalidRequest for a broken file."""
        if name == BUILTIN:
            return Catalogue(format="dockyard", title="What Dockyard brings along", servers=(platform.SERVER,))
        path = self._path(name)
        try:
            return msgspec.json.decode(path.read_bytes(), type=Catalogue)
        except FileNotFoundError:
            there = ", ".join(self.names()) or "none"
            raise NotFound(f"there is no catalogue {name!r}", param="catalog", hint=f"there are: {there}") from None
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"{path}: {error}", param="catalog", hint="remove it, and add it again") from error

    def put(self, name: str, catalogue: Catalogue, *, new: bool = False) -> None:
        """Keep a catalogue. With ``new``, raises Conflict if there is one of this name."""
        with self._locked():
            if new and self._path(name).exists():
                raise Conflict(f"there is a catalogue {name!r} already", hint="remove it, or take another --name")
            self._write(name, catalogue)

    def edit(self, name: str, change: Callable[[Catalogue], Catalogue]) -> Catalogue:
        """Change a catalogue while nobody else does; ``own`` is begun if it is not there. Raises NotFound."""
        with self._locked():
            old = Catalogue(format="dockyard") if name == OWN and name not in self.names() else self.get(name)
            changed = change(old)
            self._write(name, changed)
        return changed

    def remove(self, name: str) -> None:
        """Raises NotFound. Profiles keep their snapshots."""
        with self._locked():
            self.get(name)
            self._path(name).unlink()

    def add(self, server: Server, *, to: str = OWN, replace: bool = False) -> None:
        """Put an entry into a catalogue. Raises Conflict for one of this name, unless ``replace``."""

        def change(old: Catalogue) -> Catalogue:
            if any(one.name == server.name for one in old.servers) and not replace:
                raise Conflict(f"catalogue {to!r} has a server {server.name!r} already", hint="replace or remove it")
            left = tuple(one for one in old.servers if one.name != server.name)
            return msgspec.structs.replace(old, servers=(*left, server))

        self.edit(to, change)

    def drop(self, server: str, *, of: str = OWN) -> None:
        """Take an entry out of a catalogue. Raises NotFound."""

        def change(old: Catalogue) -> Catalogue:
            left = tuple(one for one in old.servers if one.name != server)
            if len(left) == len(old.servers):
                raise NotFound(f"catalogue {of!r} has no server {server!r}", param="server")
            return msgspec.structs.replace(old, servers=left)

        self.edit(of, change)

    def servers(self) -> list[tuple[str, Server]]:
        """All servers with their catalogue's name: what was declared here first, what Dockyard brings along last."""
        order = [*sorted(self.names(), key=lambda name: (name != OWN, name)), BUILTIN]
        return [(name, server) for name in order for server in self.get(name).servers]

    def find(self, name: str, catalogue: str = "") -> tuple[str, Server]:
        """A server by its name, or ``catalogue/name``. Raises NotFound, and Conflict where several catalogues have one.

        What was declared here wins over catalogues.
        """
        if "/" in name and not catalogue:
            catalogue, _, name = name.partition("/")
        everything = self.servers()
        found = [(at, one) for at, one in everything if one.name == name and catalogue in ("", at)]
        if not found:
            near = difflib.get_close_matches(name, [one.name for _, one in everything], n=1)
            raise NotFound(
                f"no catalogue has a server {name!r}",
                param="server",
                hint=f"did you mean {near[0]!r}?" if near else "`dockyard mcp server ls` lists them",
            )
        if len(found) > 1 and found[0][0] != OWN:
            several = ", ".join(f"{at}/{name}" for at, _ in found)
            raise Conflict(f"several catalogues have a server {name!r}", hint=f"say which: {several}")
        return found[0]

    def _write(self, name: str, catalogue: Catalogue) -> None:
        from dockyard.artifact.index import write_synced

        write_synced(self._path(name), msgspec.json.format(msgspec.json.encode(catalogue), indent=1) + b"\n")

    def _path(self, name: str) -> Path:
        if name == BUILTIN:
            raise InvalidRequest(f"the catalogue {name!r} can't be changed", param="catalog", hint="take another name")
        if not _NAME.fullmatch(name):
            raise InvalidRequest(
                f"{name[:100]!r} is no name for a catalogue",
                param="catalog",
                hint="up to 64 lower-case letters, digits, - _ and . beginning with a letter or digit",
            )
        return self.folder / f"{name}.json"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock

        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(str(self.folder / ".lock")).acquire(poll_interval=0.005):
            yield
