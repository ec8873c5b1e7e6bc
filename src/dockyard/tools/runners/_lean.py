"""HTTP/1.1 for many small calls to one server: connections that stay open, each to an address that was checked.

One write a request and one read an answer, where a general client takes a score of layers. What it does not do: TLS,
whose servers are far enough away for a general client not to matter; follow redirects; decode bodies; reuse a
connection on which anything was odd. Everything that a server sends is bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import select
import time
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlsplit

import httpx2

from dockyard.addresses import Guard
from dockyard.errors import DockyardError
from dockyard.tools.runners import _http

HEAD_BYTES = 64 << 10
"""Of an answer's status and headers, and of one line of a chunked body."""
IDLE_SECONDS = 4.0
"""After this a connection is not used again: many servers close theirs after five seconds."""
MOST_IDLE = 8
MOST_TRAILERS = 100
ENDING_SECONDS = 1.0
"""What an answer may take to end after all that counts was read, for its connection to be used again."""
_READ = 1 << 16
_OURS = {"host", "content-length", "transfer-encoding", "connection", "expect", "upgrade", "te", "trailer"}
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class Broken(Exception):
    """The answer did not come, broke off, or is no HTTP that is understood here."""


class _Stale(Broken):
    """A connection that was kept ended, and nothing of an answer had come."""


class Answer:
    """The answer to one request: ``status``, ``headers`` (names in lower case), and the body, to be read once."""

    def __init__(self, reader: asyncio.StreamReader, head: bytes) -> None:
        self._reader = reader
        first, *lines = head.decode("latin-1").split("\r\n")
        version, _, rest = first.partition(" ")
        code = rest[:3]
        if version not in ("HTTP/1.1", "HTTP/1.0") or not (code.isascii() and code.isdigit() and len(code) == 3):
            raise Broken("the answer is no HTTP/1.1")
        self.status = int(code)
        self.headers: dict[str, str] = {}
        for line in lines:
            name, colon, value = line.partition(":")
            name, value = name.lower(), value.strip(" \t")
            if not colon or _TOKEN.fullmatch(name) is None:
                raise Broken("the answer has a header that is none")
            if self.headers.setdefault(name, value) != value and name in ("content-length", "transfer-encoding"):
                raise Broken(f"the answer contradicts itself in its header {name!r}")
        self.reusable = version == "HTTP/1.1" and "close" not in self.headers.get("connection", "").lower()
        self.over = False
        """The body was read to its end."""
        self.enough = False
        """Set by the reader: what is left of the body says nothing, and is not a reason to end the connection."""
        self._left = self._length()
        self._chunk = 0

    def _length(self) -> int | None:
        """Bytes of the body; None: in chunks (-1: up to the end of the connection)."""
        coding = self.headers.get("transfer-encoding")
        length = self.headers.get("content-length")
        if self.status in (204, 304):
            return 0
        if coding is not None:
            if coding.lower() != "chunked" or length is not None:
                raise Broken(f"the answer has the transfer coding {coding[:40]!r}, and was to have none or chunks")
            return None
        if length is None:
            self.reusable = False
            return -1
        if not (length.isascii() and length.isdigit() and len(length) < 16):
            raise Broken("the answer has a length that is no number")
        return int(length)

    async def whole(self, most: int) -> bytes:
        """The body. Raises Broken if it has more bytes than that, or breaks off."""
        if (self._left or 0) > most:
            raise Broken(f"the answer has more than {most} bytes")
        parts, size = [], 0
        while part := await self.part():
            size += len(part)
            if size > most:
                raise Broken(f"the answer has more than {most} bytes")
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def part(self) -> bytes:
        """The next bytes of the body, nothing at its end. Raises Broken."""
        if self.over:
            return b""
        try:
            if self._left is None:
                return await self._of_chunk()
            part = await self._reader.read(_READ if self._left < 0 else min(self._left, _READ)) if self._left else b""
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError) as error:
            raise Broken("the answer broke off") from error
        if not part and self._left > 0:
            raise Broken("the answer broke off")
        if self._left > 0:
            self._left -= len(part)
        self.over = not part or self._left == 0
        return part

    async def _of_chunk(self) -> bytes:
        if not self._chunk:
            line = (await self._reader.readuntil(b"\r\n"))[:-2]
            number = line.partition(b";")[0].strip()
            if not number or len(number) > 8 or number.strip(b"0123456789abcdefABCDEF"):
                raise Broken("the answer has a chunk without a length")
            self._chunk = int(number, 16)
            if not self._chunk:
                for _ in range(MOST_TRAILERS):
                    if await self._reader.readuntil(b"\r\n") == b"\r\n":
                        self.over = True
                        return b""
                raise Broken("the answer does not end")
        part = await self._reader.read(min(self._chunk, _READ))
        if not part:
            raise Broken("the answer broke off")
        self._chunk -= len(part)
        if not self._chunk and await self._reader.readexactly(2) != b"\r\n":
            raise Broken("the answer has a chunk that is longer than it said")
        return part


