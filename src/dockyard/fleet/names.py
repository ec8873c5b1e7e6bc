"""Names to files, remembered until the store's index changes.

A name is, in this order: an engine's own (``echo``), an alias of the settings or a name of the stack, a model of the
store, an adapter of the store (then its base is loaded), or ``base:adapter``.
"""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from dockyard import engines
from dockyard import stack as stacks
from dockyard.errors import InvalidReference, InvalidRequest, ModelNotFound
from dockyard.fleet import adapters
from dockyard.fleet.prepare import Parts
from dockyard.settings import Settings
from dockyard.types import Adapter, ModelFiles

if TYPE_CHECKING:
    from dockyard.artifact.store import Store


MOST_ALIASES = 8
"""How often an alias may lead to another."""


class Named(msgspec.Struct, frozen=True):
    """What a name stands for: a model, and the adapter that its requests use, if it names one."""

    files: ModelFiles
    adapter: Adapter | None = None


class Names:
    """Answers from memory as long as the store has not changed. ``find`` may be called from the event loop only."""

    def __init__(self, store: Store | None, parts: Parts, settings: Settings) -> None:
        self._store = store
        self._parts = parts
        self._index = str(store.root / "index.json") if store is not None else ""
        self._known: dict[str, Named] = {}
        self._seen: object = None
        self._adapters: tuple[object, list[adapters.Stored]] = (object(), [])
        self._upstreams = settings.upstreams
        self._aliases = dict(_alias(text) for text in settings.aliases) | stacks.of(settings).aliases()

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
        found = self._recall(name)
        if found is None:
            version = self._seen
            found = await asyncio.to_thread(partial(self._read, name))
            if self._seen == version:
                self._known[name] = found
        return found

    def identity(self, name: str) -> str:
        """What an answer by this name depends on: digests of model and adapter. May block. Raises as ``find`` does."""
        found = self._recall(name)
        if found is None:
            found = self._known[name] = self._read(name)
        return found.files.digest + (f"+{found.adapter.digest}" if found.adapter is not None else "")

    def _recall(self, name: str) -> Named | None:
        if (builtin := engines.builtin(name, self._upstreams)) is not None:
            return Named(builtin)
        version = self.version()
        if version != self._seen:
            self._known.clear()
            self._seen = version
        return self._known.get(name)

    def _read(self, name: str, depth: int = 0) -> Named:
        if (target := self._aliases.get(name)) is not None and depth < MOST_ALIASES:
            model, _, adapter = target.partition("+")
            base = self._read(model, depth + 1)
            return self._with(base.files, adapter) if adapter else base
        if depth and (builtin := engines.builtin(name, self._upstreams)) is not None:
            return Named(builtin)
        if self._store is None:
            raise ModelNotFound(f"model {name!r} is not here: this fleet has no store", param="model")
        try:
            files = self._parts.files(self._store, name)
        except (ModelNotFound, InvalidReference) as error:
            for model, adapter in adapters.split(name):
                try:
                    base = self._read(model, depth + 1)
                except (ModelNotFound, InvalidReference):
                    continue
                return self._with(base.files, adapter)
            if isinstance(error, InvalidReference):
                raise
            raise self._unknown(name, error) from error
        own = next((each for each in self._stored() if each.digest == files.digest), None)
        if own is None:
            return Named(self._offering(files))
        base_files = self._parts.files(self._store, adapters.base_of(self._store, own))
        return Named(self._offering(base_files), own.offer())

    def _with(self, base: ModelFiles, adapter: str) -> Named:
        if self._store is None or not base.weights:
            raise ModelNotFound(f"{base.reference} has no adapter {adapter!r}", param="model")
        name, _, scale = adapter.partition("*")
        try:
            factor = float(scale or 1.0)
        except ValueError:
            raise InvalidRequest(f"{adapter!r}: {scale!r} is not a number", param="model") from None
        found = adapters.chosen(self._store, self._stored(), base, name)
        offers = base.offers
        if all(offer.digest != found.digest for offer in offers):
            offers = (*offers, found.offer())
        return Named(msgspec.structs.replace(base, offers=offers), found.offer(factor))

    def _offering(self, files: ModelFiles) -> ModelFiles:
        """A model with the adapters that its requests may choose."""
        if self._store is None or not self._stored():
            return files
        fitting = adapters.belong(self._store, self._stored(), files)
        return msgspec.structs.replace(files, offers=tuple(adapter.offer() for adapter in fitting))

    def _stored(self) -> list[adapters.Stored]:
        version = self.version()
        if self._store is not None and self._adapters[0] != version:
            self._adapters = (version, adapters.stored(self._store))
        return self._adapters[1]

    def _unknown(self, name: str, error: ModelNotFound) -> ModelNotFound:
        hint = error.hint or ""
        if "pull" not in hint:
            hint = f"{hint} `dockyard pull {name}` fetches it".lstrip()
        return ModelNotFound(error.message, hint=hint, param="model")


def _alias(text: str) -> tuple[str, str]:
    name, equals, target = text.partition("=")
    if not (name and equals and target):
        raise InvalidRequest(
            f"alias {text!r} is not NAME=MODEL or NAME=MODEL+ADAPTER", param="aliases", hint="e.g. gpt-4o=smollm2"
        )
    return name, target
