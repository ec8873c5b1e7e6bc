"""The one way out of a sandbox: an HTTP proxy (CONNECT, and plain requests) that reaches listed hosts and no others."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit

from dockyard.addresses import Guard, plain
from dockyard.errors import DockyardError

HEAD_BYTES = 16 << 10
HEAD_SECONDS = 10.0
MOST_CONNECTIONS = 64
_BLOCK = 1 << 16
PORT = 3128
"""Where a sandbox sees it, on its own loopback."""


def variables(port: int = PORT) -> dict[str, str]:
    """What tells programs of the proxy."""
    address = f"http://127.0.0.1:{port}"
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
    bypass = {"NO_PROXY": "localhost,127.0.0.1,::1", "no_proxy": "localhost,127.0.0.1,::1", "NODE_USE_ENV_PROXY": "1"}
    return {**dict.fromkeys(names, address), **bypass}


def permitted(hosts: tuple[str, ...], host: str, port: int) -> bool:
    """Whether a list of ``name[:port]`` (port 443 if none; ``*.name`` for what is below a name) has this host."""
    for entry in hosts:
        name, wanted = split(entry)
        below = name.startswith("*.") and plain(host).endswith(name[1:])
        if port == wanted and (below or plain(host) == name):
            return True
    return False


def split(entry: str) -> tuple[str, int]:
    """Name and port of ``name[:port]``. Raises ValueError."""
    parts = urlsplit(f"//{entry}")
    if not parts.hostname or parts.path or parts.query or parts.username is not None:
        raise ValueError(f"{entry!r} is not name:port")
    return plain(parts.hostname), parts.port or 443


class Egress:
    """Serves one sandbox. ``hosts`` as in ``Sandbox.hosts``; ``tell`` hears what was refused."""

    def __init__(self, hosts: tuple[str, ...], guard: Guard, tell: Callable[[str], None]) -> None:
        self._hosts = hosts
        self._guard = guard
        self._tell = tell
        self._open: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def listen(self, path: Path) -> AsyncIterator[None]:
        """Serve on a Unix socket at ``path`` until left; then every connection is closed."""
        server = await asyncio.start_unix_server(self._accept, str(path))
        async with self._serving(server):
            yield

    @contextlib.asynccontextmanager
    async def serve(self, listener: socket.socket) -> AsyncIterator[None]:
        """The same on a socket that listens already."""
        server = await asyncio.start_server(self._accept, sock=listener)
        async with self._serving(server):
            yield

    @contextlib.asynccontextmanager
    async def _serving(self, server: asyncio.Server) -> AsyncIterator[None]:
        try:
            yield
        finally:
            server.close()
            for task in list(self._open):
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= MOST_CONNECTIONS:
            writer.close()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            try:
                async with asyncio.timeout(HEAD_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
            except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                return
            try:
                host, port, opening = _asked(head)
            except ValueError:
                writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
                return
            await self._relay(host, port, opening, reader, writer)

    async def _relay(
        self, host: str, port: int, opening: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            if not permitted(self._hosts, host, port):
                raise PermissionError
            far_reader, far_writer = await self._guard.connect(host, port)
        except (PermissionError, DockyardError) as error:
            reason = error.message if isinstance(error, DockyardError) else "it is not in sandbox.hosts"
            self._tell(f"refused to connect to {host}:{port}: {reason}")
            status = (
                b"502 Bad Gateway" if isinstance(error, DockyardError) and error.status == 502 else b"403 Forbidden"
            )
            writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            await writer.drain()
            return
        with contextlib.closing(far_writer):
            if opening:
                far_writer.write(opening)
            else:
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(reader, far_writer))
                both.create_task(_pump(far_reader, writer))


def _asked(head: bytes) -> tuple[str, int, bytes]:
    """Host, port, and what to send on first (nothing for CONNECT). Raises ValueError."""
    if len(head) > HEAD_BYTES:
        raise ValueError("too long")
    line, _, rest = head.partition(b"\r\n")
    method, target, version = line.decode("ascii").split(" ")
    if method == "CONNECT":
        parts = urlsplit(f"//{target}")
        if not parts.hostname or parts.port is None:
            raise ValueError("no host")
        return parts.hostname, parts.port, b""
    parts = urlsplit(target)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError("no proxy request")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    kept = [each for each in rest.split(b"\r\n") if each and not each.lower().startswith((b"proxy-", b"connection:"))]
    lines = [f"{method} {path} {version}".encode(), *kept, b"Connection: close", b"", b""]
    return parts.hostname, parts.port or 80, b"\r\n".join(lines)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(_BLOCK):
            sink.write(data)
            await sink.drain()
    with contextlib.suppress(OSError, RuntimeError):
        sink.write_eof()