class Lean:
    """Posts to one URL. ``headers`` go with every request. Raises ValueError for what it can't do: another will."""

    def __init__(self, guard: Guard, url: str, headers: Mapping[str, str]) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or "@" in parts.netloc or not url.isascii():
            raise ValueError("no plain URL")
        if _OURS & {name.lower() for name in headers}:
            raise ValueError("headers that are not the caller's to set")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if re.search(r"[\x00-\x20\x7f]", target):
            raise ValueError("no plain URL")
        self._guard = guard
        self._url = httpx2.URL(url)
        self._host = parts.hostname
        self._port = parts.port or 80
        self._head = f"POST {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n" + _lines(headers)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter, float]] = []
        self._open: set[asyncio.StreamWriter] = set()
        self._finishing: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def post(self, body: bytes, headers: Mapping[str, str], *, again: bool = False) -> AsyncIterator[Answer]:
        """Send it once, or with ``again`` a second time where a kept connection had ended: only for what may happen
        twice. Leaving before the end of the body ends the connection, which tells the server to stop, unless
        ``Answer.enough`` was set.

        Raises Broken, ValueError for headers that can't be sent.
        """
        head = f"{self._head}{_lines(headers)}Content-Length: {len(body)}\r\n\r\n".encode("latin-1")
        warm = self._warm()
        try:
            async with self._exchange(*(warm or await self._connect()), head + body) as answer:
                yield answer
                return
        except _Stale:
            if warm is None or not again:
                raise
        async with self._exchange(*await self._connect(), head + body) as answer:
            yield answer

    @contextlib.asynccontextmanager
    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes
    ) -> AsyncIterator[Answer]:
        self._open.add(writer)
        answer: Answer | None = None
        try:
            try:
                writer.write(request)
                if len(request) > _READ:
                    await writer.drain()
                answer = await self._answer(reader)
            except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
                nothing = isinstance(error, OSError) or not getattr(error, "partial", b"x")
                raise (_Stale if nothing else Broken)("the connection ended before an answer came") from error
            yield answer
        finally:
            self._open.discard(writer)
            if answer is not None and answer.enough and not answer.over:
                task = asyncio.create_task(self._finish(answer, reader, writer))
                self._finishing.add(task)
                task.add_done_callback(self._finishing.discard)
            else:
                self._keep(answer, reader, writer)

    async def _finish(self, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ENDING_SECONDS):
                await answer.whole(HEAD_BYTES)
        except (Broken, TimeoutError):
            pass
        finally:
            self._keep(answer, reader, writer)

    def _keep(self, answer: Answer | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if answer is not None and answer.over and answer.reusable and len(self._idle) < MOST_IDLE:
            self._idle.append((reader, writer, time.monotonic()))
        else:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> Answer:
        for _ in range(10):
            answer = Answer(reader, (await reader.readuntil(b"\r\n\r\n"))[:-4])
            if answer.status >= 200:
                return answer
        raise Broken("the server goes on and on before it answers")

    def _warm(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        while self._idle:
            reader, writer, since = self._idle.pop()
            fresh = time.monotonic() - since < IDLE_SECONDS
            if fresh and not reader.at_eof() and not writer.is_closing() and _quiet(writer):
                return reader, writer
            writer.transport.abort()
        return None

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        last: Exception | None = None
        try:
            addresses = await _http.addresses(self._guard, self._url)
        except DockyardError as error:
            raise Broken(error.message) from error
        for address in addresses:
            try:
                async with asyncio.timeout(_http.CONNECT_SECONDS):
                    return await asyncio.open_connection(address, self._port, limit=HEAD_BYTES)
            except (OSError, TimeoutError) as error:
                last = error
        raise Broken(f"{self._host}:{self._port} does not answer: {last}") from last

    async def close(self) -> None:
        """End every connection; requests under way fail."""
        for task in self._finishing:
            task.cancel()
        await asyncio.gather(*self._finishing, return_exceptions=True)
        for writer in [*self._open, *(writer for _, writer, _ in self._idle)]:
            writer.transport.abort()
        self._idle.clear()
        await asyncio.sleep(0)  # aborted connections are closed in the next round of the loop


def _quiet(writer: asyncio.StreamWriter) -> bool:
    """Whether nothing has arrived on a connection that waits, its end included; the loop may not have looked yet."""
    if not hasattr(select, "poll"):
        return True
    waiting = select.poll()
    waiting.register(writer.get_extra_info("socket").fileno(), select.POLLIN)
    return not waiting.poll(0)


def _lines(headers: Mapping[str, str]) -> str:
    for name, value in headers.items():
        if _TOKEN.fullmatch(name) is None or _VALUE.fullmatch(value) is None:
            raise ValueError(f"{name!r} can't be sent as a header")
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())
