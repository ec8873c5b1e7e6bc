"""The in-memory registry's wire: connections, bodies, ranges, and the faults that happen there."""

from __future__ import annotations

import contextlib
import socket
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from dockyard.artifact.registry.faults import Fault
from dockyard.artifact.registry.headers import byte_range

if TYPE_CHECKING:
    from dockyard.artifact.registry.memory import Answer, MemoryRegistry

_BLOCK = 1 << 20


def serve(registry: MemoryRegistry) -> ThreadingHTTPServer:
    """A server on a free port of the loopback interface; the caller runs and closes it."""

    class Handler(_Handler):
        pass

    Handler.registry = registry
    return _Server(("127.0.0.1", 0), Handler)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    registry: MemoryRegistry
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 64 << 10

    def log_message(self, *_: object) -> None:
        pass

    def __getattr__(self, name: str) -> object:
        if name.startswith("do_"):
            return self._handle
        raise AttributeError(name)

    def _handle(self) -> None:
        from dockyard.artifact.registry.memory import Answer, Asked

        fault = self.registry.faults.take(f"{self.command} {self.path}") or Fault(times=0)
        if fault.delay:
            time.sleep(fault.delay)
        asked = Asked(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        length = int(self.headers.get("Content-Length") or 0)
        if fault.cut is not None and length:
            self.registry.arrived(self.path, self.rfile.read(min(fault.cut, length)))
            self._hang_up()
            return
        body = self.rfile.read(length) if length else b""
        if fault.status is not None:
            headers = {"Retry-After": f"{fault.retry_after:g}"} if fault.retry_after is not None else {}
            self._send(Answer(fault.status, b"fault", headers), fault)
            return
        self._send(self._ranged(self.registry.answer(asked, body)), fault)

    def _ranged(self, answer: Answer) -> Answer:
        wanted = byte_range(self.headers.get("Range"), len(answer.body))
        if answer.status != 200 or wanted is None or answer.headers.get("Accept-Ranges") != "bytes":
            return answer
        first, last = wanted
        size = len(answer.body)
        if first > last:
            answer.status, answer.body = 416, b""
            answer.headers["Content-Range"] = f"bytes */{size}"
        else:
            answer.status, answer.body = 206, answer.body[first : last + 1]
            answer.headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        return answer

    def _send(self, answer: Answer, fault: Fault) -> None:
        body = answer.body
        if fault.spoil is not None and fault.spoil < len(body):
            body = body[: fault.spoil] + bytes([body[fault.spoil] ^ 1]) + body[fault.spoil + 1 :]
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD" or answer.status == 204:
            return
        end = len(body) if fault.cut is None else min(fault.cut, len(body))
        view = memoryview(body)
        for start in range(0, end, _BLOCK):
            self.wfile.write(view[start : min(start + _BLOCK, end)])
        if fault.cut is not None:
            self._hang_up()

    def _hang_up(self) -> None:
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
        self.close_connection = True
