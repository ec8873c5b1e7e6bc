"""JSON-RPC over a process's pipes: one message a line, bounded before it is parsed.

A server may write what it likes: lines that are no JSON (programs greet on stdout), a message of 100 MB, bytes that are
no UTF-8. None of that may cost more than ``limit`` bytes of memory, nor any other call than the one it answers: where
the id of an unusable answer can be seen, that call fails with the reason, and the connection goes on.

``Pipe`` is the short way of a request: its line is written at once, and its answer goes straight to who waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import anyio
import msgspec
from mcp.shared.message import SessionMessage
from mcp_types import CONNECTION_CLOSED, ErrorData, JSONRPCError, jsonrpc_message_adapter

from dockyard.tools.sdk import MESSAGE_LIMIT, Transport
from dockyard.tools.sdk_direct import encoded, numbers, settle, unusable
from dockyard.types import Json

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

    def __init__(self, limit: int = MESSAGE_LIMIT, answers: Callable[[dict[str, Json]], bool] | None = None) -> None:
        """``answers`` is shown each message first, and takes those that it says True of."""
        self._limit = limit
        self._answers = answers
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
            return self._unusable(head, tail, f"the message has {size} bytes; {self._limit} are allowed")
        if not line.lstrip().startswith(b"{"):
            return None
        if self._answers is not None:
            with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                if self._answers(msgspec.json.decode(line)):
                    return None
        try:
            return SessionMessage(jsonrpc_message_adapter.validate_json(line, by_name=False))
        except ValueError:
            reason = "the message is no JSON-RPC"
            try:
                line.decode()
            except UnicodeDecodeError:
                reason = "the message is no UTF-8"
            return self._unusable(head, tail, reason)

    def _unusable(self, head: bytes, tail: bytes, reason: str) -> SessionMessage | Exception | None:
        """What the waiting call gets instead of an unusable answer; an exception if none can be named."""
        seen = _HEAD.search(head) or _TAIL.search(tail)
        if seen is None or b'"method"' in head:
            return ValueError(reason)
        text = seen.group(1)
        request = text[1:-1].decode("latin-1") if text.startswith(b'"') else int(text)
        failed = unusable(reason)
        if self._answers is not None and self._answers({"jsonrpc": "2.0", "id": request, **failed}):
            return None
        return SessionMessage(JSONRPCError(jsonrpc="2.0", id=request, error=ErrorData(**failed["error"])))


class Pipe:
    """The ``Direct`` of a process. ``end`` fails whatever waits."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._numbers = numbers()
        self._waiting: dict[int, asyncio.Future[dict[str, Json]]] = {}
        self._strange = 0
        self._over = False

    async def ask(
        self,
        method: str,
        params: Mapping[str, Json],
        headers: Mapping[str, str],  # noqa: ARG002 - a pipe has none
    ) -> dict[str, Json]:
        if self._over:
            return dict(_CLOSED)
        number, seen = next(self._numbers), self._strange
        answer: asyncio.Future[dict[str, Json]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            line = encoded({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
            self._writer.write(line + b"\n")
            await self._writer.drain()
            found = await answer
        except (OSError, RuntimeError):  # the latter is uvloop's word for a pipe that is closed
            return dict(_CLOSED)
        except asyncio.CancelledError:
            self._cancel(number)
            raise
        finally:
            del self._waiting[number]
        if self._strange != seen:
            await settle()
        return found

    def _cancel(self, number: int) -> None:
        note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}}
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.write(encoded(note) + b"\n")

    def takes(self, message: dict[str, Json]) -> bool:
        """Whether this is an answer that somebody waits for here, who gets it."""
        number = message.get("id")
        answer = self._waiting.get(number) if isinstance(number, int) else None
        if answer is None or "method" in message:
            self._strange += 1
            return False
        error = message.get("error")
        if message.get("jsonrpc") != "2.0" or (error is None and "result" not in message):
            message = unusable("it is no JSON-RPC")
        elif error is not None and not _fine(error):
            message = unusable("its error has no code")
        if not answer.done():
            answer.set_result(message)
        return True

    def end(self) -> None:
        self._over = True
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_result(dict(_CLOSED))


_CLOSED: dict[str, Json] = {"error": {"code": CONNECTION_CLOSED, "message": "Connection closed"}}


def _fine(error: Json) -> bool:
    return isinstance(error, dict) and isinstance(error.get("code"), int) and isinstance(error.get("message"), str)


@contextlib.asynccontextmanager
async def streams(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    *,
    pid: int | None = None,
    limit: int = MESSAGE_LIMIT,
    asks: bool = True,
) -> AsyncIterator[Transport]:
    """A transport over a started process's stdout (``reader``) and stdin (``writer``).

    It does not end the process; when the process ends, or writes a message beyond all bounds, the transport ends.
    Children that hold its output open do not keep the transport open. Without ``asks`` this end is the server's, and
    there is no short way.
    """
    arrived, read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write, leaving = anyio.create_memory_object_stream[SessionMessage](0)
    pipe = Pipe(writer)
    pumps = [
        asyncio.create_task(_take(reader, arrived, Lines(limit, pipe.takes if asks else None), pipe)),
        asyncio.create_task(_give(leaving, writer, arrived)),
    ]
    if pid is not None and hasattr(os, "pidfd_open"):
        pumps.append(asyncio.create_task(_outlive(pid, arrived, pipe)))
    try:
        yield Transport(read=read, write=write, pid=pid, direct=pipe if asks else None)
    finally:
        pipe.end()
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for stream in (arrived, read, write, leaving):
            stream.close()


async def _outlive(pid: int, arrived: Any, pipe: Pipe) -> None:
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
    pipe.end()


async def _take(reader: asyncio.StreamReader, arrived: Any, lines: Lines, pipe: Pipe) -> None:
    try:
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError, OSError), arrived:
            while data := await reader.read(READ_BYTES):
                try:
                    found = lines.feed(data)
                except ValueError as error:
                    log.warning("a tool server's output is given up: %s", error)
                    return
                for message in found:
                    await arrived.send(message)
    finally:
        pipe.end()


async def _give(leaving: Any, writer: asyncio.StreamWriter, arrived: Any) -> None:
    try:
        async for item in leaving:
            writer.write(item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
            await writer.drain()
    except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        arrived.close()  # the session learns that this connection is over
