"""What the fleet would do with a request for a model now, and why: nothing is loaded to say it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

import msgspec

from dockyard.fleet import admission
from dockyard.fleet.machine import size
from dockyard.fleet.pool import Replica as Wanted
from dockyard.types import Kind, LoadedModel, Memory, Mode

if TYPE_CHECKING:
    from dockyard.fleet.crew import Crew
    from dockyard.fleet.names import Named
    from dockyard.fleet.prepare import Plan, Prepared

Outcome = Literal["ready", "queue", "load", "evict", "wait", "refuse"]


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """One replica as it is loaded or would be. ``limits`` says what bounds its processor time and memory."""

    engine: str
    why: str
    state: str
    context: int
    parallel: int
    threads: int
    predicted: Memory
    limits: str = ""


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Which engine serves a request, with what memory, and at whose cost. Sizes are bytes.

    ``refused`` holds each other engine and why it does not serve (empty: it could, and was not chosen). ``budget`` is
    for all models together, and ``budget_source`` says where it comes from; ``free`` is what is not charged.
    ``outcome``: "ready" (a slot is free), "queue" (loaded, all slots taken), "load", "evict" (the models in ``evicts``
    leave for it), "wait" (for models in use) or "refuse"; ``sentence`` says that in words. ``place`` and ``estimate``
    (seconds) are where a request would stand.
    """

    model: str
    reference: str
    digest: str
    kind: Kind
    mode: Mode
    adapter: str | None
    engine: str
    why: str
    refused: dict[str, str]
    replicas: tuple[Planned, ...]
    budget: int
    budget_source: str
    free: int
    resident: tuple[LoadedModel, ...]
    outcome: Outcome
    evicts: tuple[str, ...]
    place: int
    estimate: float
    sentence: str


def explained(
    name: str, kind: Kind, named: Named, prepared: Prepared, refused: dict[str, str], crew: Crew
) -> Explanation:
    """Put together what is known; decides by the same functions as the schedule."""
    loads = crew.schedule.loads
    first = prepared.plans[0]
    engines = {plan.load.engine for plan in prepared.plans}
    outcome, evicts, place, estimate, sentence = _outlook(prepared, crew)
    return Explanation(
        model=name,
        reference=named.files.reference,
        digest=named.files.digest,
        kind=kind,
        mode=prepared.mode,
        adapter=named.adapter.name if named.adapter is not None else None,
        engine=first.load.engine,
        why=first.why,
        refused={engine: why for engine, why in refused.items() if engine not in engines},
        replicas=tuple(_planned(plan, crew) for plan in prepared.plans),
        budget=loads.ledger.budget,
        budget_source=crew.machine.source,
        free=max(0, min(loads.ledger.budget, loads.ceiling) - loads.ledger.charged),
        resident=tuple(replica.row() for replica in crew.replicas.values() if replica.resident is not None),
        outcome=outcome,
        evicts=evicts,
        place=place,
        estimate=estimate,
        sentence=sentence,
    )


def _planned(plan: Plan, crew: Crew) -> Planned:
    replica = crew.replicas.get(plan.key)
    loaded = replica is not None and replica.resident is not None
    chosen = replica.plan if replica is not None and loaded else plan.load
    return Planned(
        engine=chosen.engine,
        why=plan.why,
        state=replica.state if replica is not None else "unloaded",
        context=chosen.context,
        parallel=chosen.parallel,
        threads=chosen.threads,
        predicted=chosen.predicted,
        limits=replica.limits.text if replica is not None and loaded else "",
    )


def _outlook(prepared: Prepared, crew: Crew) -> tuple[Outcome, tuple[str, ...], int, float, str]:
    schedule, machine = crew.schedule, crew.machine
    pool = schedule.pool(prepared.key)
    if pool.present:
        if len(pool.waiting) == 0 and pool.seat() is not None:
            return "ready", (), 0, 0.0, "it is in memory and a slot is free"
        outlook = schedule.outlook(pool)
        return "queue", (), outlook.place, outlook.estimate, f"it is in memory, and {outlook.reason}"
    predicted = prepared.plans[0].load.predicted
    wanted = Wanted(key=prepared.plans[0].key, need=predicted.total, floor=predicted.weights + predicted.kv_cache)
    crew.measure()
    decision = schedule.loads.preview(wanted, time.monotonic())
    about = schedule.loads.load_seconds
    match decision:
        case admission.Load():
            return "load", (), 1, about, f"it would be loaded at once: {size(wanted.need)} fit"
        case admission.Evict(keys):
            names = tuple(crew.replicas[key].reference for key in keys)
            return "evict", names, 1, about, f"it would be loaded after {', '.join(names)}, idle, had left"
        case admission.Wait():
            return "wait", (), decision.place, decision.estimate, decision.reason
        case admission.Refuse(need, limit, cause):
            source = {"budget": machine.source, "pinned": "pinned models", "machine": "other processes"}[cause]
            return "refuse", (), 0, 0.0, f"it needs {size(need)} and at most {size(limit)} can be had ({source})"
