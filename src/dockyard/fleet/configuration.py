"""How each model is to be loaded when nobody says so at the time: kept in ``<home>/models.json``, for every start.

An entry belongs to a model in one mode, by its digest and by its name, so that it stays when the name moves to a newer
model. What a later call sets is merged into it: a ``keep_alive`` leaves the context size as it was.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock

from dockyard.errors import SettingsError
from dockyard.types import LoadOptions, Mode


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One model's options, under the digest and the name that it had when they were set."""

    digest: str
    reference: str
    options: LoadOptions


class Configuration:
    """The entries of one home. Every call reads the file if it has changed: other processes write it too."""

    def __init__(self, home: Path) -> None:
        self._path = home / "models.json"
        self._seen: object = None
        self._entries: tuple[Entry, ...] = ()

    def get(self, digest: str, reference: str, mode: Mode = "generate") -> LoadOptions | None:
        """The options of a model; None where none were set. Raises SettingsError if the file can't be read."""
        entry = self._find(digest, reference, mode)
        return entry.options if entry is not None else None

    def all(self) -> list[Entry]:
        """Every entry, in the order of their making."""
        self._read()
        return list(self._entries)

    def set(self, digest: str, reference: str, options: LoadOptions) -> LoadOptions:
        """Merge ``options`` into what is kept for their mode and keep the result, which is returned."""
        with self._lock():
            entry = self._find(digest, reference, options.mode)
            merged = merge(entry.options, options) if entry is not None else options
            kept = [other for other in self._entries if other is not entry]
            self._write((*kept, Entry(digest=digest, reference=reference, options=merged)))
        return merged

    def clear(self, digest: str, reference: str, mode: Mode = "generate") -> bool:
        """Forget what was set; False where nothing was."""
        with self._lock():
            entry = self._find(digest, reference, mode)
            if entry is None:
                return False
            self._write(tuple(other for other in self._entries if other is not entry))
        return True

    def _find(self, digest: str, reference: str, mode: Mode) -> Entry | None:
        self._read()
        entries = [entry for entry in self._entries if entry.options.mode == mode]
        named = next((entry for entry in entries if entry.reference == reference), None)
        return next((entry for entry in entries if entry.digest == digest), named)

    def _read(self) -> None:
        try:
            state = self._path.stat()
        except OSError:
            self._seen, self._entries = None, ()
            return
        seen = (state.st_mtime_ns, state.st_ino, state.st_size)
        if seen == self._seen:
            return
        try:
            self._entries = msgspec.json.decode(self._path.read_bytes(), type=tuple[Entry, ...])
        except (OSError, msgspec.DecodeError) as error:
            raise SettingsError(
                f"{self._path}: {error}", hint="mend the file, or delete it: models are then loaded as by default"
            ) from error
        self._seen = seen

    def _write(self, entries: tuple[Entry, ...]) -> None:
        part = self._path.with_suffix(".part")
        part.write_bytes(msgspec.json.format(msgspec.json.encode(entries), indent=2))
        part.replace(self._path)
        self._seen = None

    def _lock(self) -> FileLock:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(str(self._path.with_suffix(".lock")))


def merge(under: LoadOptions, over: LoadOptions) -> LoadOptions:
    """Both; where both say something, ``over`` holds. Flags are merged one by one; a flag set to None is taken out."""
    defaults = LoadOptions()
    said: dict[str, Any] = {
        name: getattr(over, name)
        for name in LoadOptions.__struct_fields__
        if getattr(over, name) != getattr(defaults, name)
    }
    flags = {**under.flags, **over.flags}
    said["flags"] = {name: value for name, value in flags.items() if value is not None}
    return msgspec.structs.replace(under, **said)
