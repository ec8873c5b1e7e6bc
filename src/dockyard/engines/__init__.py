"""How a model's files become something that generates: the protocol of an engine, and the chooser.

An engine is one class in one file of this package (or behind an entry point of group ``dockyard.engines``). A fresh
instance is cheap and imports nothing heavy: it can say what it serves, refuse files and plan a load. What happens after
depends on ``isolated``:

- isolated engines are blocking and live in a worker process of their own (``dockyard.engines.worker``):
  ``load`` once, ``generate`` from several threads at once, ``close`` at the end;
- inline engines are async and live in the gateway's process; they must never block it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Protocol, cast, runtime_checkable

import msgspec

from dockyard import plugins
from dockyard.errors import EngineUnavailable, InvalidRequest, UnsupportedFormat
from dockyard.hardware import Hardware
from dockyard.settings import Settings, Upstream
from dockyard.types import Chunk, Format, Json, Kind, LoadOptions, Memory, ModelFacts, ModelFiles, Request

Emit = Callable[[Chunk | None], bool]
"""Takes a chunk on its way to the caller; True says: stop generating this request now. None only asks."""


class LoadPlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a model will be loaded, decided before anything is touched; it crosses to the worker process.

    ``context`` is the window of one request in tokens, ``parallel`` the requests that decode together, ``predicted``
    the memory it should take. ``caveat`` says where this engine answers otherwise than the model's own library would.
    ``details`` is private to the engine.
    """

    engine: str
    context: int
    parallel: int
    threads: int = 0
    predicted: Memory = Memory()
    caveat: str = ""
    details: dict[str, Json] = {}


@runtime_checkable
class ChunkStream(Protocol):
    """An answer under way: lists of chunks, one list for each scheduler step. ``aclose`` cancels at once."""

    def __aiter__(self) -> AsyncIterator[list[Chunk]]: ...

    async def __anext__(self) -> list[Chunk]: ...

    async def aclose(self) -> None: ...


class Engine(Protocol):
    """What every engine can say before it is loaded. Constructed without arguments."""

    name: str
    serves: frozenset[Kind]
    formats: frozenset[Format]
    isolated: bool
    extra: str
    """The optional dependency that this engine needs (``pip install 'dockyard[EXTRA]'``); empty: none."""

    def refuses(self, files: ModelFiles, hardware: Hardware) -> str | None:
        """Why these files can't be served here, or None. Cheap: no heavy import, no weights read.

        Where only the extra is missing the reason says "not installed", and the caller is told what to install.
        """
        ...

    def plan(self, files: ModelFiles, options: LoadOptions, settings: Settings, hardware: Hardware) -> LoadPlan:
        """Context, parallelism, threads and predicted memory. Pure; raises InvalidRequest on options it can't honour.

        Whether the prediction fits is the fleet's to decide; but what is left to choose is chosen to fit
        ``hardware.memory_available``.
        """
        ...


class IsolatedEngine(Engine, Protocol):
    """An engine whose code is blocking, native or heavy: it runs in a worker process of its own.

    It may have a method ``ahead()``, which imports what ``load`` will need: a worker that is started before anybody
    knows its model calls it while it waits. It may have ``knobs(files, hardware)``, a
    ``dict[str, dict[str, LoadOptions]]``: what a measurement should vary to find the best way to load the files, by
    knob and by what to call a value.
    """

    def load(self, files: ModelFiles, plan: LoadPlan) -> LoadPlan:
        """Load the model, ready to generate; blocks. Returns the plan as it came out. Raises LoadFailed."""
        ...

    def generate(self, request: Request, emit: Emit) -> None:
        """Generate; blocks until the answer is complete. Called from several threads at once.

        Chunks go to ``emit``; each choice's last has ``finish`` and the request's last has ``usage``. Once ``emit``
        returned True nothing more is emitted and the slot is free within one scheduler step.
        Raises a DockyardError on a request it can't serve.
        """
        ...

    def close(self) -> None:
        """Free everything; after this the instance is dead. Called once, also after a failed ``load``."""
        ...


class InlineEngine(Engine, Protocol):
    """An engine that does no work of its own (echo, another server's HTTP API): it runs in the gateway's event loop."""

    async def start(self, files: ModelFiles, plan: LoadPlan) -> LoadPlan:
        """Make ready; returns the plan as it came out."""
        ...

    def generate(self, request: Request) -> ChunkStream:
        """The answer as lists of chunks. ``aclose`` of the iterator cancels."""
        ...

    async def close(self) -> None:
        """Free everything; the instance is dead after this."""
        ...


