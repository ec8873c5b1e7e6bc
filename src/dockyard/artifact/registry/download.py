"""Many blobs over a few connections: in ranges, resumable at any byte, hashed in order while they stream.

The calling thread opens and commits blobs; ``connections`` workers fetch pieces of them in order; each larger blob has
a thread that hashes behind them, and one that writes what comes very fast past the page cache. All overlap because
reading, writing and hashing release the interpreter's lock. Blobs are opened in the order of their digests, so that two
processes that pull the same layers wait for each other and never in a circle.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress

from dockyard.artifact.registry import headers as parse
from dockyard.artifact.registry.flight import FAST, Flight, OnBytes, Wanted, new_block
from dockyard.artifact.registry.ranges import BLOCK
from dockyard.artifact.registry.transport import Interrupted, Response, Transport
from dockyard.artifact.store import Store
from dockyard.errors import Cancelled, DigestMismatch, DockyardError, NotFound, SourceError, TruncatedContent

INLINE = 4 << 20
"""Blobs up to this size are hashed by the worker that fetched them; a thread for each would cost more."""
RAMP = 0.1
"""Seconds after which further connections open, unless the first alone is FAST: more of them would only spread the
processor's caches."""
_LEAST_READ = 64 << 10


def download(
    store: Store, wanted: Sequence[Wanted], transport: Transport, *, connections: int, on_bytes: OnBytes | None = None
) -> None:
    """Bring the blobs into the store. On any failure what has come stays for the next attempt.

    Raises DigestMismatch, TruncatedContent, SourceError, SourceUnreachable, StoreFull, Cancelled, or whatever
    ``on_bytes`` raised. ``transport`` is of no use afterwards if this fails.
    """
    distinct = {each.digest: each for each in wanted if not store.has(each.digest, each.size)}
    if distinct:
        _Download(store, transport, connections, on_bytes or (lambda *_: None)).run(
            [distinct[digest] for digest in sorted(distinct)]
        )


