"""Task groups of the package wrap whatever failed within them, the caller's own errors too: this takes it out again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def unwrapped() -> Iterator[None]:
    """Raises what a group holds, where that is one thing."""
    try:
        yield
    except BaseExceptionGroup as group:
        cause: BaseException = group
        while isinstance(cause, BaseExceptionGroup) and len(cause.exceptions) == 1:
            cause = cause.exceptions[0]
        if cause is group:
            raise
        raise cause from cause.__cause__
