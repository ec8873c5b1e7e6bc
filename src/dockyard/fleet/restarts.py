"""When a model that failed may be tried again: exponential back-off, then a circuit breaker. Pure."""

from __future__ import annotations

import msgspec


class RestartPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The first failure costs ``base`` seconds of waiting, each further one twice as much, up to ``cap``.

    After ``breaker`` failures in a row the circuit is open for ``cooldown`` seconds, in which the model is refused at
    once; then one try is let through, and if that fails too the circuit opens again for twice as long.
    """

    base: float = 0.25
    cap: float = 30.0
    breaker: int = 5
    cooldown: float = 30.0
    longest: float = 600.0


class Restarts:
    """One model's failures in a row. An answer that got under way ends the row."""

    def __init__(self, policy: RestartPolicy) -> None:
        self.policy = policy
        self.failures = 0
        self.last = ""
        self.until = 0.0

    def progressed(self) -> None:
        self.failures = 0

    def failed(self, now: float, why: str) -> float:
        """Count a crash or a failed load; returns the seconds until the next try."""
        self.failures += 1
        self.last = why
        beyond = self.failures - self.policy.breaker
        if beyond >= 0:
            delay = min(self.policy.longest, self.policy.cooldown * 2.0 ** min(beyond, 32))
        else:
            delay = min(self.policy.cap, self.policy.base * 2.0 ** (self.failures - 1))
        self.until = now + delay
        return delay

    def open_for(self, now: float) -> float:
        """Seconds for which the circuit stays open; 0 while it is closed, or lets one try through."""
        return max(0.0, self.until - now) if self.failures >= self.policy.breaker else 0.0
