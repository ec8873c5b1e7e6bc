"""From a model's files to a plan: choose the engines of its replicas, and ask them what a load will take."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from dockyard import engines
from dockyard.artifact.defaults import merged
from dockyard.engines import Choice, Engine, LoadPlan
from dockyard.errors import DockyardError, InsufficientMemory, UnsupportedFormat
from dockyard.fleet import runner as runners
from dockyard.fleet.machine import size
from dockyard.fleet.pool import EVER
from dockyard.fleet.runner import Runner
from dockyard.hardware import Hardware
from dockyard.settings import Settings
from dockyard.types import Json, Kind, LoadOptions, Mode, ModelFacts, ModelFiles

if TYPE_CHECKING:
    from dockyard.artifact.store import Store

AMPLE = 1 << 60
MODES: tuple[Mode, ...] = ("generate", "embed", "rerank")


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One replica that could be loaded; ``why`` explains engine and plan, ``capacity`` is how many requests it takes.

    ``capacity`` None: as many as decode together once it is loaded. ``adapters``: digests of the adapters that the
    engine has to know when it loads; none for an engine that takes them with a request.
    """

    key: str
    load: LoadPlan
    serves: frozenset[Kind]
    why: str
    capacity: int | None
    adapters: frozenset[str] = frozenset()


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A model that could be loaded. ``key`` names the model, its mode where that matters, and its engines."""

    key: str
    files: ModelFiles
    mode: Mode
    options: LoadOptions
    plans: tuple[Plan, ...]
    keep_alive: float


def model_files(store: Store, name: str) -> ModelFiles:
    """The files of a stored model; blocks."""
    from dockyard.artifact.materialize import model_files as materialized

    return materialized(store, name)


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    """The doors through which the fleet reaches files, engines and processes; an embedder may put others there."""

    files: Callable[[Store, str], ModelFiles] = model_files
    choose: Callable[[ModelFiles, LoadOptions, Settings, Hardware, Kind | None], Choice] = engines.choose
    survey: Callable[[ModelFiles, Settings, Hardware, Kind | None], dict[str, str]] = engines.survey
    engine: Callable[[str], Engine] = engines.create
    runner: Callable[..., Runner] = runners.create


def mode_of(kind: Kind | None, facts: ModelFacts, options: LoadOptions | None = None) -> Mode:
    """How a model is loaded to serve requests of this kind; None: as the options say.

    For what every model can, such as tokens, one that writes nothing is loaded for the only thing that it does.
    """
    if kind == "embed" or kind == "rerank":
        return kind
    mode = options.mode if kind is None and options is not None else "generate"
    if mode == "generate" and kind not in ("chat", "complete"):
        able = set(facts.capabilities)
        if able and not able & {"chat", "complete"}:
            return "rerank" if "rerank" in able else "embed" if "embed" in able else mode
    return mode


def prepare(
    files: ModelFiles, options: LoadOptions, settings: Settings, hardware: Hardware, kind: Kind | None, parts: Parts
) -> Prepared:
    """Choose and plan; ``hardware.memory_available`` is what the model may take at best. May read headers.

    Where the context was left to the engine and a smaller one had to be chosen to fit, ``why`` says so.
    """
    mode = mode_of(kind, files.facts, options)
    if options.defaults is not None:
        files = msgspec.structs.replace(files, defaults=merged(files.defaults, options.defaults))
    bounded = _bounded(hardware, options)
    names = options.replicas if mode == options.mode and options.replicas else ("",)
    share = msgspec.structs.replace(bounded, memory_available=bounded.memory_available // len(names))
    chosen: list[tuple[Choice, LoadOptions]] = []
    for name in names:
        own = msgspec.structs.replace(options, mode=mode, engine=name or options.engine, replicas=())
        # Copies of one engine work at the same time, so they divide the cores; of different engines one works.
        if (copies := names.count(name)) > 1 and not (options.threads or settings.threads):
            own = msgspec.structs.replace(own, threads=max(1, share.cores // copies))
        choice = _choose(files, own, settings, share, kind, parts)
        flags = _flags_of(choice.engine.name, options.flags)
        chosen.append((choice, msgspec.structs.replace(own, flags=flags)))
    planned = [_planned(choice, files, own, settings, share) for choice, own in chosen]
    key = f"{files.digest}/{'+'.join(plan.load.engine for plan in planned)}"
    key += _suffix(chosen[0], planned[0].load, files, settings, share)
    many = len(planned) > 1
    keep = options.keep_alive
    if keep is None:  # never unloaded for being idle is not pinned: whoever needs the memory gets it
        keep = settings.idle_seconds if settings.idle_seconds >= 0 else math.inf
    return Prepared(
        key=key,
        files=files,
        mode=mode,
        options=options,
        plans=tuple(
            msgspec.structs.replace(plan, key=f"{key}#{number}" if many else key)
            for number, plan in enumerate(planned, 1)
        ),
        keep_alive=keep,
    )


def _flags_of(engine: str, flags: dict[str, Json]) -> dict[str, Json]:
    """What is for one engine: ``openvino.precision`` means only that one, ``precision`` any."""
    return {
        name.removeprefix(f"{engine}."): value
        for name, value in flags.items()
        if "." not in name or name.startswith(f"{engine}.")
    }


def _bounded(hardware: Hardware, options: LoadOptions) -> Hardware:
    """The machine as a model with limits of its own sees it."""
    cores = max(1, min(hardware.cores, int(options.cpus))) if options.cpus else hardware.cores
    room = min(hardware.memory_available, options.memory) if options.memory else hardware.memory_available
    return msgspec.structs.replace(hardware, cores=cores, memory_available=room)


def _choose(
    files: ModelFiles, options: LoadOptions, settings: Settings, hardware: Hardware, kind: Kind | None, parts: Parts
) -> Choice:
    try:
        return parts.choose(files, options, settings, hardware, kind)
    except UnsupportedFormat:
        # An engine that was chosen to generate need not compute embeddings too.
        if not options.engine or mode_of(kind, files.facts) == "generate":
            raise
        return parts.choose(files, msgspec.structs.replace(options, engine=None), settings, hardware, kind)


def _planned(choice: Choice, files: ModelFiles, options: LoadOptions, settings: Settings, hardware: Hardware) -> Plan:
    plan = choice.engine.plan(files, options, settings, hardware)
    why = choice.why
    ample = choice.engine.plan(files, options, settings, msgspec.structs.replace(hardware, memory_available=AMPLE))
    if (plan.context, plan.parallel) != (ample.context, ample.parallel):
        why += (
            f"; cut to a context of {plan.context} tokens and {plan.parallel} at once (of {ample.context} and "
            f"{ample.parallel}) to fit in {size(hardware.memory_available)}"
        )
    if plan.caveat:
        why += f"; {plan.caveat}"
    # An inline engine does no work of its own: it is bounded only where somebody asked for that.
    capacity = None if choice.engine.isolated else options.parallel or settings.parallel or EVER
    if options.memory and plan.predicted.total > options.memory:
        raise InsufficientMemory(
            f"{files.reference} needs {size(plan.predicted.total)}, and its own limit is {size(options.memory)}",
            param="memory",
            hint="raise the model's `memory`, or give it a smaller context or fewer requests at once",
        )
    known = frozenset[str]()
    if files.offers:
        bare = msgspec.structs.replace(files, offers=())
        if choice.engine.plan(bare, options, settings, hardware) != plan:
            known = frozenset(adapter.digest for adapter in files.offers)
    return Plan(key="", load=plan, serves=choice.engine.serves, why=why, capacity=capacity, adapters=known)


def _suffix(
    chosen: tuple[Choice, LoadOptions], plan: LoadPlan, files: ModelFiles, settings: Settings, hardware: Hardware
) -> str:
    """The mode, for an engine that loads a model otherwise for it; modes whose plans are equal share their replicas."""
    choice, options = chosen
    for mode in MODES[: MODES.index(options.mode)]:
        try:
            other = choice.engine.plan(files, msgspec.structs.replace(options, mode=mode), settings, hardware)
        except DockyardError:
            continue
        if other == plan:
            return _mode_suffix(mode)
    return _mode_suffix(options.mode)


def _mode_suffix(mode: Mode) -> str:
    return "" if mode == "generate" else f"/{mode}"
