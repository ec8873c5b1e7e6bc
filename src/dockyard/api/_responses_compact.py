"""A conversation made short: a summary by the model, sealed so that clients hand it back as it is."""

from __future__ import annotations

import base64
import binascii

from dockyard.errors import InvalidRequest
from dockyard.types import Message

SEAL = b"dockyard:"
ASK = (
    "Sum up this conversation so that it can go on without the text above: what is wanted, what was decided, facts, "
    "names and numbers, and what is still open. Write the summary and nothing else."
)


def packed(summary: str) -> str:
    """What a compaction item carries. It is no secret: whoever holds it may know it."""
    return base64.b64encode(SEAL + summary.encode()).decode()


def unpacked(content: str, at: str) -> str:
    """The summary again. Raises InvalidRequest for a compaction that another server made."""
    try:
        found = base64.b64decode(content, validate=True)
        if not found.startswith(SEAL):
            raise ValueError("another server's")
        return found.removeprefix(SEAL).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise InvalidRequest(
            f"{at} was not made by this server", param=at, hint="use what /v1/responses/compact answered"
        ) from None


def asking(messages: tuple[Message, ...], instructions: str | None) -> tuple[Message, ...]:
    """The conversation, and the request to sum it up."""
    ask = f"{ASK}\n{instructions}" if instructions else ASK
    return (*messages, Message(role="user", content=ask))
