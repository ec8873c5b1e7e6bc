"""The short way of a request to a server: written to the wire, and its answer waited for, without the package's layers.

A transport may offer it beside its streams. The streams remain for the beginning of a session, for whatever a server
says of its own accord, and for requests with progress: those are rare, and the package knows their rules.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Protocol

import msgspec
from mcp_types import INTERNAL_ERROR

from dockyard.types import Json

EVENT_BYTES = 4 << 20
"""Of one server-sent event."""
UNUSABLE = "unusable"
_FIRST = 1_000_000_000
"""The package counts its own requests from one."""
_ROUNDS = 5


class Elsewhere(Exception):
    """This server is not for the short way: nothing was done yet, and the streams must do it."""


class Resume(Exception):
    """The answer broke off; from this event on the streams can fetch it, after so many seconds."""

    def __init__(self, event: str, seconds: float) -> None:
        super().__init__(event)
        self.event = event
        self.seconds = seconds


class Direct(Protocol):
    """One request and its answer: a JSON-RPC message with ``result`` or ``error``.

    Cancelling tells the server. A connection that ends is an error CONNECTION_CLOSED. Raises Elsewhere, Resume.
    """

    async def ask(self, method: str, params: Mapping[str, Json], headers: Mapping[str, str]) -> dict[str, Json]: ...


def numbers() -> Iterator[int]:
    """Ids of requests."""
    return itertools.count(_FIRST)


def encoded(message: Mapping[str, Json]) -> bytes:
    try:
        return msgspec.json.encode(message)
    except UnicodeEncodeError:  # strings that are no Unicode
        return json.dumps(message, separators=(",", ":")).encode()


def unusable(reason: str) -> dict[str, Json]:
    """What a call gets in the place of an answer that can't be used."""
    return {"error": {"code": INTERNAL_ERROR, "message": reason, "data": {"dockyard": UNUSABLE}}}


async def settle() -> None:
    """Let what a server said before its answer, and the streams have taken, get to where it goes."""
    for _ in range(_ROUNDS):
        await asyncio.sleep(0)


@cache
def traced() -> bool:
    """Whether this process records OpenTelemetry's traces: then the package, which writes them, does everything."""
    from opentelemetry import trace

    return type(trace.get_tracer_provider()).__name__ not in ("ProxyTracerProvider", "NoOpTracerProvider")
