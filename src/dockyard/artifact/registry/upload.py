"""Bring one blob to a registry: skip it if it is there, mount it from a neighbour, else send it, in chunks if large.

A session that breaks goes on where the registry says it stands. With a ``ticket`` (a small file) that also holds for
the next process, after this one was killed.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING
from urllib.parse import urljoin

import msgspec

from dockyard.artifact.registry import headers as parse
from dockyard.artifact.registry.client import Registry, push_scope, with_query
from dockyard.artifact.registry.transport import RETRIED, Response
from dockyard.errors import DigestMismatch, DockyardError, SourceError, SourceUnreachable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK = 64 << 20
"""Bytes in one PATCH; blobs up to this size go in a single PUT."""

OnBytes = Callable[[str, int, int], None]


class Ticket(msgspec.Struct, frozen=True):
    """What the next process needs to go on with an upload."""

    digest: str
    location: str


class Blob(msgspec.Struct, frozen=True, kw_only=True):
    """What to send: a file in the store, its digest and its size."""

    path: Path
    digest: str
    size: int


def upload(
    registry: Registry,
    repository: str,
    blob: Blob,
    *,
    mount_from: Iterable[str] = (),
    ticket: Path | None = None,
    chunk: int = CHUNK,
    on_bytes: OnBytes | None = None,
) -> str:
    """Returns how it got there: "exists", "mounted" or "sent". Raises SourceError or SourceUnreachable."""
    report = on_bytes or (lambda *_: None)
    scope = push_scope(repository)
    if registry.blob_size(repository, blob.digest, scope=scope) is not None:
        report(blob.digest, blob.size, blob.size)
        return "exists"
    session = _Session(registry, repository, blob, chunk, report, ticket)
    if not session.resume() and session.begin(mount_from) == "mounted":
        report(blob.digest, blob.size, blob.size)
        return "mounted"
    session.send()
    return "sent"


class _Session:
    """One upload session: where it is to be continued, and how much the registry has."""

    def __init__(
        self, registry: Registry, repository: str, blob: Blob, chunk: int, report: OnBytes, ticket: Path | None
    ) -> None:
        self._registry = registry
        self._repository = repository
        self._blob = blob
        self._chunk = chunk
        self._report = report
        self._ticket = ticket
        self._scope = push_scope(repository)
        self._what = f"blob {blob.digest} to {registry.host}/{repository}"
        self._location = ""
        self._offset = 0

    def begin(self, mount_from: Iterable[str] = ()) -> str:
        """Open a session, or mount the blob from the first neighbour that has it: "mounted" or "open"."""
        for neighbour in mount_from:
            query = {"mount": self._blob.digest, "from": neighbour}
            scope = f"{self._scope} repository:{neighbour}:pull"
            with contextlib.suppress(SourceError), self._post(with_query(self._uploads(), **query), scope) as reply:
                if reply.status == 201:
                    return "mounted"
                if reply.status == 202:
                    self._opened(reply)
                    return "open"
        with self._post(self._uploads(), self._scope) as reply:
            if reply.status != 202:
                raise self._registry.failure(reply, self._what)
            self._opened(reply)
        return "open"

    def resume(self) -> bool:
        """Take up the session that an earlier process left, if the registry still knows it."""
        if self._ticket is None:
            return False
        try:
            left = msgspec.json.decode(self._ticket.read_bytes(), type=Ticket)
        except (OSError, msgspec.DecodeError):
            return False
        if left.digest != self._blob.digest or not left.location.startswith(self._registry.base):
            return False
        self._location = left.location
        return self._ask()

    def send(self) -> None:
        """All that is missing, over as many attempts as the policy allows; progress renews them."""
        transport = self._registry.transport
        failures = 0
        self._report(self._blob.digest, self._offset, self._blob.size)
        while True:
            before = self._offset
            try:
                if self._attempt():
                    if self._ticket is not None:
                        self._ticket.unlink(missing_ok=True)
                    return
            except SourceUnreachable:
                if failures + 1 >= transport.policy.attempts:
                    raise
            else:
                if failures + 1 >= transport.policy.attempts:
                    raise SourceError(f"{self._what}: the registry broke off {failures + 1} times")
            transport.sleep(transport.policy.wait(failures + 1))
            if not self._ask():
                self.begin()
            failures = 0 if self._offset > before else failures + 1

    def _attempt(self) -> bool:
        """Send from the offset to the end. False for a failure that is worth another try."""
        single = self._offset == 0 and self._blob.size <= self._chunk
        while not single and self._offset < self._blob.size:
            end = min(self._blob.size, self._offset + self._chunk)
            with self._request("PATCH", self._location, self._offset, end, ranged=True) as reply:
                if reply.status in RETRIED:
                    return False
                if reply.status in (404, 405, 411, 415, 501) or (reply.status in (400, 416) and self._offset == 0):
                    single = True  # a registry that takes no chunks: all at once, in a session of its own
                    self.begin()
                elif reply.status not in (201, 202, 204):
                    raise self._failed(reply)
                else:
                    self._moved(reply, end)
        start = 0 if single else self._blob.size
        final = with_query(self._location, digest=self._blob.digest)
        with self._request("PUT", final, start, self._blob.size, ranged=False) as reply:
            if reply.status in RETRIED:
                return False
            if reply.status not in (200, 201, 202, 204):
                raise self._failed(reply)
        self._report(self._blob.digest, self._blob.size, self._blob.size)
        return True

    def _request(self, method: str, url: str, start: int, end: int, *, ranged: bool) -> Response:
        sent = {"Content-Type": "application/octet-stream", "Content-Length": str(end - start)}
        if ranged:
            sent["Content-Range"] = f"{start}-{end - 1}"
        body = (lambda: self._part(start, end)) if end > start else b""
        return self._registry.send(method, url, scope=self._scope, headers=sent, body=body, retry=False)

    def _part(self, start: int, end: int) -> IO[bytes]:
        transport = self._registry.transport

        def seen(at: int) -> None:
            transport.check()
            self._report(self._blob.digest, at, self._blob.size)

        return io.BufferedReader(_Part(self._blob.path, start, end, seen), buffer_size=1 << 20)

    def _ask(self) -> bool:
        """Learn from the registry how much it has; False if the session is gone."""
        try:
            with self._registry.send("GET", self._location, scope=self._scope) as reply:
                if reply.status not in (200, 202, 204):
                    return False
                held = parse.uploaded(reply.headers.get("Range"))
                self._opened(reply)
        except SourceUnreachable:
            raise
        except DockyardError:
            return False
        if held is None or held > self._blob.size:
            return False
        self._offset = held
        return True

    def _opened(self, reply: Response) -> None:
        location = reply.headers.get("Location")
        if location:
            self._location = urljoin(reply.url, location)
        if not self._location:
            raise SourceError(f"{self._what}: the registry opened an upload without saying where")
        self._offset = 0
        least = reply.headers.get("OCI-Chunk-Min-Length") or ""
        if least.isdigit():
            self._chunk = max(self._chunk, min(int(least), 1 << 30))
        if self._ticket is not None:
            self._ticket.parent.mkdir(parents=True, exist_ok=True)
            self._ticket.write_bytes(msgspec.json.encode(Ticket(self._blob.digest, self._location)))
            self._ticket.chmod(0o600)

    def _moved(self, reply: Response, end: int) -> None:
        """After a chunk: the registry's word on where it stands counts."""
        held = parse.uploaded(reply.headers.get("Range"))
        self._opened(reply)
        self._offset = held if held is not None and held <= end and held else end

    def _post(self, url: str, scope: str) -> Response:
        return self._registry.send("POST", url, scope=scope, headers={"Content-Length": "0"}, body=b"")

    def _uploads(self) -> str:
        return f"{self._repository}/blobs/uploads/"

    def _failed(self, reply: Response) -> DockyardError:
        failure = self._registry.failure(reply, self._what)
        if "DIGEST_INVALID" in failure.message:
            return DigestMismatch(failure.message, hint="`dockyard df --check` finds blobs that are corrupt on disk")
        return failure


class _Part(io.RawIOBase):
    """A window of a file that tells how far it was read."""

    def __init__(self, path: Path, start: int, end: int, seen: Callable[[int], None]) -> None:
        self._file = path.open("rb", buffering=0)
        self._file.seek(start)
        self._at = start
        self._end = end
        self._seen = seen

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer)[: self._end - self._at]
        count = self._file.readinto(view) if len(view) else 0
        self._at += count
        self._seen(self._at)
        return count

    def close(self) -> None:
        self._file.close()
        super().close()
