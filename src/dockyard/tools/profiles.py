"""Profiles: named sets of servers with what a client may use of each, one JSON file each in ``<home>/mcp/profiles``.

A profile holds a *snapshot* of every server's entry, so that a catalogue that changes later changes nothing that was
agreed to. Files are replaced as a whole, under one lock between threads and processes; a reader sees the old one or the
new one. The folder is its user's alone, since entries may carry values.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dockyard.errors import Conflict, DockyardError, InvalidRequest, NotFound
from dockyard.tools.model import SEPARATOR, Enabled, Profile, Server

if TYPE_CHECKING:
    from dockyard.artifact.store import Store
    from dockyard.settings import Settings
    from dockyard.types import OnProgress

log = logging.getLogger(__name__)

DEFAULT = "default"
"""The profile of whoever names none; it is there, and empty, before anybody makes it."""

_PROFILE = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_SERVER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
Stamp = tuple[int, int, int]


class Profiles:
    """The profiles of one home folder. Reading is cheap: a file is parsed again only when it changed.

    ``store`` is needed only by ``push`` and ``pull``.
    """

    def __init__(self, home: Path, store: Store | None = None) -> None:
        self.folder = Path(home) / "mcp" / "profiles"
        self._store = store
        self._seen: dict[str, tuple[Stamp, Profile, Profile]] = {}
        self._guard = threading.Lock()

    def get(self, name: str = DEFAULT) -> Profile:
        """The profile as it is run: configuration is put into the entries. Raises NotFound, InvalidRequest.

        A server that lacks configuration keeps its placeholders; ``catalog.settled`` says which.
        """
        return self._read(name)[1]

    def stored(self, name: str = DEFAULT) -> Profile:
        """The profile as it is kept, to show, change or export."""
        return self._read(name)[0]

    def names(self) -> list[str]:
        """All profiles, the default one among them."""
        found = {path.stem for path in self.folder.glob("*.json") if _PROFILE.fullmatch(path.stem)}
        return sorted(found | {DEFAULT})

    def list(self) -> list[Profile]:
        """All that can be read, as kept; ``broken`` has the others."""
        found = []
        for name in self.names():
            with contextlib.suppress(InvalidRequest, NotFound):
                found.append(self.stored(name))
        return found

    def broken(self) -> dict[str, str]:
        """Files that are no profiles, and why."""
        found = {}
        for name in self.names():
            try:
                self.stored(name)
            except DockyardError as error:
                found[name] = error.message
        return found

    def put(self, profile: Profile, *, new: bool = False) -> Profile:
        """Keep a profile, in the place of one of its name. Raises InvalidRequest, and with ``new`` Conflict."""
        _check(profile)
        with self._locked():
            if new and self._path(profile.name).exists():
                raise Conflict(f"there is a profile {profile.name!r} already", hint="remove it, or take another name")
            self._write(profile)
        return profile

    def edit(self, name: str, change: Callable[[Profile], Profile]) -> Profile:
        """Change a profile while nobody else does. Raises NotFound, and what ``change`` and ``put`` raise."""
        with self._locked():
            changed = change(self.stored(name))
            _check(changed)
            self._write(changed)
        return changed

    def remove(self, name: str) -> None:
        """Raises NotFound."""
        with self._locked():
            try:
                self._path(name).unlink()
            except FileNotFoundError:
                raise self._missing(name) from None
            self._seen.pop(name, None)

    def enable(self, name: str, server: Server, *, replace: bool = False) -> Profile:
        """Put a snapshot of a server's entry into a profile. Raises Conflict for another entry of this name.

        What was chosen of its tools, and its configuration, stay when it is replaced.
        """

        def change(profile: Profile) -> Profile:
            old = next((one for one in profile.servers if one.server.name == server.name), None)
            if old is None:
                return msgspec.structs.replace(profile, servers=(*profile.servers, Enabled(server=server)))
            if not replace and _bare(old.server) != _bare(server):
                raise Conflict(
                    f"profile {name!r} has another entry for the server {server.name!r}",
                    hint="disable that first, or replace it",
                )
            kept = msgspec.structs.replace(server, config={**server.config, **old.server.config})
            return with_enabled(profile, msgspec.structs.replace(old, server=kept))

        return self.edit(name, change)

    def disable(self, name: str, server: str) -> Profile:
        """Take a server out of a profile. Raises NotFound."""

        def change(profile: Profile) -> Profile:
            enabled(profile, server)
            left = tuple(one for one in profile.servers if one.server.name != server)
            return msgspec.structs.replace(profile, servers=left)

        return self.edit(name, change)

    def export(self, name: str, format: str = "dockyard") -> str:
        """A profile as text: ``dockyard`` JSON, or ``docker``, whose profiles are YAML. Raises InvalidRequest."""
        from dockyard.tools.catalog import profile_files

        return profile_files.write(self.stored(name), format)

    def load(self, text: str, *, name: str = "", replace: bool = False) -> Profile:
        """Keep a profile that ``export`` or Docker wrote, by ``name`` or its own. Raises InvalidRequest, Conflict."""
        from dockyard.tools.catalog import profile_files

        profile = profile_files.read(text)
        return self.put(msgspec.structs.replace(profile, name=name or profile.name), new=not replace)

    def push(
        self,
        name: str,
        reference: str,
        settings: Settings,
        *,
        format: str = "dockyard",
        on_progress: OnProgress | None = None,
    ) -> str:
        """Make a profile an artifact of the store and send it to its registry; its digest."""
        from dockyard.tools.catalog import oci, profile_files

        data = profile_files.write(self.stored(name), format, as_json=True).encode()
        return oci.push(self._need_store(), reference, data, oci.PROFILE_TYPES[format], settings, on_progress)

    def pull(
        self,
        reference: str,
        settings: Settings,
        *,
        name: str = "",
        replace: bool = False,
        on_progress: OnProgress | None = None,
    ) -> Profile:
        """Fetch a profile from a registry and keep it. Raises what pulling raises, and as ``load`` does."""
        from dockyard.tools.catalog import oci

        kinds = frozenset(oci.PROFILE_TYPES.values())
        text = oci.pull(self._need_store(), reference, kinds, settings, on_progress)
        return self.load(text, name=name, replace=replace)

    def _need_store(self) -> Store:
        if self._store is None:
            raise InvalidRequest("profiles are pushed and pulled through a store, and there is none here")
        return self._store

    def _read(self, name: str) -> tuple[Profile, Profile]:
        path = self._path(name)
        try:
            state = path.stat()
            stamp = (state.st_ino, state.st_mtime_ns, state.st_size)
            seen = self._seen.get(name)
            if seen is not None and seen[0] == stamp:
                return seen[1], seen[2]
            data = path.read_bytes()
        except FileNotFoundError:
            if name == DEFAULT:
                return _EMPTY, _EMPTY
            raise self._missing(name) from None
        try:
            kept = msgspec.json.decode(data, type=Profile)
            _check(msgspec.structs.replace(kept, name=name))
        except (msgspec.DecodeError, InvalidRequest) as error:
            raise InvalidRequest(f"{path}: {error}", param="profile", hint="mend the file, or remove it") from error
        kept = msgspec.structs.replace(kept, name=name)
        with self._guard:
            self._seen[name] = (stamp, kept, _as_run(kept))
            return self._seen[name][1:]

    def _write(self, profile: Profile) -> None:
        from dockyard.artifact.index import write_synced

        data = msgspec.json.format(msgspec.json.encode(profile), indent=2)
        write_synced(self._path(profile.name), data + b"\n")

    def _path(self, name: str) -> Path:
        return self.folder / f"{profile_name(name)}.json"

    def _missing(self, name: str) -> NotFound:
        return NotFound(f"there is no profile {name!r}", param="profile", hint=f"there are: {', '.join(self.names())}")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        from filelock import FileLock

        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(str(self.folder / ".lock")).acquire(poll_interval=0.005):
            yield


_EMPTY = Profile(name=DEFAULT)


def profile_name(name: str) -> str:
    """The name, if a profile may have it. Raises InvalidRequest."""
    if not _PROFILE.fullmatch(name):
        raise InvalidRequest(
            f"{name[:100]!r} is no name for a profile",
            param="profile",
            hint="up to 64 lower-case letters, digits, - _ and . beginning with a letter or digit",
        )
    return name


def server_name(name: str) -> str:
    """The name, if a server may have it: it is part of tools' names and of paths. Raises InvalidRequest."""
    if not _SERVER.fullmatch(name) or SEPARATOR in name:
        raise InvalidRequest(
            f"{name[:100]!r} is no name for a server",
            param="server",
            hint=f"up to 64 letters, digits, - _ and . beginning with a letter or digit, and no {SEPARATOR}",
        )
    return name