class _Download:
    """The threads of one call of ``download``."""

    def __init__(self, store: Store, transport: Transport, connections: int, on_bytes: OnBytes) -> None:
        self._store = store
        self._connections = max(1, connections)
        self._transport = transport
        self._received = 0
        self._on_bytes = on_bytes
        self._jobs: queue.SimpleQueue[tuple[Flight, int, int] | None] = queue.SimpleQueue()
        self._events: queue.SimpleQueue[tuple[Flight | None, BaseException | None]] = queue.SimpleQueue()
        self._open: dict[str, Flight] = {}
        self._threads: list[threading.Thread] = []

    def run(self, wanted: Sequence[Wanted]) -> None:
        waiting = deque(wanted)
        try:
            for rank in range(min(self._connections, sum(1 + each.size // BLOCK for each in wanted))):
                self._spawn(self._work if rank == 0 else self._join)
            while waiting or self._open:
                while waiting and len(self._open) <= self._connections:
                    self._begin(waiting.popleft(), fresh=False)
                if self._open:
                    blob, error = self._events.get()
                    if error is not None:
                        raise error
                    if blob is not None:
                        self._finish(blob)
        except BaseException:
            self._transport.abort()
            for blob in self._open.values():
                blob.stop()
            raise
        finally:
            for _ in self._threads:
                self._jobs.put(None)
            for thread in self._threads:
                thread.join()
            for blob in self._open.values():
                blob.retire()
                blob.closing.close()

    def _begin(self, wanted: Wanted, *, fresh: bool) -> None:
        with ExitStack() as stack:
            partial = stack.enter_context(self._store.partial(wanted.digest, wanted.size, resume=not fresh))
            if partial.complete or not wanted.size:
                partial.commit()
                self._on_bytes(wanted.digest, wanted.size, wanted.size)
                return
            blob = Flight(wanted, partial, self._on_bytes)
            blob.closing = stack.pop_all()
        self._open[wanted.digest] = blob
        if blob.resumed:
            self._on_bytes(wanted.digest, blob.current, wanted.size)
        jobs = blob.jobs(self._connections)
        blob.inline = wanted.size <= INLINE and len(jobs) == 1
        if not blob.inline:
            self._spawn(lambda: self._hash(blob))
            self._spawn(lambda: self._write_behind(blob))
        for start, end in jobs:
            self._jobs.put((blob, start, end))

    def _finish(self, blob: Flight) -> None:
        blob.retire()
        if blob.failure is not None:
            raise blob.failure
        spoiled = blob.computed != blob.wanted.digest and blob.resumed
        del self._open[blob.wanted.digest]
        with blob.closing:
            if not spoiled:
                blob.partial.commit(computed=blob.computed)
        if spoiled:  # what an earlier attempt left is not right: once more, from the first byte
            self._begin(blob.wanted, fresh=True)

    def _spawn(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name="dockyard-download", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _count(self, count: int) -> None:
        self._received += count  # a guess for _join; a lost update does not matter

    def _hash(self, blob: Flight) -> None:
        if not blob.enter():
            return
        error: BaseException | None = None
        try:
            blob.hash()
        except BaseException as caught:  # noqa: BLE001 (the calling thread raises it)
            error = caught
        finally:
            blob.leave()
        if error is not None or blob.computed is not None:
            self._events.put((blob, error))

    def _write_behind(self, blob: Flight) -> None:
        if not blob.enter():
            return
        try:
            blob.write_behind()
        except BaseException as error:  # noqa: BLE001 (the calling thread raises it)
            blob.failure = error
            self._events.put((blob, error))
        finally:
            blob.leave()

    def _join(self) -> None:
        """A further connection's worker; see RAMP."""
        with suppress(Cancelled):
            self._transport.sleep(RAMP)
            if self._received < FAST * RAMP:
                self._work()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            blob, start, end = job
            if not blob.enter():
                continue
            try:
                _Piece(blob, start, end, self._transport, self._count).fetch()
                if blob.inline:
                    blob.hash()
            except BaseException as error:  # noqa: BLE001 (the calling thread raises it)
                self._events.put((blob, error))
            else:
                if blob.inline and blob.computed is not None:
                    self._events.put((blob, None))
            finally:
                blob.leave()


class _Piece:
    """One range of a blob, with its retries."""

    def __init__(
        self, blob: Flight, start: int, end: int, transport: Transport, received: Callable[[int], None]
    ) -> None:
        self._blob = blob
        self._block = new_block() if blob.wanted.size >= BLOCK else memoryview(bytearray(blob.wanted.size))
        self._received = received
        self._at = start
        self._end = end
        self._mine = False
        self._transport = transport

    def fetch(self) -> None:
        """Bring it in, or return early where another worker streams the whole blob."""
        failures = 0
        size = self._blob.wanted.size
        while self._at < self._end and not self._blob.stopped and (self._mine or not self._blob.whole):
            before = self._at
            try:
                self._request(size)
            except Interrupted as error:
                failures = 1 if self._at > before else failures + 1
                if failures >= self._transport.policy.attempts:
                    raise TruncatedContent(
                        f"{self._blob.wanted.where} was cut short {failures} times at byte {self._at} of {size}",
                        hint="pull again: it goes on there",
                    ) from error
                self._transport.sleep(self._transport.policy.wait(failures))

    def _request(self, size: int) -> None:
        ranged = (self._at, self._end) != (0, size)
        asked = {"Range": f"bytes={self._at}-{self._end - 1}"} if ranged else {}
        with self._blob.wanted.open(asked) as reply:
            if reply.status == 206:
                self._pump(reply, self._partial(reply, size))
            elif reply.status == 200:
                self._whole(reply, size)
            else:
                raise refusal(reply, self._blob.wanted)

    def _partial(self, reply: Response, size: int) -> int:
        found = parse.content_range(reply.headers.get("Content-Range"))
        where = self._blob.wanted.where
        if found is None or found.first != self._at or found.last >= self._end:
            raise SourceError(
                f"{where}: asked for bytes {self._at} to {self._end - 1}, "
                f"the answer says {reply.headers.get('Content-Range')!r}"
            )
        if found.total is not None and found.total != size:
            raise DigestMismatch(f"{where} has {found.total} bytes where the manifest says {size}")
        return found.last + 1

    def _whole(self, reply: Response, size: int) -> None:
        """The server sends everything, asked or not: take it from the first byte, in one worker."""
        where = self._blob.wanted.where
        length = reply.headers.get("Content-Length")
        if length is not None and length.isdigit() and int(length) != size:
            kind = TruncatedContent if int(length) < size else DigestMismatch
            raise kind(f"{where} has {length} bytes where the manifest says {size}")
        if not self._mine and (self._at, self._end) != (0, size) and not self._blob.claim_whole():
            return
        self._mine, self._at, self._end = True, 0, size
        self._pump(reply, size)
        if reply.readinto(memoryview(bytearray(1))):
            raise DigestMismatch(f"{where} is longer than the {size} bytes that the manifest says")

    def _pump(self, reply: Response, end: int) -> None:
        """Take what comes, up to byte ``end``, and write it block by block; raises Interrupted where it ends before."""
        blob, step = self._blob, _LEAST_READ
        while self._at < end and not blob.stopped:
            base = self._at // BLOCK * BLOCK
            full_at = min(base + BLOCK, self._end)
            want = min(step, min(full_at, end) - self._at)
            count = reply.readinto(self._block[self._at - base : self._at - base + want])
            if not count:
                raise Interrupted(f"{blob.wanted.where} ended at byte {self._at} of {end}")
            self._at += count
            if self._at == full_at:
                self._block = blob.write(self._block[: full_at - base], base)
            step = min(BLOCK, step * 2) if count == want else step
            self._received(count)
            blob.report(count)
        self._transport.check()


def refusal(reply: Response, wanted: Wanted) -> DockyardError:
    """The error for a reply that holds no blob."""
    if reply.status in (404, 410):
        return NotFound(f"{wanted.where} is not there ({reply.status})", hint="it may have been deleted since")
    if reply.status == 416:
        return TruncatedContent(f"{wanted.where} is shorter than the {wanted.size} bytes that the manifest says")
    if reply.status == 499:
        return Cancelled("stopped")
    return SourceError(f"{wanted.where}: the server answered {reply.status}")
