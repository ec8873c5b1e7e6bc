"""The process that one isolated engine lives in: ``python -m dockyard.engines.worker FD PARENT_PID ENGINE``.

FD is one end of a socket pair to the gateway; output and errors, those of native code too, go to the log file that the
process was started with. ENGINE, where it is not empty, is imported while the first order is still on its way.
It ends when it is told to, when the socket closes, or when its parent dies: never later.

    main thread       loads the model and, at the end, closes it (children it spawns die with this thread)
    reader            takes frames from the socket; admits requests while slots are free, else keeps them in order
    a thread for each request that runs
    heartbeat         sends a sign of life with the resident size, and keeps the log file short
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections import deque
from pathlib import Path
from typing import cast

from dockyard.engines import Emit, IsolatedEngine, LoadPlan, create
from dockyard.engines._process import die_first, die_with_parent, resident, rotate_output, send_output
from dockyard.engines.frames import (
    Cancel,
    Failed,
    Failure,
    Generate,
    Heartbeat,
    Load,
    Ready,
    Step,
    Stop,
    ToGateway,
    ToWorker,
    encode,
    worker_frames,
)
from dockyard.errors import DockyardError, EngineError, LoadFailed, Overloaded
from dockyard.types import Chunk

CLOSE_SECONDS = 5.0
"""How long an engine may take to free its model before the process just ends."""


HOLD = 0.02
"""Seconds between two frames of answers that are under way. Each frame wakes the gateway and the client, which on a
machine whose every core computes delays the next token by what they take; of tokens that come faster, several go
together."""


class Outbox:
    """The one writer to the gateway. Whoever finds it idle writes; what arrives meanwhile goes into the next frame, and
    so does what arrives within ``HOLD`` seconds of the last one, unless an answer begins or ends with it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._begun: set[int] = set()
        self._wrote = 0.0
        self._held = threading.Event()
        self._pacing = False
        self._chunks: list[tuple[int, Chunk]] = []
        self._ended: list[tuple[int, Failure | None]] = []
        self._state = threading.Lock()
        self._writing = threading.Lock()

    def chunk(self, stream: int, chunk: Chunk) -> None:
        with self._state:
            self._chunks.append((stream, chunk))
        if stream in self._begun and (self._pacing or time.monotonic() - self._wrote < HOLD):
            if not self._pacing:
                self._pacing = True
                self._held.set()
            return
        self._begun.add(stream)
        self._flush()

    def end(self, stream: int, failure: Failure | None) -> None:
        with self._state:
            self._ended.append((stream, failure))
        self._begun.discard(stream)
        self._flush()

    def pace(self) -> None:
        """Send what was held back, as long as something is, and then wait until something is again; never returns."""
        while True:
            self._held.wait()
            self._held.clear()
            while self._pacing:
                while (left := self._wrote + HOLD - time.monotonic()) > 0:
                    time.sleep(left)
                self._pacing = bool(self._chunks)
                self._flush()

    def send(self, message: ToGateway) -> None:
        """Send a message of its own, behind everything that is under way."""
        with self._writing:
            self._write(message)
        self._flush()

    def _flush(self) -> None:
        while (self._chunks or self._ended) and self._writing.acquire(blocking=False):
            try:
                with self._state:
                    step = Step(self._chunks, self._ended)
                    self._chunks, self._ended = [], []
                if step.chunks or step.ended:
                    self._wrote = time.monotonic()
                    self._write(step)
            finally:
                self._writing.release()

    def _write(self, message: ToGateway) -> None:
        try:
            self._connection.sendall(encode(message))
        except OSError:
            os._exit(0)  # the gateway is gone, and nobody else wants this model


class Job:
    """One request in the worker. ``slots`` is what it takes of the model's parallelism."""

    def __init__(self, message: Generate, parallel: int) -> None:
        self.stream = message.stream
        self.request = message.request
        self.slots = max(1, min(message.request.sampling.n, parallel))
        self.cancelled = False
        self.unloaded = False
        """It was cancelled since the model is being unloaded, not by whoever asked: they are told."""