def enabled(profile: Profile, server: str) -> Enabled:
    """A profile's server. Raises NotFound."""
    for one in profile.servers:
        if one.server.name == server:
            return one
    there = ", ".join(one.server.name for one in profile.servers) or "none"
    raise NotFound(f"profile {profile.name!r} has no server {server!r}", param="server", hint=f"its servers: {there}")


def with_enabled(profile: Profile, changed: Enabled) -> Profile:
    """The profile with this in the place of its server of the same name."""
    servers = tuple(changed if one.server.name == changed.server.name else one for one in profile.servers)
    return msgspec.structs.replace(profile, servers=servers)


def _check(profile: Profile) -> None:
    profile_name(profile.name)
    seen: set[str] = set()
    for one in profile.servers:
        name = server_name(one.server.name)
        if name.lower() in seen:
            raise InvalidRequest(f"profile {profile.name!r} has two servers {name!r}", param="servers")
        seen.add(name.lower())


def _bare(server: Server) -> Server:
    return msgspec.structs.replace(server, config={}, source="")


def _as_run(profile: Profile) -> Profile:
    from dockyard.tools.catalog.settle import settled

    servers = []
    for one in profile.servers:
        try:
            servers.append(msgspec.structs.replace(one, server=settled(one.server)))
        except InvalidRequest as error:
            log.warning("profile %r: %s", profile.name, error.message)
            servers.append(one)
    return msgspec.structs.replace(profile, servers=tuple(servers))
