"""Finds a model that is ready and starts the answer. The last inbound step: it always answers."""

from __future__ import annotations

from dockyard.errors import InvalidRequest
from dockyard.gateway._parts import Answer, Inbound, Parts
from dockyard.types import Call


def step(parts: Parts) -> Inbound:
    fleet = parts.fleet

    async def route(call: Call) -> Answer | None:
        who = call.principal
        lease = await fleet.lease(
            call.target or call.model, call.request.kind, lane=call.lane, key=who.name if who is not None else "",
            keep_alive=call.keep_alive, unpin=who is None or "manage" in who.scopes,
        )  # fmt: skip
        call.cleanups.append(lease.release)
        loaded = lease.model
        call.reference = loaded.reference if lease.adapter is None else f"{loaded.reference}:{lease.adapter.name}"
        if call.context is not None and call.context > loaded.context:
            raise InvalidRequest(
                f"{loaded.reference} is loaded with a context of {loaded.context} tokens, not {call.context}",
                hint="load it with a larger `context` first (`POST /api/dockyard/load`), or ask for no more",
            )
        return Answer(lease.generate(call.request))

    return route
