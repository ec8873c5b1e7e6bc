"""A line of a batch, answered as the endpoint itself would: the same dialects, the same pipeline, on the batch lane."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from dockyard.api._endpoint import Asked, Dialect, run_calls, usage_of
from dockyard.api._kept import kept
from dockyard.api._site import Site
from dockyard.api._wire import error_body
from dockyard.gateway.batch import Answered
from dockyard.gateway.batch.runner import Doors
from dockyard.types import Kind, Principal

if TYPE_CHECKING:
    from dockyard.api._responses_turn import Turn

KINDS: dict[str, Kind] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "complete",
    "/v1/embeddings": "embed",
    "/v1/responses": "chat",
}
"""The endpoints that batches may be for, and what they want of a model."""

Read = Callable[[bytes, Principal], Awaitable[Asked]]


def doors(site: Site) -> Doors:
    """What the runner of this site's batches goes through."""
    gateway = site.gateway
    assert gateway is not None
    readers = _readers(site)

    async def ask(endpoint: str, body: bytes, principal: Principal) -> Answered:
        asked = await readers[endpoint](body, principal)
        for call in asked.calls:
            call.lane, call.principal = "batch", principal
        async with await run_calls(gateway, asked.calls) as reply:
            batches = [batch async for batch in reply.chunks]
        answer = asked.whole(batches, usage_of(asked.calls), None)
        if endpoint == "/v1/responses":
            await _keep(site, asked)
        return Answered(asked.calls[0].request.id, answer)

    async def known(endpoint: str, model: str) -> None:
        await site.fleet.explain(model, KINDS[endpoint])

    return Doors(
        ask=ask,
        principal=site.keyring.named,
        known=known,
        told=error_body,
        models=lambda: site.fleet.models(),
        stopping=lambda: gateway.load.draining,
    )


def _readers(site: Site) -> dict[str, Read]:
    from dockyard.api.openai_chat import Chat
    from dockyard.api.openai_completions import Completions
    from dockyard.api.openai_embeddings import Embeddings
    from dockyard.errors import InvalidRequest

    chat = Chat()

    async def read_chat(body: bytes, principal: Principal) -> Asked:  # noqa: ARG001 - only some look things up
        asked = chat.read(body)
        if asked.own is not None and asked.own.profile:
            raise InvalidRequest("a batch runs no tools", param="dockyard.profile", hint="ask for them one by one")
        return asked

    def plain(dialect: Dialect) -> Read:
        async def read(body: bytes, principal: Principal) -> Asked:  # noqa: ARG001 - only some look things up
            return dialect.read(body)

        return read

    return {
        "/v1/chat/completions": read_chat,
        "/v1/completions": plain(Completions()),
        "/v1/embeddings": plain(Embeddings()),
        "/v1/responses": _responses(site),
    }


def _responses(site: Site) -> Read:
    from dockyard.api._decode import BodyReader
    from dockyard.api._responses_turn import turn
    from dockyard.api._responses_wire import ResponseRequest
    from dockyard.errors import InvalidRequest

    reader = BodyReader(ResponseRequest, passing=True)

    async def read(body: bytes, principal: Principal) -> Turn:
        asked, unknown = reader.read(body)
        if asked.background:
            raise InvalidRequest("a batch runs in the background by itself", param="background", hint="leave it out")
        found = await turn(await kept(site).opened(), asked, unknown, principal, site.settings.max_body)
        if found.hosted is not None:
            raise InvalidRequest("a batch runs no tools", param="tools", hint="ask /v1/responses itself")
        return found

    return read


async def _keep(site: Site, asked: Asked) -> None:
    from dockyard.api._responses_run import keep
    from dockyard.api._responses_turn import Turn

    assert isinstance(asked, Turn)
    await keep(site, asked, asked.ended)
