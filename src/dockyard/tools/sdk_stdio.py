"""A profile's tools for one client, over this process's standard streams."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator

from dockyard.tools.model import Session
from dockyard.tools.sdk import Transport
from dockyard.tools.sdk_front import Front
from dockyard.tools.sdk_lines import streams
from dockyard.tools.toolbox import Toolbox


async def serve(toolbox: Toolbox, session: Session) -> None:
    """Until the client closes its end, or this process is told to end. The toolbox stays open.

    ``session`` says who asks, and what they may use.
    """
    front = Front(toolbox, session.profile, lambda _: session.principal, session.given)
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    told = asyncio.Event()

    def end() -> None:
        told.set()
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, end)
    try:
        async with _standard() as ours:
            await front.server.run(ours.read, ours.write, front.server.create_initialization_options())
    except asyncio.CancelledError:
        if not told.is_set():
            raise
        task.uncancel()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def _standard() -> AsyncIterator[Transport]:
    """Messages on the standard streams; whatever else is printed meanwhile goes to stderr."""
    loop = asyncio.get_running_loop()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        reader = asyncio.StreamReader()
        coming, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer)
        with os.fdopen(os.dup(kept), "wb", closefd=True) as output:
            going, protocol = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, output)
            writer = asyncio.StreamWriter(going, protocol, reader, loop)
            try:
                async with streams(reader, writer, asks=False) as transport:
                    yield transport
            finally:
                coming.close()
                going.close()
    finally:
        os.dup2(kept, 1)
        os.close(kept)
