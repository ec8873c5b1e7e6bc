"""``dockyard mcp lock``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dockyard.cli._mcp import LockFile, ProfileName
from dockyard.cli._options import AsJson


def lock(
    profile: ProfileName = "default",
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail if anything is another now.")] = False,
    file: LockFile = "mcp.lock.json",
    as_json: AsJson = False,
) -> int:
    """Write mcp.lock.json: digests of images, hashes of packages, and fingerprints of every tool of a profile.

    Servers are started to list their tools. With --check the exit code is 1 if something drifted, and a diff is shown.
    """
    import asyncio

    from dockyard.cli._connect import read_settings
    from dockyard.cli._mcp import toolbox
    from dockyard.cli._output import show_json
    from dockyard.tools import lock as locks

    settings, path = read_settings(), Path(file)

    async def now() -> locks.Lock:
        async with toolbox(settings, profile) as (box, _):
            return await locks.current(box, box.profiles.get(profile), settings)

    if not check:
        made = asyncio.run(now())
        locks.write(path, made)
        if as_json:
            show_json(made)
        else:
            print(f"{path}: {len(made.servers)} servers, {sum(len(one.tools) for one in made.servers.values())} tools")
        return 0
    drift = locks.differences(locks.read(path), asyncio.run(now()))
    if as_json:
        show_json({"drift": drift})
    else:
        for one in drift:
            print(one)
        if not drift:
            print("all is as it was locked")
    return int(bool(drift))
