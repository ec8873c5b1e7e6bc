"""Names to files, remembered until the store's index changes."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from dockyard import engines
from dockyard.errors import ModelNotFound
from dockyard.fleet.prepare import Parts
from dockyard.types import Adapter, ModelFiles

if TYPE_CHECKING:
    from dockyard.artifact.store import Store


class Named(msgspec.Struct, frozen=True):
    """What a name stands for: a model, and the adapter that its requests use, if it names one."""

    files: ModelFiles
    adapter: Adapter | None = None


class Names:
    """Answers from memory as long as the store has not changed. ``find`` may be called from the event loop only."""

    def __init__(self, store: Store | None, parts: Parts) -> None:
        self._store = store
        self._parts = parts
        self._index = str(store.root / "index.json") if store is not None else ""
        self._known: dict[str, Named] = {}
        self._seen: object = None

    def version(self) -> object:
        """Changes whenever a name may have come to mean something else; microseconds."""
        try:
            found = os.stat(self._index)  # noqa: PTH116 - pathlib doubles the cost of the hot path
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_ino, found.st_size)

    def forget(self) -> None:
        self._known.clear()

    async def find(self, name: str) -> Named:
        """Raises ModelNotFound with near names and what to do."""
        if (builtin := engines.builtin(name)) is not None:
            return Named(builtin)
        version = self.version()
        if version != self._seen:
            self._known.clear()
            self._seen = version
        found = self._known.get(name)
        if found is None:
            found = await asyncio.to_thread(partial(self._read, name))
            if self._seen == version:
                self._known[name] = found
        return found

    def _read(self, name: str) -> Named:
        if self._store is None:
            raise ModelNotFound(f"model {name!r} is not here: this fleet has no store", param="model")
        try:
            return Named(self._parts.files(self._store, name))
        except ModelNotFound as error:
            hint = error.hint or ""
            if "pull" not in hint:
                hint = f"{hint}; `dockyard pull {name}` fetches it".lstrip("; ")
            raise ModelNotFound(error.message, hint=hint, param="model") from error