class Choice(msgspec.Struct, frozen=True):
    """The engine that will serve, a fresh instance, and the sentence that says why it."""

    engine: Engine
    why: str


def builtin(name: str, upstreams: Mapping[str, Upstream] = MappingProxyType({})) -> ModelFiles | None:
    """The files (none) of a model that an engine brings along: ``echo``, or ``UPSTREAM/model`` of another server.

    None where it is no such name. Names of upstreams have no dots, so that no registry's host is one.
    """
    digest, context = f"builtin:{name}", 8192
    if name not in ("echo", "echo-worker"):
        server, _, model = name.partition("/")
        upstream = upstreams.get(server)
        if upstream is None or not model or (upstream.models and model not in upstream.models):
            return None
        digest, context = f"upstream:{name}", upstream.context
    facts = ModelFacts(format="unknown", name=name)
    return ModelFiles(
        reference=name, digest=digest, directory="", format="unknown", weights=(), facts=facts, context=context
    )


def create(name: str) -> Engine:
    """A fresh instance of the engine called ``name``. Raises InvalidRequest, or EngineUnavailable if it is broken."""
    plugin = plugins.named("engines", name)
    if plugin is None:
        known = ", ".join(plugins.find("engines"))
        raise InvalidRequest(f"there is no engine {name!r}", param="engine", hint=f"engines: {known}")
    if plugin.error is not None:
        raise EngineUnavailable(f"engine {name!r} is broken: {plugin.error}", hint="`dockyard plugins` shows details")
    return cast("type[Engine]", plugin.load())()


def choose(
    files: ModelFiles, options: LoadOptions, settings: Settings, hardware: Hardware, kind: Kind | None = None
) -> Choice:
    """The engine for these files: the one named in ``options``, else in settings, else the first that can.

    Raises UnsupportedFormat with each engine's reason if none can, EngineUnavailable if only an extra is missing.
    """
    if files.digest.startswith("upstream:"):
        return Choice(create("upstream"), f"{files.reference} is served by another server")
    if not files.weights:
        return Choice(create(files.reference), f"{files.reference} is built in")
    if options.engine:
        engine = create(options.engine)
        if reason := _refusal(engine, files, hardware, kind):
            raise UnsupportedFormat(f"engine {engine.name!r} can't serve {files.reference}: {reason}", param="engine")
        return Choice(engine, f"{engine.name} was asked for")
    return _first(files, settings, hardware, kind)


def survey(files: ModelFiles, settings: Settings, hardware: Hardware, kind: Kind | None = None) -> dict[str, str]:
    """For each engine, in the order in which the chooser asks them, why it can't serve these files; "" if it could."""
    found: dict[str, str] = {}
    for name in _in_turn(settings):
        try:
            found[name] = _refusal(create(name), files, hardware, kind) or ""
        except EngineUnavailable as error:
            found[name] = error.message
    return found


def _in_turn(settings: Settings) -> Iterator[str]:
    """The engines' names: the preferred one, Dockyard's own, and only where those are not enough all others."""
    if settings.engine and plugins.named("engines", settings.engine) is not None:
        yield settings.engine
    own = plugins.builtin("engines")
    yield from (name for name in own if name != settings.engine)
    yield from (name for name in plugins.find("engines") if name not in own and name != settings.engine)


def _first(files: ModelFiles, settings: Settings, hardware: Hardware, kind: Kind | None) -> Choice:
    reasons: list[str] = []
    installs: list[str] = []
    for name in _in_turn(settings):
        try:
            engine = create(name)
        except EngineUnavailable as error:
            reasons.append(error.message)
            continue
        reason = _refusal(engine, files, hardware, kind)
        if reason is None:
            preferred = " and preferred by settings" if name == settings.engine else ""
            return Choice(engine, f"{name} serves {files.format}{preferred}")
        reasons.append(f"{name}: {reason}")
        if engine.extra and files.format in engine.formats and "not installed" in reason:
            installs.append(f"pip install 'dockyard[{engine.extra}]'")
    text = f"no engine can serve {files.reference} ({files.format}): {'; '.join(reasons)}"
    if installs:
        raise EngineUnavailable(text, hint=" or ".join(installs))
    raise UnsupportedFormat(text, hint="`dockyard plugins` lists the engines and what they read")


def _refusal(engine: Engine, files: ModelFiles, hardware: Hardware, kind: Kind | None) -> str | None:
    if files.format not in engine.formats:
        readable = ", ".join(sorted(engine.formats)) or "no files"
        return f"it reads {readable}, not {files.format}"
    if kind is not None and kind not in engine.serves:
        return f"it does not serve {kind!r}"
    return engine.refuses(files, hardware)
