"""What gateway and worker say to each other: msgpack structs behind a four-byte big-endian length.

Gateway to worker: ``Load`` once, then ``Generate`` and ``Cancel`` in any order, ``Stop`` at the end.
Worker to gateway: ``Ready`` or ``Failed`` once, then ``Step`` and ``Heartbeat``. A ``Step`` carries everything that was
ready when it was written, so all tokens of one scheduler step share a frame and none waits for another.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from dockyard.engines import LoadPlan
from dockyard.errors import DockyardError, EngineError, by_code
from dockyard.types import Chunk, ModelFiles, Request

MAX_FRAME = 64 << 20
"""Longest payload in bytes that is accepted; a longer one means that the peer is broken."""

HEADER = 4


class Failure(msgspec.Struct, frozen=True, omit_defaults=True):
    """An error on its way between processes: ``raise_from(encode(e))`` has the class, text and hint of ``e``."""

    code: str
    message: str
    hint: str | None = None
    param: str | None = None
    retry_after: float | None = None

    @classmethod
    def of(cls, error: DockyardError) -> Failure:
        return cls(error.code, error.message, error.hint, error.param, error.retry_after)

    def error(self) -> DockyardError:
        return by_code(self.code)(self.message, hint=self.hint, param=self.param, retry_after=self.retry_after)


class Load(msgspec.Struct, frozen=True, tag="load"):
    """Load these files with the engine that the plan names; from now on a heartbeat every ``heartbeat`` seconds.

    ``log`` is where a worker that was started ahead of the need sends its output from now on; empty: where it goes.
    """

    files: ModelFiles
    plan: LoadPlan
    heartbeat: float
    log: str = ""


class Generate(msgspec.Struct, frozen=True, tag="generate"):
    stream: int
    request: Request


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    stream: int


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """End now: cancel what is open, free the model, exit with status 0."""


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    plan: LoadPlan
    rss: int


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The load did not work; the worker exits after this."""

    failure: Failure


class Step(msgspec.Struct, frozen=True, tag="step", omit_defaults=True):
    """Chunks by stream, in order; then the streams that are complete, with what went wrong or None."""

    chunks: list[tuple[int, Chunk]] = []
    ended: list[tuple[int, Failure | None]] = []


class Heartbeat(msgspec.Struct, frozen=True, tag="heartbeat"):
    """Sign of life: resident bytes of the worker and its children, and the streams it is working on."""

    rss: int
    active: int


ToWorker = Load | Generate | Cancel | Stop
ToGateway = Ready | Failed | Step | Heartbeat

_encoder = msgspec.msgpack.Encoder()
T = TypeVar("T")


def encode(message: ToWorker | ToGateway) -> bytearray:
    """One frame. Raises EngineError if the message is longer than a frame may be."""
    frame = bytearray(HEADER)
    _encoder.encode_into(message, frame, HEADER)
    length = len(frame) - HEADER
    if length > MAX_FRAME:
        raise EngineError(f"a message to or from a worker takes {length} bytes; the limit is {MAX_FRAME}")
    frame[:HEADER] = length.to_bytes(HEADER, "big")
    return frame


class Frames(Generic[T]):
    """Puts frames together from bytes that arrive in any portions. One direction of one connection."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[T]) -> None:
        self._decoder = decoder
        self._rest = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> list[T]:
        """The messages that ``data`` completes. Raises EngineError on bytes that are no frames."""
        if not self._rest and len(data) == HEADER + int.from_bytes(data[:HEADER], "big"):
            return [self._decoded(data[HEADER:])]  # one whole frame, as nearly always
        self._rest += data
        found: list[T] = []
        start = 0
        with memoryview(self._rest) as view:
            while len(view) - start >= HEADER:
                length = int.from_bytes(view[start : start + HEADER], "big")
                if length > MAX_FRAME:
                    raise EngineError(f"a frame of {length} bytes was announced; the limit is {MAX_FRAME}")
                end = start + HEADER + length
                if end > len(view):
                    break
                found.append(self._decoded(view[start + HEADER : end]))
                start = end
        del self._rest[:start]
        return found

    def _decoded(self, frame: bytes | bytearray | memoryview) -> T:
        try:
            return self._decoder.decode(frame)
        except msgspec.DecodeError as error:
            raise EngineError(f"a frame can't be read: {error}") from error


def gateway_frames() -> Frames[ToGateway]:
    """Reads what a worker sends."""
    return Frames(msgspec.msgpack.Decoder(ToGateway))


def worker_frames() -> Frames[ToWorker]:
    """Reads what the gateway sends."""
    return Frames(msgspec.msgpack.Decoder(ToWorker))
