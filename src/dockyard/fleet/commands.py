"""What the schedule tells its driver to do."""

from __future__ import annotations

import msgspec

from dockyard.fleet import admission


class Grant(msgspec.Struct, frozen=True):
    """The ticket's model is loaded and one lease of the replica ``key`` is counted for the ticket.

    ``charged`` seconds of a slot are on its caller's account; None for a visitor, who has no slot.
    """

    ticket: int
    key: str
    charged: float | None = None


class Preempt(msgspec.Struct, frozen=True):
    """The batch lane's ticket has lost its slot: end what it does."""

    ticket: int


class Load(msgspec.Struct, frozen=True):
    """Memory is reserved: load the replica, then report ``loaded`` or ``gone``."""

    key: str


class Evict(msgspec.Struct, frozen=True):
    """Nobody uses the replica: end its process, then report ``gone``."""

    key: str


class Refuse(msgspec.Struct, frozen=True):
    """The ticket's model can't fit. ``key`` is the replica that was measured last."""

    ticket: int
    key: str
    refusal: admission.Refuse


Command = Grant | Preempt | Load | Evict | Refuse
