"""Which of a route's backends answers, and with which guards, prompt, knowledge and parameters. Other names pass by.

The choice depends on the request's id only: all rounds of one answer go to the same backend, and many requests are
shared out as the weights say.
"""

from __future__ import annotations

import msgspec

from dockyard import guards
from dockyard.gateway._parts import Answer, Inbound, Parts
from dockyard.stack import PromptUse
from dockyard.types import Call


def step(parts: Parts) -> Inbound:
    routes = parts.stack.routes
    guarded = {
        name: guards.for_route(parts.settings, route.guards, f"routes.{name}.guards")
        for name, route in routes.items()
        if route.guards
    }

    async def backend(call: Call) -> Answer | None:
        route = routes.get(call.model)
        if route is None:
            return None
        chosen = route.choose(call.request.id)
        call.target = chosen.model
        call.guards = guarded.get(call.model)
        call.knowledge = route.indexes()
        call.prompt = _prompt(call.prompt, chosen.prompt)
        sampling = route.parameters.under(chosen.parameters.under(call.request.sampling))
        if sampling is not call.request.sampling:
            call.request = msgspec.structs.replace(call.request, sampling=sampling)
        return None

    return backend


def _prompt(asked: PromptUse | None, own: str) -> PromptUse | None:
    """A request may name another prompt, or fill in the variables of the route's own."""
    if asked is None:
        return PromptUse(name=own) if own else None
    return msgspec.structs.replace(asked, name=own) if own and not asked.name else asked
