"""A gateway before the server ``everything``, for the conformance suite: prints its address and serves until killed.

The one argument is the era that the server behind speaks: ``modern``, or ``legacy`` for only that.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

import everything
from door_help import Inside, inside, listening, toolbox_of


async def main(era: str) -> None:
    runner = Inside({"everything": everything.make}, legacy=era == "legacy")
    with tempfile.TemporaryDirectory() as home:
        toolbox = toolbox_of(Path(home), runner, inside("everything"), prefix=False)
        async with listening(toolbox) as url:
            print(url, flush=True)
            await asyncio.sleep(3600)


asyncio.run(main(sys.argv[1]))
