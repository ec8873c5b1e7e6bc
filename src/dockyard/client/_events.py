"""What arrives on the wire, made into chunks, lines and errors; no I/O here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import msgspec

from dockyard.errors import (
    DockyardError,
    Forbidden,
    InvalidRequest,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    RateLimited,
    ServerUnreachable,
    Unauthorized,
    by_code,
)
from dockyard.types import Chunk, Json, Usage

_BY_STATUS: dict[int, type[DockyardError]] = {
    400: InvalidRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    413: PayloadTooLarge,
    429: RateLimited,
    503: Overloaded,
}


class EventSplitter:
    """Splits a byte stream into the ``data`` of server-sent events (WHATWG HTML, 9.2), wherever the bytes are cut."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []

    def feed(self, part: bytes) -> list[str]:
        text = self._rest + part
        # A carriage return at the very end may be half of "\r\n": it waits for its partner.
        held = b"\r" if text.endswith(b"\r") else b""
        lines = text.removesuffix(b"\r").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._rest = lines.pop() + held
        events = []
        for line in lines:
            if not line:
                if self._data:
                    events.append("\n".join(self._data))
                self._data = []
                continue
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" ").decode("utf-8", "replace"))
        return events


def error_of(status: int, body: bytes, *, retry_after: str | None = None) -> DockyardError:
    """The error that an answer of this status means; reads OpenAI's error shape, and is content with less."""
    try:
        found = msgspec.json.decode(body)
        found = found["error"] if isinstance(found, dict) and "error" in found else found
    except msgspec.DecodeError:
        found = body.decode("utf-8", "replace").strip()[:500]
    if not isinstance(found, dict):
        found = {"message": str(found or f"the server answered with status {status}")}
    kind = by_code(str(found.get("code")))
    if kind is DockyardError:
        kind = _BY_STATUS.get(status, DockyardError)
    wait = str(found.get("retry_after") or retry_after or "")
    return kind(
        str(found.get("message") or found.get("detail") or f"the server answered with status {status}"),
        hint=found.get("hint"),
        param=found.get("param"),
        retry_after=float(wait) if wait.replace(".", "", 1).isdigit() else None,
    )


def raise_error(event: Json) -> Json:
    """``event`` as it is, unless it reports a failure in the middle of a stream."""
    if isinstance(event, dict) and event.get("error"):
        raise error_of(int(event.get("status", 500)), msgspec.json.encode(event))
    return event


def decode(data: bytes) -> Json:
    """JSON, or a sentence about what answered instead of an API."""
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        shown = data[:80].decode("utf-8", "replace")
        raise ServerUnreachable(f"the answer is not JSON: {shown!r}", hint="is this the address of an API?") from error


def chunks(event: Json) -> Iterator[Chunk]:
    """Chunks out of one streamed event of ``chat.completion.chunk`` or ``text_completion``."""
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or {}
        yield Chunk(
            text=delta.get("content") or choice.get("text") or "",
            index=choice.get("index", 0),
            finish=choice.get("finish_reason"),
            reasoning=delta.get("reasoning_content") or "",
            tool_calls=delta.get("tool_calls"),
        )
    if usage := event.get("usage"):
        details = usage.get("prompt_tokens_details") or {}
        yield Chunk(
            usage=Usage(
                prompt_tokens=usage.get("prompt_tokens", 0),
                completion_tokens=usage.get("completion_tokens", 0),
                cached_tokens=details.get("cached_tokens") or 0,
            )
        )


async def lines(parts: AsyncIterator[bytes]) -> AsyncIterator[str]:
    """Whole lines of a body, without their line ends."""
    rest = b""
    async for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace")
    if rest:
        yield rest.decode("utf-8", "replace")
