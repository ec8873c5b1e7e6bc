"""JSON-RPC over a process's pipes: one message a line, bounded before it is parsed.

A server may write what it likes: lines that are no JSON (programs greet on stdout), a message of 100 MB, bytes that are
no UTF-8. None of that may cost more than ``limit`` bytes of memory, nor any other call than the one it answers: where
the id of an unusable answer can be seen, that call fails with the reason, and the connection goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import AsyncIterator
from typing import Any

import anyio
from mcp.shared.message import SessionMessage
from mcp_types import INTERNAL_ERROR, ErrorData, JSONRPCError, jsonrpc_message_adapter

from dockyard.tools.sdk import MESSAGE_LIMIT, Transport

log = logging.getLogger(__name__)

READ_BYTES = 1 << 16
EDGE_BYTES = 256
SKIP_LIMIT = 1 << 28
"""Bytes of one oversized message that are read past before the connection is given up."""
LAST_WORDS_SECONDS = 0.2
"""What a process wrote before it ended is read within this time."""

_HEAD = re.compile(rb'^\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(\d{1,18}|"[^"\\]{1,100}")\s*,')
_TAIL = re.compile(rb',\s*"id"\s*:\s*(\d{1,18}|"[^"\\]{1,100}")\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$')


class Lines:
    """Splits what arrives into messages. ``feed`` gives those that are complete; memory stays below the limit."""

    def __init__(self, limit: int = MESSAGE_LIMIT) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0
        self._head = b""
        self._tail = b""

    def feed(self, data: bytes) -> list[SessionMessage | Exception]:
        """Raises ValueError for a message so large that reading on would be a waste."""
        found: list[SessionMessage | Exception] = []
        *whole, rest = data.split(b"\n")
        for line in whole:
            self._add(line)
            message = self._end()
            if message is not None:
                found.append(message)
        self._add(rest)
        return found

    def _add(self, part: bytes) -> None:
        if not part:
            return
        self._size += len(part)
        if self._size <= self._limit:
            self._parts.append(part)
            return
        if self._parts:
            kept = b"".join(self._parts)
            self._parts, self._head, self._tail = [], kept[:EDGE_BYTES], kept[-EDGE_BYTES:]
        if len(self._head) < EDGE_BYTES:
            self._head = (self._head + part)[:EDGE_BYTES]
        self._tail = (self._tail + part)[-EDGE_BYTES:]
        if self._size > SKIP_LIMIT:
            raise ValueError(f"one message has more than {SKIP_LIMIT} bytes")

    def _end(self) -> SessionMessage | Exception | None:
        size, line = self._size, b"".join(self._parts)
        head, tail = (line[:EDGE_BYTES], line[-EDGE_BYTES:]) if size <= self._limit else (self._head, self._tail)
        self._parts, self._size, self._head, self._tail = [], 0, b"", b""
        if size > self._limit:
            return _failed(head, tail, f"the message has {size} bytes; {self._limit} are allowed")
        if not line.lstrip().startswith(b"{"):
            return None
        try:
            return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
        except ValueError:
            reason = "the message is no JSON-RPC"
            try:
                line.decode()
            except UnicodeDecodeError:
                reason = "the message is no UTF-8"
            return _failed(head, tail, reason)


def _failed(head: bytes, tail: bytes, reason: str) -> SessionMessage | Exception:
    """What the waiting call gets instead of an unusable answer; an exception if none can be named."""
    seen = _HEAD.search(head) or _TAIL.search(tail)
    if seen is None or b'"method"' in head:
        return ValueError(reason)
    text = seen.group(1)
    request = text[1:-1].decode("latin-1") if text.startswith(b'"') else int(text)
    error = ErrorData(code=INTERNAL_ERROR, message=reason, data={"dockyard": "unusable"})
    return SessionMessage(JSONRPCError(jsonrpc="2.0", id=request, error=error))


@contextlib.asynccontextmanager
async def streams(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, pid: int | None = None, limit: int = MESSAGE_LIMIT
) -> AsyncIterator[Transport]:
    """A transport over a started process's stdout (``reader``) and stdin (``writer``).

    It does not end the process; when the process ends, or writes a message beyond all bounds, the transport ends.
    Children that hold its output open do not keep the transport open.
    """
    arrived, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, leaving = anyio.create_memory_object_stream[SessionMessage](0)
    pumps = [asyncio.create_task(_take(reader, arrived, limit)), asyncio.create_task(_give(leaving, writer, arrived))]
    if pid is not None and hasattr(os, "pidfd_open"):
        pumps.append(asyncio.create_task(_outlive(pid, arrived)))
    try:
        yield Transport(read=read, write=write, pid=pid)
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for stream in (arrived, read, write, leaving):
            stream.close()


async def _outlive(pid: int, arrived: Any) -> None:
    """End the connection a moment after the process."""
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    try:
        watched = os.pidfd_open(pid)
    except OSError:
        return
    loop.add_reader(watched, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(watched)
        os.close(watched)
    await asyncio.sleep(LAST_WORDS_SECONDS)
    arrived.close()


async def _take(reader: asyncio.StreamReader, arrived: Any, limit: int) -> None:
    lines = Lines(limit)
    with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError), arrived:
        while data := await reader.read(READ_BYTES):
            try:
                found = lines.feed(data)
            except ValueError as error:
                log.warning("a tool server's output is given up: %s", error)
                return
            for message in found:
                await arrived.send(message)


async def _give(leaving: Any, writer: asyncio.StreamWriter, arrived: Any) -> None:
    try:
        async for item in leaving:
            writer.write(item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
            await writer.drain()
    except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        arrived.close()  # the session learns that this connection is over
