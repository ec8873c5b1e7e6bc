"""Finds a model that is ready and starts the answer. The last inbound step: it always answers."""

from __future__ import annotations

from dockyard.gateway._parts import Answer, Inbound, Parts
from dockyard.types import Call


def step(parts: Parts) -> Inbound:
    fleet = parts.fleet

    async def route(call: Call) -> Answer | None:
        key = call.principal.name if call.principal is not None else ""
        lease = await fleet.lease(call.model, call.request.kind, lane=call.lane, key=key, keep_alive=call.keep_alive)
        call.cleanups.append(lease.release)
        call.reference = lease.model.reference
        return Answer(lease.generate(call.request))

    return route
