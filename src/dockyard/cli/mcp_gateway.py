"""``dockyard mcp gateway run``: what clients start that speak MCP with a child process."""

from __future__ import annotations

from pathlib import Path

import typer

from dockyard.cli._mcp import Locked, LockFile, ProfileName

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, add_completion=False, help="Serve a profile's tools over stdio."
)
app.callback()(lambda: None)


@app.command("run")
def run(profile: ProfileName = "default", locked: Locked = False, lock_file: LockFile = "mcp.lock.json") -> None:
    """Serve a profile's tools to the client that started this, over stdin and stdout, until it closes them.

    Servers are started when they are used, in this process's own pool. A running Dockyard serves the same at /mcp.
    """
    import asyncio
    import logging
    import sys

    from dockyard.cli._connect import read_settings
    from dockyard.cli._mcp import PATIENCE_SECONDS, toolbox
    from dockyard.tools.pool import LIST_SECONDS

    settings = read_settings()
    logging.basicConfig(stream=sys.stderr, level=settings.log_level.upper(), format="%(levelname)s %(message)s")

    async def serve() -> None:
        # A lock is held against everything; without one the client is not kept waiting for who starts slowly.
        patience, lock = (PATIENCE_SECONDS, Path(lock_file)) if locked else (LIST_SECONDS, None)
        async with toolbox(settings, profile, lock, patience=patience) as (box, session):
            from dockyard.tools import sdk_stdio

            await sdk_stdio.serve(box, session)

    asyncio.run(serve())
