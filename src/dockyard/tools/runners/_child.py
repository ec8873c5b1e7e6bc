"""A command that speaks MCP on its pipes, from its start to the end of everything it begot."""

from __future__ import annotations

import asyncio
import contextlib
import os
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from dockyard.errors import EngineUnavailable
from dockyard.tools.model import ToolFailed
from dockyard.tools.runners._log import ServerLog

if TYPE_CHECKING:
    from dockyard.tools.sdk import Transport

_T = TypeVar("_T")

GRACE_SECONDS = 1.0
"""What a server may take to end by itself once its input is closed."""
KILL_SECONDS = 3.0


@contextlib.asynccontextmanager
async def child(
    argv: Sequence[str],
    *,
    name: str,
    env: dict[str, str],
    log: ServerLog,
    pass_fds: Sequence[int] = (),
    complaint: Callable[[], str] = lambda: "",
) -> AsyncIterator[Transport]:
    """A transport to ``argv``. Leaving ends it: input closed, a short wait, SIGKILL of its process group.

    A failure under way is told with the server's last words where it ended by itself. Raises EngineUnavailable if it
    can't be started.
    """
    from dockyard.tools.sdk_lines import streams

    try:
        process = await asyncio.create_subprocess_exec(
            *argv, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=env, pass_fds=pass_fds, start_new_session=True
        )
    except (OSError, ValueError) as error:
        raise EngineUnavailable(f"server {name!r} can't be started: {error}") from error
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    follow = asyncio.create_task(log.follow(process.stderr))
    try:
        async with streams(process.stdout, process.stdin, pid=process.pid) as transport:
            yield transport
    except ToolFailed as error:
        with contextlib.suppress(TimeoutError):
            # Its output has ended a moment before it has.
            await asyncio.wait_for(asyncio.shield(process.wait()), 0.5)
        if process.returncode is None:
            raise
        await asyncio.wait([follow], timeout=0.5)
        raise type(error)(_epitaph(name, process.returncode, complaint(), log.last), hint=error.hint) from error
    finally:
        await finish(_end(process, follow))


async def _end(process: Process, follow: asyncio.Task[None]) -> None:
    try:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), GRACE_SECONDS)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), KILL_SECONDS)
    finally:
        await asyncio.wait([follow], timeout=0.2)
        follow.cancel()
        await asyncio.gather(follow, return_exceptions=True)
        # Who inherited the pipes and lives on must not keep ours open.
        transport = getattr(process, "_transport", None)
        if transport is not None:
            transport.close()


def _epitaph(name: str, status: int, complaint: str, last: str) -> str:
    how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
    told = f"server {name!r} {how}"
    if complaint:
        told += f": {complaint}"
    return f"{told}; its last words: {last[-2000:]}" if last else f"{told}; it said nothing"


async def finish(work: Coroutine[Any, Any, _T]) -> _T:
    """Do it to its end even if the task that waits is cancelled, however often; then be cancelled."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
        except BaseException:  # noqa: BLE001 - the task's own failure: raised by result() below
            break
    if cancelled is not None:
        raise cancelled
    return task.result()
