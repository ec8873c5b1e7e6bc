"""A chat whose model uses the tools of a profile, all rounds of it as one answer. Nobody can be asked for approval."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import msgspec

from dockyard.api._site import Site
from dockyard.api._toolbox import toolbox
from dockyard.errors import Forbidden, InvalidRequest
from dockyard.gateway.toolloop import Bounds, Loop, Offer, Offered, Said
from dockyard.tools.naming import outside
from dockyard.types import Call, Chunk, Request, Usage

Run = Callable[[], Awaitable[Any]]


class Looped:
    """The rounds of one answer; to be used as a ``gateway.Reply`` is."""

    def __init__(self, chunks: AsyncGenerator[list[Chunk], None]) -> None:
        self.chunks = chunks

    async def __aenter__(self) -> Looped:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.chunks.aclose()


async def looped(site: Site, run: Run, calls: list[Call], profile: str, code: bool) -> Looped:
    """The answer to ``calls``, of which there is one: it is replaced by each round's, which ``run`` runs.

    Raises InvalidRequest, NotFound for an unknown profile, and what the toolbox raises.
    """
    (call,) = calls
    if call.request.sampling.n != 1:
        raise InvalidRequest("with tools that the server runs there is one choice", param="n")
    principal = call.principal = await site.keyring.authenticate(call.credential)
    if "infer" not in principal.scopes:
        raise Forbidden(f"key {principal.name!r} may not infer", hint="use a key with the scope `infer`")
    box = toolbox(site)
    await box.start()
    session = box.session(principal, profile, client="chat", handle=_beginning(call.request))
    tools = await box.tools(session)
    functions = outside([(tool.server, tool.name) for tool in tools], prefix=True)
    offered = [
        Offered(label=tool.server, name=tool.name, function=function, tool=tool)
        for tool, function in zip(tools, functions, strict=True)
    ]
    taken = [tool["function"]["name"] for tool in call.request.extra.get("tools") or ()]
    searched = box.profile(session).search and not code
    coder = None
    if code:
        from dockyard.gateway._toolloop_code import Code

        coder = Code(site.settings)
    offer = Offer(() if searched else offered, offered if searched else (), taken=taken, code=coder)

    async def ask(request: Request) -> AsyncGenerator[list[Chunk], None]:
        calls[0] = msgspec.structs.replace(
            call, request=request, steps=[], cleanups=[], taps=[], usage=Usage(), finish=None
        )
        async with await run() as reply:
            async for batch in reply.chunks:
                yield batch

    loop = Loop(box, session, offer, call.request, ask, Bounds.of(site.settings))

    async def chunks() -> AsyncGenerator[list[Chunk], None]:
        async with aclosing(loop.run()) as events:
            async for event in events:
                if isinstance(event, Said):
                    yield event.chunks
        calls[0].usage = loop.usage

    return Looped(chunks())


def _beginning(request: Request) -> str:
    """Tells one conversation from others: each of its requests sends again how it began."""
    for message in request.messages or ():
        if message.role == "user":
            return hashlib.sha256(msgspec.json.encode(message.content)).hexdigest()
    return ""
