"""Names of tools and prompts outside their servers: unique, the same on every listing, and fit for every client."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

from dockyard.tools.model import SEPARATOR

LONGEST = 64
"""Characters that the APIs of models allow in a function's name."""

_UNFIT = re.compile(r"[^A-Za-z0-9_-]")


def outside(pairs: Sequence[tuple[str, str]], *, prefix: bool) -> list[str]:
    """A name for each (server, name), in order.

    Without ``prefix`` a server's own name stays where no other server has it too. Characters that some client refuses
    become ``_``, and what is too long or would be another's name ends in a digest of the whole.
    """
    often = Counter(name for _, name in pairs)
    names = [name if not prefix and often[name] == 1 else f"{server}{SEPARATOR}{name}" for server, name in pairs]
    fit = [_fit(name) if prefix or often[pair[1]] > 1 else name for name, pair in zip(names, pairs, strict=True)]
    twice = Counter(fit)
    return [
        _marked(name, f"{server}\0{inner}") if twice[name] > 1 or len(name) > LONGEST else name
        for name, (server, inner) in zip(fit, pairs, strict=True)
    ]


def _fit(name: str) -> str:
    return _UNFIT.sub("_", name)


def _marked(name: str, whole: str) -> str:
    mark = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{name[: LONGEST - 9]}_{mark}"
