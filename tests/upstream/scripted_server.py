"""A server in this event loop that answers each connection's request with the next of its scripted replies."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any


class Reply:
    """``body`` is sent in parts, ``gap`` seconds between them; ``cut`` hangs up before the end is announced."""

    def __init__(
        self,
        *body: str | bytes,
        status: int = 200,
        gap: float = 0.0,
        cut: bool = False,
        head: float = 0.0,
        **headers: str,
    ) -> None:
        self.status, self.body, self.gap, self.cut, self.head = status, body, gap, cut, head
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def events(*found: Any, done: bool = True) -> list[str]:
    return [f"data: {json.dumps(each)}\n\n" for each in found] + (["data: [DONE]\n\n"] if done else [])


def said(text: str, finish: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}


class Scripted:
    """``url`` to call; ``requests`` are the (path, headers, JSON) that came; ``hung_up`` counts callers that left."""

    def __init__(self, replies: Sequence[Reply]) -> None:
        self.replies = list(replies)
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.hung_up = asyncio.Event()
        self.url = ""
        self.tasks: set[asyncio.Task[Any]] = set()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            self.requests.append((head[0].split()[1], headers, json.loads(body or b"null")))
            await self._play(self.replies.pop(0), reader, writer)
        writer.close()
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await writer.wait_closed()

    async def _play(self, reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone = asyncio.ensure_future(reader.read())
        gone.add_done_callback(lambda _: self.hung_up.set())
        try:
            await asyncio.sleep(reply.head)
            lines = [f"HTTP/1.1 {reply.status} X", "Transfer-Encoding: chunked", "Connection: close"]
            lines += [f"{name}: {value}" for name, value in reply.headers.items()]
            writer.write("\r\n".join([*lines, "", ""]).encode())
            for part in reply.body:
                data = part.encode() if isinstance(part, str) else part
                writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
                await writer.drain()
                await asyncio.sleep(reply.gap)
                if gone.done():
                    return
            if not reply.cut:
                writer.write(b"0\r\n\r\n")
            await writer.drain()
        finally:
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)


@asynccontextmanager
async def scripted(*replies: Reply) -> AsyncIterator[Scripted]:
    found = Scripted(replies)
    server = await asyncio.start_server(found.answer, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        server.close()
        for task in found.tasks:
            task.cancel()
        await asyncio.gather(*found.tasks, return_exceptions=True)