class Jobs:
    """Runs requests on an engine, first come first served, never more at once than it decodes together."""

    def __init__(self, engine: IsolatedEngine, parallel: int, outbox: Outbox) -> None:
        self._engine = engine
        self._parallel = parallel
        self._free = parallel
        self._outbox = outbox
        self._lock = threading.Lock()
        self._waiting: deque[Job] = deque()
        self._open: dict[int, Job] = {}

    @property
    def active(self) -> int:
        return len(self._open)

    def add(self, message: Generate) -> None:
        job = Job(message, self._parallel)
        with self._lock:
            self._open[job.stream] = job
            self._waiting.append(job)
        self._admit()

    def cancel(self, stream: int) -> None:
        with self._lock:
            job = self._open.get(stream)
            if job is None:
                return
            job.cancelled = True
            if job in self._waiting:
                self._waiting.remove(job)
                del self._open[stream]
        self._admit()

    def unload(self) -> None:
        """Cancel what is still open. Those who wait for it are told, or see the socket close."""
        for stream, job in list(self._open.items()):
            job.unloaded = True
            self.cancel(stream)

    def _admit(self) -> None:
        """Start waiting jobs in order; one that needs several slots is not overtaken for ever."""
        with self._lock:
            while self._waiting and self._waiting[0].slots <= self._free:
                job = self._waiting.popleft()
                self._free -= job.slots
                threading.Thread(target=self._run, args=(job,), name=f"request {job.stream}", daemon=True).start()

    def _run(self, job: Job) -> None:
        failure = None
        try:
            self._engine.generate(job.request, self._emit(job))
        except DockyardError as error:
            failure = Failure.of(error)
        except Exception as error:  # noqa: BLE001 - an engine's bug must end one request, not the model
            traceback.print_exc()
            failure = Failure.of(EngineError(f"{type(error).__name__}: {error}", hint="the worker's log has details"))
        if job.unloaded:
            failure = Failure.of(Overloaded("the model was unloaded in the middle of the answer", retry_after=1.0))
        with self._lock:
            del self._open[job.stream]
            self._free += job.slots
        self._outbox.end(job.stream, failure)
        self._admit()

    def _emit(self, job: Job) -> Emit:
        stream, put = job.stream, self._outbox.chunk

        def emit(chunk: Chunk | None) -> bool:
            if chunk is not None and not job.cancelled:
                put(stream, chunk)
            return job.cancelled

        return emit


class Worker:
    """Ties socket, engine and jobs together; ``run`` returns when the process should exit."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._outbox = Outbox(connection)
        self._jobs: Jobs | None = None
        self._orders: queue.SimpleQueue[Load | None] = queue.SimpleQueue()
        self._stopping = threading.Event()

    def run(self, ahead: str = "") -> int:
        """The exit status. ``ahead`` names the engine to expect."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: self._orders.put(None))
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        if ahead:
            _import_ahead(ahead)
        order = self._orders.get()
        if order is None:
            return 0
        if order.log:
            send_output(Path(order.log))
        threading.Thread(target=self._beat, args=(order.heartbeat,), name="heartbeat", daemon=True).start()
        threading.Thread(target=self._outbox.pace, name="pacer", daemon=True).start()
        engine = cast("IsolatedEngine", create(order.plan.engine))
        plan = self._load(engine, order)
        if plan is not None:
            self._jobs = Jobs(engine, plan.parallel, self._outbox)
            self._outbox.send(Ready(plan, resident(os.getpid())))
            while self._orders.get() is not None:
                pass
            self._jobs.unload()
        self._stopping.set()
        threading.Timer(CLOSE_SECONDS, os._exit, (0,)).start()
        engine.close()
        return 0 if plan is not None else 1

    def _load(self, engine: IsolatedEngine, order: Load) -> LoadPlan | None:
        try:
            return engine.load(order.files, order.plan)
        except DockyardError as error:
            failure = Failure.of(error)
        except Exception as error:  # noqa: BLE001 - whatever native code throws becomes the reason of a failed load
            traceback.print_exc()
            failure = Failure.of(LoadFailed(f"{order.files.reference}: {type(error).__name__}: {error}"))
        self._outbox.send(Failed(failure))
        return None

    def _read(self) -> None:
        status = 1
        try:
            frames = worker_frames()
            while data := self._receive():
                for message in frames.feed(data):
                    self._obey(message)
            status = 0
        except Exception:  # noqa: BLE001 - a worker that hears nothing any more must not live on
            traceback.print_exc()
        os._exit(status)  # the gateway is gone; waiting for native code to wind down could leave an orphan

    def _obey(self, message: ToWorker) -> None:
        if isinstance(message, Load):
            self._orders.put(message)
        elif isinstance(message, Stop):
            self._orders.put(None)
        elif self._jobs is not None and isinstance(message, Generate):
            self._jobs.add(message)
        elif self._jobs is not None and isinstance(message, Cancel):
            self._jobs.cancel(message.stream)

    def _receive(self) -> bytes:
        try:
            return self._connection.recv(1 << 16)
        except OSError:
            return b""

    def _beat(self, interval: float) -> None:
        while not self._stopping.wait(interval):
            jobs = self._jobs
            self._outbox.send(Heartbeat(resident(os.getpid()), jobs.active if jobs else 0))
            rotate_output()


def _import_ahead(name: str) -> None:
    with contextlib.suppress(DockyardError):  # it may not be the one after all; ``load`` tells what is wrong
        ahead = getattr(create(name), "ahead", None)
        if ahead is not None:
            ahead()


def main(arguments: list[str]) -> int:
    descriptor, parent, engine = int(arguments[0]), int(arguments[1]), arguments[2]
    die_with_parent(parent)
    die_first()
    os.set_inheritable(descriptor, False)
    with socket.socket(fileno=descriptor) as connection:
        status = Worker(connection).run(engine)
        sys.stdout.flush()
        os._exit(status)  # interpreter shutdown would wait for threads that are inside native code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
