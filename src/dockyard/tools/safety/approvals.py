"""Questions to people, and their answers, each good for one call.

An approval is a file in ``<home>/mcp/approvals`` whose ending says how it stands: ``pending``, ``granted``, ``refused``
or ``used``. It goes from one to the next by renaming, which only one of several processes and threads can do, and which
is there after a restart.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from pathlib import Path
from typing import Literal

import msgspec

from dockyard.errors import Conflict, Forbidden, NotFound, Overloaded
from dockyard.tools.model import Approval, Session, Tool
from dockyard.tools.safety.canonical import digest
from dockyard.types import Json, Principal

MOST_PENDING = 500
"""Questions of one principal that wait at once; a model in a loop must not fill the disk."""

Standing = Literal["pending", "granted", "refused", "used"]


class _Record(msgspec.Struct, frozen=True, kw_only=True):
    """What a call must be, all of it, for this approval to be its."""

    approval: Approval
    profile: str
    server: str
    name: str
    fingerprint: str
    policy: str

    def covers(self, other: _Record) -> bool:
        mine, others = self.approval, other.approval
        return (
            (self.profile, self.server, self.name, self.fingerprint, self.policy)
            == (other.profile, other.server, other.name, other.fingerprint, other.policy)
            and mine.principal == others.principal
            and mine.arguments_digest == others.arguments_digest
            and mine.expires > time.time()
        )


class Approvals:
    """The approvals of one home. ``seconds`` is how long one is good for, question and answer together."""

    def __init__(self, home: Path, seconds: float, policy: str) -> None:
        self._folder = home / "mcp" / "approvals"
        self._seconds = seconds
        self._policy = policy

    def request(self, session: Session, tool: Tool, arguments: Json, shown: Json, reason: str) -> Approval:
        """A question about this call: the one that waits already, if it is the same. ``shown`` are the arguments as the
        person sees them, without secrets. Raises Overloaded.
        """
        self._sweep()
        record = self._record(session, tool, arguments, shown, reason)
        waiting = 0
        for path in self._all("pending"):
            found = _read(path)
            if found is not None and found.covers(record):
                return found.approval
            waiting += found is not None and found.approval.principal == session.principal.name
        if waiting >= MOST_PENDING:
            raise Overloaded(f"{waiting} calls of {session.principal.name!r} wait for approval", retry_after=60)
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._path(record.approval.id, "pending")
        part = path.with_suffix(".part")
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            # Arguments need not be Unicode; this writer escapes them, msgspec's would refuse.
            file.write(json.dumps(msgspec.to_builtins(record)))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        return record.approval

    def known(self, principal: Principal | None = None) -> list[tuple[Approval, Standing]]:
        """Those that have not expired, oldest first; only this principal's unless it may manage."""
        found: list[tuple[Approval, Standing]] = []
        for standing in ("pending", "granted", "refused", "used"):
            for path in self._all(standing):
                record = _read(path)
                if record is not None and _may(principal, record.approval) and record.approval.expires > time.time():
                    found.append((record.approval, standing))
        return sorted(found, key=lambda one: (one[0].expires, one[0].id))

    def grant(self, id: str, principal: Principal, ok: bool) -> Approval:
        """Answer a question: the principal that asked may, and any that may manage.

        Raises NotFound, Forbidden, Conflict.
        """
        path = self._path(id, "pending")
        record = _read(path)
        if record is None or record.approval.expires <= time.time():
            if any(self._path(id, one).exists() for one in ("granted", "refused", "used")):
                raise Conflict(f"approval {id!r} has been answered already", param="approval")
            raise NotFound(f"no approval {id[:80]!r} waits", param="approval", hint="it may have expired: call again")
        if not _may(principal, record.approval):
            raise Forbidden(f"approval {id!r} is another's to answer", param="approval")
        try:
            path.rename(self._path(id, "granted" if ok else "refused"))
        except FileNotFoundError:
            raise Conflict(f"approval {id!r} has been answered already", param="approval") from None
        return record.approval

    def redeem(self, id: str, session: Session, tool: Tool, arguments: Json) -> bool:
        """Whether this call is approved; the approval is used up then. Without an ``id`` any that fits is taken."""
        wanted = self._record(session, tool, arguments, None, "")
        for path in [self._path(id, "granted")] if id else self._all("granted"):
            record = _read(path)
            if record is None or not record.covers(wanted):
                continue
            try:
                path.rename(path.with_suffix(".used"))
            except FileNotFoundError:
                continue  # somebody else was first
            return True
        return False

    def refused(self, session: Session, tool: Tool, arguments: Json) -> bool:
        """Whether a person said no to this very call."""
        wanted = self._record(session, tool, arguments, None, "")
        return any((record := _read(path)) is not None and record.covers(wanted) for path in self._all("refused"))

    def _record(self, session: Session, tool: Tool, arguments: Json, shown: Json, reason: str) -> _Record:
        return _Record(
            approval=Approval(
                id=f"apr_{secrets.token_hex(12)}",
                principal=session.principal.name,
                tool=tool.id,
                arguments_digest=digest(arguments),
                arguments=shown,
                reason=reason,
                expires=time.time() + self._seconds,
            ),
            profile=session.profile,
            server=tool.server,
            name=tool.name,
            fingerprint=tool.fingerprint,
            policy=self._policy,
        )

    def _sweep(self) -> None:
        for standing in ("pending", "granted", "refused", "used"):
            for path in self._all(standing):
                record = _read(path)
                if record is not None and record.approval.expires <= time.time():
                    path.unlink(missing_ok=True)

    def _all(self, standing: str) -> list[Path]:
        return sorted(self._folder.glob(f"apr_*.{standing}"))

    def _path(self, id: str, standing: str) -> Path:
        safe = id if id.startswith("apr_") and id[4:].isalnum() else "apr_none"
        return self._folder / f"{safe}.{standing}"


def _may(principal: Principal | None, approval: Approval) -> bool:
    return principal is None or principal.name == approval.principal or "manage" in principal.scopes


def _read(path: Path) -> _Record | None:
    try:
        return msgspec.convert(json.loads(path.read_bytes()), _Record)
    except FileNotFoundError:
        return None
