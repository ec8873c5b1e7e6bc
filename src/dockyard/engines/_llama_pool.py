"""Keeps the requests of one model from running its shared KV cache full, which would end all of them at once.

llama.cpp tells how long a prompt is before it reads it, and each token as it comes, so what is in use is known here.
A prompt that does not fit now waits. Where answers grow together beyond the pool, the newest yields: it begins again
later if it has said nothing yet, else it fails, and the older ones can always finish.
"""

from __future__ import annotations

import threading

from dockyard.engines import Emit

STEP_SECONDS = 0.05
"""How often a request that waits for room looks whether its caller is still there."""


class Pool:
    """The tokens in use, out of ``tokens`` (None: nobody needs to count, since all slots could be full)."""

    def __init__(self, tokens: int | None) -> None:
        self._tokens = tokens
        self._shares: dict[Share, int] = {}
        self._total = 0
        self._changed = threading.Condition()

    def share(self) -> Share:
        """A request's part; give it back with ``release``."""
        return Share(self)

    def add(self, share: Share, tokens: int) -> None:
        """Count more for a request; the newest of several must yield where that is too much."""
        if self._tokens is None:
            return
        with self._changed:
            self._shares[share] = self._shares.get(share, 0) + tokens
            self._total += tokens
            if self._total > self._tokens and len(self._shares) > 1:
                newest = next(reversed(self._shares))
                newest.yields = True

    def remove(self, share: Share) -> None:
        with self._changed:
            self._total -= self._shares.pop(share, 0)
            self._changed.notify_all()

    def claim(self, tokens: int, emit: Emit) -> Share | None:
        """A share that holds that many already: waits until they fit or nobody else is there; None: not wanted."""
        share = Share(self)
        share.prompt_tokens = tokens
        with self._changed:
            while self._shares and self._tokens is not None and self._total + tokens > self._tokens:
                if emit(None):
                    return None
                self._changed.wait(STEP_SECONDS)
            self._shares[share] = tokens
            self._total += tokens
        return share


class Share:
    """What one run of a request holds of the pool. ``yields`` is True once it has to stop for the others' sake."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.prompt_tokens = 0
        self.yields = False

    def prompt(self, tokens: int) -> None:
        """The prompt's length, told once or again and again."""
        if not self.prompt_tokens:
            self.prompt_tokens = tokens
            self._pool.add(self, tokens)

    def grow(self, tokens: int = 1) -> None:
        self._pool.add(self, tokens)

    def release(self) -> None:
        self._pool.remove(self)
