"""The hub's requests, replies and errors, as the OCI Distribution Spec has them on the wire."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import msgspec

from dockyard.errors import (
    ArtifactError,
    Conflict,
    DigestMismatch,
    DockyardError,
    Forbidden,
    InvalidReference,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    StoreFull,
    TruncatedContent,
    Unauthorized,
)

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

CHUNK = 2 << 20
"""Bytes read from disk and sent at a time; several such are in memory for each slow reader at most."""
DRAINED = 16 << 20
"""Most bytes of a refused body that are read and thrown away."""
STALL_SECONDS = 60.0
"""Longest silence of a client in the middle of a body; what came before it stays."""


class OciError(Exception):
    """A failure in the spec's own words: a status, one of its codes, a sentence, and whatever detail helps."""

    def __init__(self, status: int, code: str, message: str, detail: Any = None, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.detail = detail
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Ask(msgspec.Struct, kw_only=True):
    """One request. ``path`` is below ``/v2/``; the names of headers are in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    receive: Receive
    ended: bool = False

    @property
    def length(self) -> int | None:
        """Content-Length; None where the body is chunked. Raises SIZE_INVALID for nonsense."""
        text = self.headers.get("content-length")
        if text is None:
            return None
        if not (text.isascii() and text.isdigit()):
            raise OciError(400, "SIZE_INVALID", f"Content-Length {text!r} is not a number")
        return int(text)

    async def body(self) -> AsyncIterator[bytes]:
        """The body's parts as they come. Raises ConnectionResetError where the client goes away before its end."""
        while True:
            try:
                async with asyncio.timeout(STALL_SECONDS):
                    message = await self.receive()
            except TimeoutError:
                raise OciError(408, "BLOB_UPLOAD_INVALID", f"nothing came for {STALL_SECONDS:.0f} seconds") from None
            if message["type"] != "http.request":
                self.ended = True
                raise ConnectionResetError("the client went away")
            self.ended = not message.get("more_body")
            if message.get("body"):
                yield message["body"]
            if self.ended:
                return

    async def read(self, limit: int) -> bytes:
        """The whole body; OciError 413 as soon as it is known to be longer than ``limit``."""
        too_long = OciError(413, "SIZE_INVALID", f"the manifest has more than {limit} bytes", {"limit": limit})
        if (self.length or 0) > limit:
            raise too_long
        parts: list[bytes] = []
        total = 0
        async for part in self.body():
            total += len(part)
            if total > limit:
                raise too_long
            parts.append(part)
        return b"".join(parts)

    async def drain(self) -> bool:
        """Take what is left of a body that is refused, so that the connection can go on; False if that is too much.

        A client may well send its whole body before it reads the answer.
        """
        if not self.ended and (self.length or 0) <= DRAINED:
            taken = 0
            with contextlib.suppress(ConnectionResetError, OciError):
                async for part in self.body():
                    taken += len(part)
                    if taken > DRAINED:
                        break
        return self.ended


class Reply(msgspec.Struct, kw_only=True):
    """What to answer: ``body``, or ``span`` bytes of a file from ``start``."""

    status: int = 200
    headers: dict[str, str] = {}
    body: bytes = b""
    file: Path | None = None
    start: int = 0
    span: int = 0


def ask_of(scope: Mapping[str, Any], receive: Receive) -> Ask:
    """Read an ASGI scope. The path is everything below ``/v2/``."""
    # A router may have normalised ``path``; ``raw_path`` is what the client sent.
    raw = scope.get("raw_path") or scope["path"].encode()
    path = unquote(raw.decode("ascii", "replace").partition("?")[0])
    return Ask(
        method=scope["method"],
        path=path.partition("/v2")[2].removeprefix("/"),
        query=dict(parse_qsl(scope["query_string"].decode("ascii", "replace"), keep_blank_values=True)),
        headers={name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]},
        receive=receive,
    )


def json_reply(value: Any, *, media_type: str = "application/json", **headers: str) -> Reply:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Reply(headers={"content-type": media_type, **named}, body=msgspec.json.encode(value))


def error_reply(error: OciError) -> Reply:
    told: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.detail is not None:
        told["detail"] = error.detail
    body = msgspec.json.encode({"errors": [told]})
    return Reply(status=error.status, headers={"content-type": "application/json", **error.headers}, body=body)


_CODES: tuple[tuple[type[DockyardError], int, str], ...] = (
    (DigestMismatch, 400, "DIGEST_INVALID"),
    (TruncatedContent, 400, "SIZE_INVALID"),
    (ArtifactError, 400, "MANIFEST_INVALID"),
    (InvalidReference, 400, "NAME_INVALID"),
    (PayloadTooLarge, 413, "SIZE_INVALID"),
    (NotFound, 404, "MANIFEST_UNKNOWN"),
    (Forbidden, 403, "DENIED"),
    (Conflict, 409, "DENIED"),
    (RateLimited, 429, "TOOMANYREQUESTS"),
    (StoreFull, 507, "DENIED"),
)


def translated(error: DockyardError) -> OciError:
    """Our error in the spec's words; the hint goes into ``detail``."""
    detail = {"hint": error.hint} if error.hint else None
    if isinstance(error, Unauthorized):
        # Basic, since every OCI client knows it; the password is the API key and the user's name is not looked at.
        return OciError(401, "UNAUTHORIZED", error.message, detail, www_authenticate='Basic realm="dockyard"')
    for kind, status, code in _CODES:
        if isinstance(error, kind):
            wait = {"retry_after": f"{error.retry_after:.0f}"} if error.retry_after is not None else {}
            return OciError(status, code, error.message, detail, **wait)
    return OciError(error.status, "UNKNOWN", error.message, detail)


async def send_reply(ask: Ask, reply: Reply, send: Send) -> None:
    """Write a reply; of HEAD only the head, with the length that GET would have."""
    length = reply.span if reply.file is not None else len(reply.body)
    headers = {"content-length": str(length), "docker-distribution-api-version": "registry/2.0", **reply.headers}
    if reply.status == 204:
        del headers["content-length"]
    pairs = [(name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": pairs})
    if reply.file is None or ask.method == "HEAD" or length == 0:
        await send({"type": "http.response.body", "body": b"" if ask.method == "HEAD" else reply.body})
    else:
        await _send_span(ask, reply, send)


async def _send_span(ask: Ask, reply: Reply, send: Send) -> None:
    """Send a part of a file. A server may swallow what is sent to a client that is gone, so ``receive`` is watched."""
    assert reply.file is not None
    gone = asyncio.ensure_future(_until_gone(ask.receive))
    handle = os.open(reply.file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        at, end = reply.start, reply.start + reply.span
        while at < end and not gone.done():
            data = await asyncio.to_thread(os.pread, handle, min(CHUNK, end - at), at)
            if not data:
                raise OSError(f"{reply.file} is shorter than when it was opened")
            at += len(data)
            await send({"type": "http.response.body", "body": data, "more_body": at < end})
    finally:
        os.close(handle)
        gone.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await gone


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
