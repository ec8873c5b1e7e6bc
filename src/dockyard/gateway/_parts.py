"""What the steps of the pipeline share, and the shapes they are written in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from dockyard.guards import Guard
from dockyard.settings import Settings
from dockyard.stack import EMPTY, Stack
from dockyard.types import Adapter, Call, Chunk, Kind, Lane, LoadedModel, Request

if TYPE_CHECKING:
    from dockyard.gateway.keyring import Keyring
    from dockyard.knowledge.bases import Base
    from dockyard.prompt.library import Library
    from dockyard.telemetry import Telemetry

Chunks = AsyncIterator[list[Chunk]]
"""An answer under way: a list for each scheduler step. Those that can be stopped early have ``aclose``."""


class Lease(Protocol):
    """A claim on a loaded model: as long as it is held, the model is not evicted."""

    @property
    def model(self) -> LoadedModel: ...

    @property
    def adapter(self) -> Adapter | None: ...

    def generate(self, request: Request) -> Any: ...

    def release(self) -> None: ...


class Fleet(Protocol):
    """Where ``route`` finds a model that is ready."""

    async def lease(
        self,
        name: str,
        kind: Kind,
        *,
        lane: Lane = ...,
        key: str = ...,
        keep_alive: float | None = ...,
        unpin: bool = ...,
    ) -> Any: ...


class Answer(msgspec.Struct):
    """What an inbound step returns to end the walk: where the chunks of the answer come from."""

    chunks: Chunks


Inbound = Callable[[Call], Awaitable[Answer | None]]
Outbound = Callable[[Call, Chunks], Chunks]


class Load(msgspec.Struct):
    """How busy the gateway is: calls under way, and whether it takes new ones."""

    active: int = 0
    draining: bool = False


class Parts(msgspec.Struct, kw_only=True):
    """Handed to each step when the gateway is built. ``digest`` names a model's content for the cache; ``stack`` says
    what routes there are, ``prompts`` opens the library of prompts, and ``knowledge`` bases by name.

    ``observers`` are shown each call before its first step, and may add taps.
    """

    settings: Settings
    fleet: Fleet
    keyring: Keyring
    telemetry: Telemetry
    guards: tuple[Guard, ...] = ()
    digest: Callable[[str], str] = str
    stack: Stack = EMPTY
    prompts: Callable[[], Library] | None = None
    knowledge: Callable[[Sequence[str]], list[Base]] | None = None
    load: Load = msgspec.field(default_factory=Load)
    observers: list[Callable[[Call], None]] = []


async def aclose(chunks: Chunks) -> None:
    """Stop an answer; nothing to do for an iterator that can't be stopped."""
    closer = getattr(chunks, "aclose", None)
    if closer is not None:
        await closer()
