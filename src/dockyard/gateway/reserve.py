"""Is there room for this call? A bound on calls under way, and a token bucket for each principal.

Batch work has bounds of its own: it takes nobody's place here, and a server that stops does not wait for it.
"""

from __future__ import annotations

import time
from collections import OrderedDict

import msgspec

from dockyard.errors import Overloaded, RateLimited
from dockyard.gateway._parts import Answer, Inbound, Parts
from dockyard.types import Call

MOST_BUCKETS = 10_000


class Bucket(msgspec.Struct):
    """Holds up to a minute's worth of requests and refills evenly."""

    tokens: float
    filled: float

    def take(self, per_minute: int, now: float) -> float:
        """Take one; 0.0 if there was one, else the seconds until there is."""
        rate = per_minute / 60
        self.tokens = min(float(per_minute), self.tokens + (now - self.filled) * rate)
        self.filled = now
        if self.tokens >= 1:
            self.tokens -= 1
            return 0.0
        return (1 - self.tokens) / rate


def step(parts: Parts) -> Inbound:
    load, keyring, most = parts.load, parts.keyring, parts.settings.max_requests
    buckets: OrderedDict[str, Bucket] = OrderedDict()

    def leave() -> None:
        load.active -= 1

    async def reserve(call: Call) -> Answer | None:
        if load.draining:
            raise Overloaded("the server is stopping", retry_after=5)
        if call.lane == "batch":
            return None
        if load.active >= most:
            raise Overloaded(
                f"{load.active} requests are under way, which is this server's limit",
                hint="try again shortly, or raise `max_requests`",
                retry_after=1,
            )
        if call.principal is not None and (per_minute := keyring.limit(call.principal)):
            _take(buckets, call.principal.name, per_minute)
        load.active += 1
        call.cleanups.append(leave)
        return None

    return reserve


def _take(buckets: OrderedDict[str, Bucket], name: str, per_minute: int) -> None:
    now = time.monotonic()
    bucket = buckets.get(name)
    if bucket is None:
        bucket = buckets[name] = Bucket(float(per_minute), now)
        if len(buckets) > MOST_BUCKETS:
            buckets.popitem(last=False)
    buckets.move_to_end(name)
    if wait := bucket.take(per_minute, now):
        raise RateLimited(f"key {name!r} has used its {per_minute} requests of this minute", retry_after=wait)
