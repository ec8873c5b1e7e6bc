"""What the fleet would do with a request for a model now, and why: nothing is loaded to say it."""

from __future__ import annotations

from typing import Literal

import msgspec

from dockyard.types import Kind, LoadedModel, Memory, Mode


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """One replica as it is loaded or would be. ``limits`` says what bounds its processor time and memory, if anything."""

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
    outcome: Literal["ready", "queue", "load", "evict", "wait", "refuse"]
    evicts: tuple[str, ...]
    place: int
    estimate: float
    sentence: str
