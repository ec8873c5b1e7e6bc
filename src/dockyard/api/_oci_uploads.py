"""Uploads to the hub: a file in the store's ``incoming`` for each session, hashed while it grows.

A session lives in its file, so it survives a restart of the server; what it loses then is only the running hash, and
the file is read once more at the end. Bodies go to disk in pieces of a few MiB however long they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from dockyard.api._oci_wire import Ask, OciError
from dockyard.artifact import digest as digests
from dockyard.artifact.partial import full
from dockyard.artifact.store import Store

PIECE = 2 << 20
"""Bytes gathered before they are written and hashed in a thread."""
ROOM_STEP = 64 << 20
"""Bytes of a body of unknown length between two looks at the quota."""
ABANDONED = 24 * 3600.0
"""Seconds after its last byte at which an unfinished upload is removed."""
SWEEP_EVERY = 600.0

_ID = re.compile(r"[0-9a-f]{32}")
_RANGE = re.compile(r"(?:bytes[ =])?(\d{1,19})-(\d{1,19})(?:/(?:\d{1,19}|\*))?", re.ASCII)


class Upload:
    """One session. ``offset`` is how many bytes are safely in the file; only one request may write at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = path.stat().st_size
        self.busy = False
        self._hash = digests.hasher() if self.offset == 0 else None

    def whole(self) -> bool:
        """Whether the file is as long as we think; a full disk or a cancelled request may have left it otherwise."""
        try:
            return self.path.stat().st_size == self.offset
        except FileNotFoundError:
            return True

    async def extend(self, ask: Ask, store: Store) -> None:
        """Append a request's body. What came before a client went away stays, to be resumed at ``offset``."""
        first = self.offset
        file = self.path.open("ab")
        try:
            async for piece in _pieces(ask):
                if ask.length is None and (self.offset - first) % ROOM_STEP < PIECE:
                    await asyncio.to_thread(store.check_room, self.offset + len(piece), here=self.offset)
                await asyncio.to_thread(self._append, file, piece)
        finally:
            file.close()
        if ask.length is not None and self.offset - first != ask.length:
            raise OciError(400, "SIZE_INVALID", f"{self.offset - first} bytes came of {ask.length} promised")

    def _append(self, file: BinaryIO, piece: bytes) -> None:
        try:
            file.write(piece)
            file.flush()
        except OSError as error:
            raise full(error, self.path) from error
        if self._hash is not None:
            self._hash.update(piece)
        self.offset += len(piece)

    def digest(self, algorithm: str) -> str:
        """The digest of all that came; reads the file where the running hash does not cover it."""
        if self._hash is not None and algorithm == "sha256":
            return f"sha256:{self._hash.hexdigest()}"
        return digests.of_file(self.path, algorithm)


class Uploads:
    """The sessions of one store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._live: dict[str, Upload] = {}
        self._swept = float("-inf")

    async def begin(self) -> str:
        """A new session's id. Now and then, abandoned sessions are removed on the way."""
        if time.monotonic() - self._swept > SWEEP_EVERY:
            self._swept = time.monotonic()
            await asyncio.to_thread(self.sweep)
        name = uuid.uuid4().hex
        self._path(name).touch()
        self._live[name] = Upload(self._path(name))
        return name

    def find(self, name: str) -> Upload:
        """The session of this id. Raises BLOB_UPLOAD_UNKNOWN."""
        upload = self._live.get(name)
        if upload is not None and not upload.busy and not upload.whole():
            upload = None
        if upload is None and _ID.fullmatch(name):
            with contextlib.suppress(FileNotFoundError):
                upload = self._live[name] = Upload(self._path(name))
        if upload is None or not upload.path.exists():
            self._live.pop(name, None)
            raise OciError(404, "BLOB_UPLOAD_UNKNOWN", f"there is no upload {name!r}", {"upload": name})
        return upload

    @contextlib.asynccontextmanager
    async def hold(self, name: str) -> AsyncIterator[Upload]:
        """The session for one request alone. Raises 409 while another one writes to it."""
        upload = self.find(name)
        if upload.busy:
            raise OciError(409, "BLOB_UPLOAD_INVALID", f"upload {name!r} is being written to by another request")
        upload.busy = True
        try:
            yield upload
        finally:
            upload.busy = False

    async def extend(self, upload: Upload, ask: Ask) -> None:
        """Append a request's body where its ``Content-Range`` says it belongs; 416 where that is elsewhere."""
        said = ask.headers.get("content-range")
        if said is not None:
            found = _RANGE.fullmatch(said.strip())
            if found is None or int(found[2]) < int(found[1]):
                raise OciError(416, "BLOB_UPLOAD_INVALID", f"Content-Range {said!r} is malformed", range=held(upload))
            if int(found[1]) != upload.offset:
                told = f"the upload holds {upload.offset} bytes, Content-Range begins at {found[1]}"
                raise OciError(416, "BLOB_UPLOAD_INVALID", told, range=held(upload))
            if ask.length is not None and ask.length != int(found[2]) - int(found[1]) + 1:
                raise OciError(400, "SIZE_INVALID", f"Content-Range {said!r} does not fit {ask.length} bytes")
        if ask.length:
            await asyncio.to_thread(self.store.check_room, upload.offset + ask.length, here=upload.offset)
        await upload.extend(ask, self.store)

    async def finish(self, name: str, upload: Upload, digest: str) -> None:
        """Make the session's bytes the blob ``digest``. Raises DIGEST_INVALID, and the session is gone then."""
        algorithm, _ = digests.split(digest)
        found = await asyncio.to_thread(upload.digest, algorithm)
        if found != digest:
            self.cancel(name)
            told = f"what was sent has the digest {found}, not {digest}"
            raise OciError(400, "DIGEST_INVALID", told, {"digest": digest, "found": found})
        await asyncio.to_thread(self._place, upload, digest)
        self._live.pop(name, None)

    def cancel(self, name: str) -> None:
        """Forget a session and its bytes."""
        self._live.pop(name, None)
        self._path(name).unlink(missing_ok=True)

    def sweep(self, older_than: float = ABANDONED) -> int:
        """Remove sessions that nobody wrote to for so many seconds; returns how many."""
        count = 0
        for path in self.store.incoming.glob("upload-*"):
            name = path.name.removeprefix("upload-")
            live = self._live.get(name)
            with contextlib.suppress(FileNotFoundError):
                if (live is None or not live.busy) and time.time() - path.stat().st_mtime > older_than:
                    self.cancel(name)
                    count += 1
        return count

    def _place(self, upload: Upload, digest: str) -> None:
        with self.store.partial(digest, resume=False) as blob:
            if blob.complete:
                upload.path.unlink(missing_ok=True)
                return
            upload.path.replace(blob.path)
            blob.commit(computed=digest)

    def _path(self, name: str) -> Path:
        return self.store.incoming / f"upload-{name}"


def held(upload: Upload) -> str:
    """A session's ``Range`` header: the bytes that it holds, the last one included."""
    return f"0-{max(0, upload.offset - 1)}"


async def _pieces(ask: Ask) -> AsyncIterator[bytes]:
    """The body in larger pieces; where the client goes away, what came before is still handed on."""
    waiting = bytearray()
    try:
        async for part in ask.body():
            waiting += part
            if len(waiting) >= PIECE:
                yield bytes(waiting)
                waiting.clear()
    except (ConnectionResetError, OciError):
        if waiting:
            yield bytes(waiting)
        raise
    if waiting:
        yield bytes(waiting)
