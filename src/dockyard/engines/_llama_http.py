"""llama.cpp's HTTP server on a Unix socket that only this user can reach, and that wants a key."""

from __future__ import annotations

import contextlib
import http.client
import os
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from dockyard.engines._llama_answer import error_of
from dockyard.errors import DockyardError, EngineError, WorkerCrashed
from dockyard.types import Json

PACE = 0.05
"""Seconds between two looks at an answer under way. Each wakes this process, which delays the next token by what
that takes, where every core computes."""
EARLY = (b'"prompt_progress":', b'"role":')
"""What is in events before the first token, which nobody shall wait for."""


class Door:
    """The way in. ``path`` is the socket's; ``reference`` names the model in errors."""

    def __init__(self, path: str, key: str, reference: str) -> None:
        self._path = path
        self.key = key
        self._reference = reference
        self._held: int | None = None

    def hold(self) -> bool:
        """Keep a way to the socket that outlives its name in the file system; False where only Linux could."""
        if not (hasattr(os, "O_PATH") and Path("/proc/self/fd").is_dir()):
            return False
        self._held = os.open(self._path, os.O_PATH | os.O_CLOEXEC)
        self._path = f"/proc/self/fd/{self._held}"
        return True

    def close(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def get(self, route: str) -> tuple[int, bytes]:
        """Status and body. Raises OSError or HTTPException where nobody answers."""
        with contextlib.closing(_UnixConnection(self._path)) as connection:
            connection.request("GET", route, headers=self._headers())
            reply = connection.getresponse()
            return reply.status, reply.read()

    def props(self) -> dict[str, Json]:
        """What the server tells of itself; empty where it does not."""
        try:
            found = msgspec.json.decode(self.get("/props")[1])
        except (OSError, http.client.HTTPException, msgspec.DecodeError):
            return {}
        return found if isinstance(found, dict) else {}

    def able(self) -> frozenset[str]:
        """Which media the model takes: "vision", "audio"."""
        found = self.props().get("modalities")
        return frozenset(name for name, has in found.items() if has is True) if isinstance(found, dict) else frozenset()

    def ask(self, route: str, body: bytes) -> bytes:
        """The whole reply to a POST. Raises what llama.cpp complains of as one of our errors."""
        with contextlib.closing(_UnixConnection(self._path)) as connection:
            try:
                connection.request("POST", route, body, self._headers())
                reply = connection.getresponse()
                data = reply.read()
            except (OSError, http.client.HTTPException) as error:
                raise WorkerCrashed(f"llama-server of {self._reference} went away: {error}") from error
            if reply.status != 200:
                raise _refusal(reply.status, data)
            return data

    def stream(self, route: str, body: bytes, receive: Callable[[str | bytes], bool]) -> None:
        """POST; ``receive`` gets each event's JSON. Hanging up, as True from it does, frees the slot."""
        with contextlib.closing(_UnixConnection(self._path)) as connection:
            try:
                connection.request("POST", route, body, {**self._headers(), "Connection": "close"})
                with connection.getresponse() as reply:
                    if reply.status != 200:
                        raise _refusal(reply.status, reply.read())
                    while line := reply.readline():
                        if line.startswith(b"data: {"):
                            if receive(line[6:]):
                                return
                            if not any(word in line for word in EARLY):
                                connection.pace()
                        elif line.startswith(b"data: [DONE]"):
                            return
                        else:
                            _raise_error_event(line)
                    raise ConnectionError("it hung up in the middle of an answer")
            except (OSError, http.client.HTTPException) as error:
                raise WorkerCrashed(f"llama-server of {self._reference} went away: {error}") from error

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = self._paced = _Paced(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self._path)

    def pace(self) -> None:
        """From now on what comes soon after the last look waits for the next; the end of the answer does not."""
        self._paced.pacing = True


class _Paced(socket.socket):
    pacing = False
    _looked = 0.0

    def recv_into(self, *arguments: Any, **named: Any) -> int:
        if self.pacing and (left := self._looked + PACE - time.monotonic()) > 0:
            hung_up = select.poll()
            hung_up.register(self, getattr(select, "POLLRDHUP", 0))  # data does not end the wait
            hung_up.poll(left * 1000)
        count = super().recv_into(*arguments, **named)
        self._looked = time.monotonic()
        return count


def _refusal(status: int, body: bytes) -> DockyardError:
    return error_of(body) or EngineError(f"llama-server answered {status}: {body[:200]!r}")


def _raise_error_event(line: bytes) -> None:
    """Errors in mid-stream come as ``error: {…}`` in some versions, as a ``data:`` event in others."""
    if line.startswith(b"error: ") and (found := error_of(b'{"error":' + line[7:] + b"}")):
        raise found
