"""A helper command (pip, npm, docker) run to its end, within a time and a size; killed whole if it is left early."""

from __future__ import annotations

import asyncio
import contextlib
import os
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Sequence

from dockyard.errors import EngineUnavailable
from dockyard.tools.model import ToolFailed
from dockyard.tools.runners._child import finish

OUTPUT_BYTES = 4 << 20


async def ran(
    argv: Sequence[str],
    *,
    seconds: float,
    env: dict[str, str] | None = None,
    cwd: str | None = None,
    pass_fds: Sequence[int] = (),
) -> tuple[int, str, str]:
    """Status, output and errors. Raises EngineUnavailable if it can't be started, ToolFailed if it takes too long."""
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            env=env,
            cwd=cwd,
            pass_fds=pass_fds,
            start_new_session=True,
            limit=OUTPUT_BYTES,
        )
    except OSError as error:
        raise EngineUnavailable(f"{argv[0]} can't be run: {error}") from error
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate()
    except TimeoutError:
        raise ToolFailed(f"{' '.join(argv[:3])} did not end within {seconds:g} s") from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, 9)
            await finish(process.wait())
            process._transport.close()  # type: ignore[attr-defined]  # nothing public closes the pipes
    return process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace")
