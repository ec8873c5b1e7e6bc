"""From a name to a plan: find the model's files, choose its engine, and ask that what a load will take."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from dockyard import engines
from dockyard.engines import Choice, Engine, LoadPlan
from dockyard.errors import ModelNotFound
from dockyard.fleet import runner as runners
from dockyard.fleet.machine import size
from dockyard.fleet.runner import Runner
from dockyard.hardware import Hardware
from dockyard.settings import Settings
from dockyard.types import Kind, LoadOptions, ModelFiles

if TYPE_CHECKING:
    from dockyard.artifact.store import Store

AMPLE = 1 << 60


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A model that could be loaded. ``key`` names the model and its engine; ``why`` explains engine and plan."""

    key: str
    files: ModelFiles
    serves: frozenset[Kind]
    plan: LoadPlan
    why: str
    keep_alive: float


def model_files(store: Store, name: str) -> ModelFiles:
    """The files of a stored model; blocks."""
    from dockyard.artifact.materialize import model_files as materialized

    return materialized(store, name)


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """The doors through which the fleet reaches files, engines and processes; an embedder may put others there."""

    files: Callable[[Store, str], ModelFiles] = model_files
    choose: Callable[[ModelFiles, LoadOptions, Settings, Hardware, Kind | None], Choice] = engines.choose
    engine: Callable[[str], Engine] = engines.create
    runner: Callable[[Engine, ModelFiles, LoadPlan, Settings, Path], Runner] = runners.create


def prepare(
    files: ModelFiles, options: LoadOptions, settings: Settings, hardware: Hardware, kind: Kind | None, parts: Parts
) -> Prepared:
    """Choose and plan; ``hardware.memory_available`` is what the model may take at best. May read headers.

    Where the context was left to the engine and a smaller one had to be chosen to fit, ``why`` says so.
    """
    choice = parts.choose(files, options, settings, hardware, kind)
    plan = choice.engine.plan(files, options, settings, hardware)
    why = choice.why
    ample = choice.engine.plan(files, options, settings, msgspec.structs.replace(hardware, memory_available=AMPLE))
    if (plan.context, plan.parallel) != (ample.context, ample.parallel):
        why += (
            f"; cut to a context of {plan.context} tokens and {plan.parallel} at once (of {ample.context} and "
            f"{ample.parallel}) to fit in {size(hardware.memory_available)}"
        )
    keep = options.keep_alive if options.keep_alive is not None else settings.idle_seconds
    return Prepared(
        key=f"{files.digest}/{plan.engine}",
        files=files,
        serves=choice.engine.serves,
        plan=plan,
        why=why,
        keep_alive=keep,
    )


class Names:
    """Names to files, remembered until the store's index changes."""

    def __init__(self, store: Store | None, parts: Parts) -> None:
        self._store = store
        self._parts = parts
        self._index = str(store.root / "index.json") if store is not None else ""
        self._known: dict[str, ModelFiles] = {}
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

    async def files(self, name: str) -> ModelFiles:
        """Raises ModelNotFound with near names and what to do."""
        if (builtin := engines.builtin(name)) is not None:
            return builtin
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

    def _read(self, name: str) -> ModelFiles:
        if self._store is None:
            raise ModelNotFound(f"model {name!r} is not here: this fleet has no store", param="model")
        try:
            return self._parts.files(self._store, name)
        except ModelNotFound as error:
            hint = error.hint or ""
            if "pull" not in hint:
                hint = f"{hint}; `dockyard pull {name}` fetches it".lstrip("; ")
            raise ModelNotFound(error.message, hint=hint, param="model") from error
