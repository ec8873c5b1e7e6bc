"""A gateway over a scripted fleet, and calls for it."""

from __future__ import annotations

from typing import Any

from dockyard import guards
from dockyard.gateway import Gateway, Parts
from dockyard.gateway.keyring import Keyring
from dockyard.settings import Settings
from dockyard.telemetry import Telemetry
from dockyard.types import Call, Chunk, Message, Request, Sampling
from scripted import ScriptedFleet


def gateway(fleet: ScriptedFleet | None = None, **settings: Any) -> Gateway:
    found = Settings(**settings)
    return Gateway(
        Parts(
            settings=found,
            fleet=fleet or ScriptedFleet(),
            keyring=Keyring(found),
            telemetry=Telemetry(),
            guards=guards.chosen(found),
        )
    )


def call(text: str = "Hi", *, model: str = "scripted", credential: str | None = None, **sampling: Any) -> Call:
    request = Request(id="r", messages=(Message(role="user", content=text),), sampling=Sampling(**sampling))
    return Call(request=request, model=model, dialect="test", credential=credential)


async def answer(gate: Gateway, one: Call) -> list[Chunk]:
    async with await gate.run(one) as reply:
        return [chunk async for batch in reply.chunks for chunk in batch]


def text_of(chunks: list[Chunk], index: int = 0) -> str:
    return "".join(chunk.text for chunk in chunks if chunk.index == index)
